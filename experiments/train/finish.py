"""After the last step: recalibrate if asked, fuse, verify, compare both forms, save."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from rich.console import Console
from rich.table import Table

import repjax
from experiments._machine import describe
from experiments.train import loader, predictions
from experiments.train.config import Config
from experiments.train.data import Splits
from experiments.train.devices import Devices
from experiments.train.errors import RunError
from experiments.train.folders import Folder
from experiments.train.forms import Form, Tree
from experiments.train.recalibrate import recalibrated
from experiments.train.step import Normalize
from repjax.torch import files


def finish(
    config: Config,
    form: Form,
    tree: Tree,
    splits: Splits,
    devices: Devices,
    folder: Folder,
    console: Console,
) -> dict[str, Any]:
    """Fuse the trained network, and tell what it does before and after.

    Args:
        config: of the run.
        form: how the network was trained.
        tree: its variables, on the devices.
        splits: images.
        devices: that compute.
        folder: of the run.
        console: to print on.

    Returns:
        What is written to result.json.

    Raises:
        RunError: the forms differ.
    """
    normalize, options = Normalize(splits.mean, splits.std), repjax.compiler_options() or None
    if config.finish.recalibrate:
        tree = recalibrated(form, tree, _batches(config, splits, devices, normalize), options)
    trained: Tree = devices.fetch(tree)
    shape = (config.optimizer.batch_size, *splits.test.images.shape)
    struct: Any = jax.ShapeDtypeStruct
    apply, deployed = form.deploy(trained, struct(shape, jnp.float32))
    deployed = jax.tree.map(np.asarray, deployed)
    compared = predictions.compare(
        splits.test,
        (form.apply, trained),
        (apply, deployed),
        normalize=normalize,
        devices=devices,
        batch_size=config.optimizer.batch_size,
        options=options,
        threads=config.data.threads,
    )
    few = normalize(jnp.asarray(splits.test.read(np.arange(min(4, len(splits.test))))[0]))
    verdict = repjax.verify(form.apply, trained, apply, deployed, few)
    before, after = compared.accuracies()
    flipped = compared.flipped()
    spec = struct(few.shape, few.dtype)
    result: dict[str, Any] = {
        "form": form.name,
        "seed": config.run.seed,
        "test_accuracy": before,
        "test_accuracy_fused": after,
        "flipped": flipped,
        "largest_move_of_a_logit": compared.moved(),
        "verified": bool(verdict),
        "convolutions": [
            repjax.count_operations(f, v, spec)["conv_general_dilated"]
            for f, v in ((form.apply, trained), (apply, deployed))
        ],
        "numbers": [_numbers(trained), _numbers(deployed)],
        "environment": describe(),
    }
    if devices.main:
        _tell(console, result, len(splits.test))
        console.print(f"repjax.verify: {verdict}", highlight=False)
        for name, variables in (("trained", form.variables(trained)), ("deployed", deployed)):
            flat = traverse_util.flatten_dict(variables, sep="/")  # type: ignore[no-untyped-call]
            arrays = {key: np.asarray(leaf) for key, leaf in flat.items()}
            files.write(folder.path / f"{name}.safetensors", arrays, force=True)
        folder.write(folder.result, result)
    if not verdict:
        raise RunError("the fused network differs from the trained one; see repjax.verify above")
    return result


def _batches(config: Config, splits: Splits, devices: Devices, normalize: Normalize) -> Any:
    """Training images without augmentation, as many batches as asked for, normalized."""
    size = config.optimizer.batch_size
    found = loader.evaluation_batches(
        splits.train, batch_size=size, rows=devices.rows(size), threads=config.data.threads
    )
    whole = len(splits.train) // size
    for images, *_ in itertools.islice(found, min(config.finish.recalibrate, whole)):
        yield (normalize(devices.divide((images,))[0]),)


def _numbers(tree: Any) -> int:
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def _tell(console: Console, result: dict[str, Any], count: int) -> None:
    view = Table("", "trained", "fused", title="before and after", title_justify="left")
    accuracies = result["test_accuracy"], result["test_accuracy_fused"]
    view.add_row("test accuracy", *[f"{value:.2%}" for value in accuracies])
    view.add_row("predictions that agree", "", f"{count - len(result['flipped'])} of {count}")
    view.add_row("largest move of a logit", "", f"{result['largest_move_of_a_logit']:.1e}")
    view.add_row("convolutions", *map(str, result["convolutions"]))
    view.add_row("parameters and statistics", *[f"{size:,}" for size in result["numbers"]])
    console.print(view)
    for one in result["flipped"]:
        console.print(
            f"image {one['image']}: class {one['predicted'][0]} before, {one['predicted'][1]} "
            f"after fusing; the margin was {one['margin_before']:.1e}",
            highlight=False,
        )
