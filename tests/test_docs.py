"""The documentation: its code runs, its links lead somewhere, its generated page is current."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from experiments import families_table, shrink
from repjax import models

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CODE = [path for folder in ("repjax", "experiments") for path in (ROOT / folder).rglob("*.py")]
BRITISH = (
    r"(?:initial|normal|recogn|optim|general|special|organ|summar|minim|maxim|serial|quant|vector"
    r"|regular|parametr|parameter|factor|material|canonical|symmetr|util)is(?:e|ing|ation)"
    r"|neighbour|colour|behaviour|favour|honour|centre[sd]?\b|\bgrey|\blearnt\b|artefact"
)
WRITTEN = "optimised_convolutions"  # a key in files that experiments.compare writes


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.stem)
def test_the_code_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)  # some write files
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"`[^`]*`", "", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose) if "://" not in link]
    gone = [link for link in links if not (page.parent / link).exists()]
    paths = re.findall(r"\b(?:repjax|tests|experiments|docs)/[\w/]+\.(?:py|md|npz)\b", text)
    gone += [path for path in paths if not (ROOT / path).exists()]
    assert not gone


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs" / "index.md").read_text()))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def british(path: Path) -> set[str]:
    return set(re.findall(rf"\w*(?:{BRITISH})\w*", path.read_text(), flags=re.IGNORECASE))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_spelling_is_american(page: Path) -> None:
    assert not british(page)


def test_spelling_of_the_code_is_american() -> None:
    found = {str(path.relative_to(ROOT)): british(path) - {WRITTEN} for path in CODE}
    assert len(found) > 100
    assert not {path: words for path, words in found.items() if words}


def test_short_names_of_files_exist() -> None:
    """A file in backticks, such as `grammar.py`, is the end of a path that exists."""
    folders = [ROOT / name for name in ("repjax", "tests", "experiments", "docs")]
    paths = [*TEXTS, *(path for folder in folders for path in folder.rglob("*.*"))]
    ends = "".join(f"/{path.relative_to(ROOT)}\n" for path in paths)
    for page in TEXTS:
        names = re.findall(r"`([\w/]+\.(?:py|md))`", page.read_text())
        assert not [name for name in names if f"/{name}\n" not in ends], page


def table() -> dict[str, list[str]]:
    lines = families_table.TARGET.read_text().splitlines()
    rows = [line[2:-2].split(" | ") for line in lines if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


def test_the_page_of_families_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks are there; one that is trained and one that is deployed are counted again."""
    monkeypatch.chdir(ROOT)
    text = families_table.TARGET.read_text()
    assert text.startswith(families_table.HEADER + families_table.line(families_table.COLUMNS))
    rows = table()
    assert list(rows) == models.names()
    assert families_table.counts("repvgg_a0") == rows["repvgg_a0"][:6]
    check_deployed_counts("mobileone_s0")


@pytest.mark.slow
def test_one_of_each_family_is_counted_as_the_page_says() -> None:
    first = {type(models.create(name)): name for name in reversed(models.names())}
    for name in first.values():
        check_deployed_counts(name)


def check_deployed_counts(name: str) -> None:
    parameters, convolutions, norms = families_table.count(models.create(name, deployed=True))
    cells = table()[name]
    assert [cells[2], cells[4]] == [f"{parameters:,}", str(convolutions)]
    assert cells[5].split(" of ")[0] == str(norms)


def test_the_errors_on_the_page_are_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for row in table().values():
        assert 0 < float(row[6]) < 1e-12
        assert 0 < float(row[7]) < 1e-4


def test_small_networks_are_found_without_names_of_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    create = models.create
    sizes: dict[str, Any] = {"depths": (1, 3, 1, 1), "widths": (16, 16, 32, 64)}
    monkeypatch.setattr(shrink, "_KNOWN", {})
    monkeypatch.setattr("repjax.models.names", lambda: ["repvgg_a0"])
    monkeypatch.setattr("repjax.models.create", lambda name, **f: create(name, **{**sizes, **f}))
    assert shrink.fields(models.create("repvgg_a1")) == ("depths", "widths")
    config: Any = shrink.small("repvgg_a1").config
    assert (config.depths, config.widths) == ((1, 2, 1, 1), (8, 8, 16, 32))


def test_the_script_of_families_imports_no_test_and_names_no_field() -> None:
    code = "".join(
        (ROOT / "experiments" / f"{m}.py").read_text() for m in ("families_table", "shrink")
    )
    code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    assert "tests" not in code
    assert not re.findall(r"\b(?:depths|widths|width|head_features|rows)\b['\"]", code)
