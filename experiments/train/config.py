"""Every setting of a run, typed; the command line is made of these by tyro."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from experiments.train.errors import RunError

FormName = Literal["multi", "plain", "online", "gradient"]
DataName = Literal["digits", "fashion-mnist", "cifar10", "folder"]


@dataclasses.dataclass(frozen=True)
class Data:
    """Images and how they are augmented."""

    data: DataName = "digits"
    """What is read: digits come with scikit-learn, the others lie in a folder."""
    folder: Path | None = None
    """Where the files are: IDX (fashion-mnist), binary (cifar10), train/ and val/ with one
    sub-folder of JPEG or PNG per class (folder)."""
    holdout: float = 0.1
    """Fraction of the training images that accuracy is watched on; 0 watches the test images."""
    shift: int = 0
    """Images are moved by up to so many pixels, both ways, zeros come in."""
    flip: bool = False
    """Images are mirrored at random."""
    size: int = 224
    """Height and width of the images of a folder, in pixels."""
    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest part of a folder's image that a random crop takes."""
    threads: int = 2
    """Threads that read ahead."""


@dataclasses.dataclass(frozen=True)
class Network:
    """The network, and how its branches are trained."""

    network: str = "repvgg_a0"
    """One of repjax.models.names(), or package:attribute: a Flax module, or a function of the
    number of classes that gives one."""
    override: tuple[str, ...] = ()
    """Fields of the network as repjax.models.create takes them: "depths=(1,1,2,1)"."""
    form: FormName = "multi"
    """multi: branches with norms, as published; plain: one convolution and its norm; online:
    plain, trained through add_branches and fuse_params; gradient: plain, by re-parameterized
    gradients."""
    branches: str = "repvgg"
    """What online and gradient add: repvgg, orepa, or package:attribute, as add_branches takes
    it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters are float32."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Loss, optimizer and schedule."""

    epochs: int = 15
    """Passes over the training images."""
    batch_size: int = 64
    """Images per step, over all devices."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    """SGD has momentum."""
    learning_rate: float = 3e-3
    """Its peak."""
    warmup: float = 1.0
    """Epochs over which it rises; then it falls as a cosine."""
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = False
    """Of SGD."""
    weight_decay: float = 1e-2
    """Of kernels alone."""
    equivalent_decay: float = 0.0
    """Half of this times the squares of the *fused* kernels is added to the loss."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    average: float = 0.0
    """Decay of the moving average of weights and statistics, which is then evaluated; 0: none."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Files, devices and processes."""

    output: Path | None = None
    """Folder of the run; runs/RECIPE-FORM by default."""
    seed: int = 0
    """Of initial values, order and augmentation."""
    resume: bool = False
    """Go on from the last checkpoint, to the same result bit by bit."""
    force: bool = False
    """Start over in a folder that holds a run, which is lost."""
    save_every: int = 0
    """Steps between checkpoints; 0: every epoch."""
    log_every: int = 10
    """Steps between lines of metrics."""
    devices: int | None = None
    """How many of the devices take part; all by default."""
    coordinator: str | None = None
    """HOST:PORT of the first process of several; "auto" on SLURM and TPU pods."""
    processes: int | None = None
    """How many processes there are, where that is not found out."""
    process: int | None = None
    """Number of this one, from 0."""
    profile: bool = False
    """Write a trace of the steps 10 to 20 to OUTPUT/profile."""


@dataclasses.dataclass(frozen=True)
class Finish:
    """What happens after the last step."""

    weights: Literal["last", "best"] = "last"
    """Those that are fused: the last, or those of the highest accuracy on the held-out images."""
    recalibrate: int = 0
    """Batches over which running statistics are measured anew before fusing; 0: none."""
    required_accuracy: float = 0.0
    """Test accuracy below which the exit code is 1."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A run: all of its settings."""

    data: Data = Data()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    run: Run = Run()
    finish: Finish = Finish()

    def __post_init__(self) -> None:
        for name, value, least in (
            ("epochs", self.optimizer.epochs, 1),
            ("batch-size", self.optimizer.batch_size, 1),
            ("threads", self.data.threads, 1),
            ("size", self.data.size, 1),
            ("shift", self.data.shift, 0),
            ("log-every", self.run.log_every, 1),
            ("save-every", self.run.save_every, 0),
            ("recalibrate", self.finish.recalibrate, 0),
            ("learning-rate", self.optimizer.learning_rate, 0),
            ("warmup", self.optimizer.warmup, 0),
            ("weight-decay", self.optimizer.weight_decay, 0),
            ("equivalent-decay", self.optimizer.equivalent_decay, 0),
        ):
            if not value >= least:
                raise RunError(f"--{name} {value}: expected at least {least}")
        for name, fraction in (
            ("holdout", self.data.holdout),
            ("momentum", self.optimizer.momentum),
            ("label-smoothing", self.optimizer.label_smoothing),
            ("average", self.optimizer.average),
        ):
            if not 0 <= fraction < 1:
                raise RunError(f"--{name} {fraction}: expected 0 or more, and below 1")
        if not 0 < self.data.area[0] <= self.data.area[1] <= 1:
            raise RunError(f"--area {self.data.area}: expected 0 < smallest <= largest <= 1")
        if self.finish.weights == "best" and not self.data.holdout:
            raise RunError(
                "--weights best with --holdout 0 would choose by the test images; hold some "
                "training images out"
            )


def as_json(config: Config) -> dict[str, Any]:
    """The settings that decide the result, as they are written beside it."""
    free = {"output", "resume", "force", "log_every", "profile", "threads", "save_every"}
    free |= {"devices", "coordinator", "processes", "process"}
    sections = dataclasses.asdict(config)
    sections.pop("finish")
    kept = {
        section: {name: value for name, value in values.items() if name not in free}
        for section, values in sections.items()
    }
    result: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return result


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What two runs differ in, in words.

    Example:
        >>> differences({"run": {"seed": 0}}, {"run": {"seed": 1}})
        ['seed 0, now 1']
    """
    return [
        f"{name} {old.get(section, {}).get(name)}, now {value}"
        for section, values in new.items()
        for name, value in values.items()
        if old.get(section, {}).get(name) != value
    ]
