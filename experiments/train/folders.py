"""The folder of a run: begun, gone on with, or refused; nothing is lost unasked."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from experiments.train.config import Config, as_json, differences
from experiments.train.errors import RunError
from repjax._files import replacing


@dataclasses.dataclass(frozen=True)
class Folder:
    """Where the files of a run are.

    Args:
        path: of the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """What decides the result."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Orbax's folder."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Lines of JSON."""
        return self.path / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """Accuracies before and after fusing."""
        return self.path / "result.json"

    def prepare(self, config: Config) -> None:
        """Make the folder ready for a run, in the one process that writes.

        Args:
            config: of the run.

        Raises:
            RunError: it holds a run already and is not told to go on or to start over, or the
                run in it had other settings.
        """
        settings = as_json(config)
        if self.settings.exists() and config.run.resume:
            other = differences(json.loads(self.settings.read_text()), settings)
            if other:
                raise RunError(
                    f"{self.path}: --resume with other settings than it began with: "
                    f"{'; '.join(other)}"
                )
            return
        if self.settings.exists() and not config.run.force:
            raise RunError(
                f"{self.path}: holds a run already; --resume goes on with it, --force starts over "
                "and loses it, --output PATH names another folder"
            )
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        for path in (self.metrics, self.result):
            path.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self.write(self.settings, settings)

    def write(self, path: Path, content: object) -> None:
        """A file of JSON, whole or not at all."""
        with replacing(path, force=True) as new:
            new.write_text(json.dumps(content, indent=1))
