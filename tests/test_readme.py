"""The README's Python blocks run as they stand, one after the other."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks():
    text = (ROOT / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_blocks_run(capsys, monkeypatch, tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)  # some write files
    names = {}
    for number, block in enumerate(blocks()):
        exec(compile(block, f"README block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "8 → 4 convolutions" in printed
    assert "equal to rounding" in printed
    report = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert report[1].strip() in printed


def test_the_set_up_commands_are_the_two_agreed():
    commands = re.findall(r"^\d\. `(.*)`$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert commands == [
        'python -m pip install -e ".[experiments]" && python -m experiments.quickstart',
        'python -m pip install -e ".[test]" && python -m pytest -n 2',
    ]
