"""Both forms of a network on the same images: accuracies, and what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.train import loader
from experiments.train.data import ImageSet
from experiments.train.data.images import Array
from experiments.train.devices import Devices
from experiments.train.step import Normalize

Apply = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Logits of two forms on the same images.

    Args:
        before: of the network as it was trained, (n, classes).
        after: of the deploy network.
        labels: (n,).
    """

    before: Array
    after: Array
    labels: Array

    def accuracies(self) -> tuple[float, float]:
        """Shares of right predictions, before and after."""
        one, two = (
            float((logits.argmax(-1) == self.labels).mean()) for logits in (self.before, self.after)
        )
        return one, two

    def flipped(self) -> list[dict[str, Any]]:
        """The images that are predicted otherwise, with the margin between both classes."""
        one, two = self.before.argmax(-1), self.after.argmax(-1)
        return [
            {
                "image": int(number),
                "label": int(self.labels[number]),
                "predicted": [int(one[number]), int(two[number])],
                "margin_before": float(logits[one[number]] - logits[two[number]]),
            }
            for number in np.flatnonzero(one != two)
            for logits in [self.before[number]]
        ]

    def moved(self) -> float:
        """The largest change of a logit."""
        return float(np.abs(self.before - self.after).max())


def compare(
    images: ImageSet,
    before: tuple[Apply, Any],
    after: tuple[Apply, Any],
    *,
    normalize: Normalize,
    devices: Devices,
    batch_size: int,
    options: Any,
    threads: int,
) -> Comparison:
    """Run both forms on all images.

    Args:
        images: the set.
        before: logits of variables and images, and the variables.
        after: the same of the deploy network.
        normalize: of the images.
        devices: that compute.
        batch_size: images per call.
        options: of the compiler.
        threads: that read ahead.
    """

    def both(one: Any, two: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal = normalize(images)
        return before[0](one, normal), after[0](two, normal)

    run = jax.jit(both, out_shardings=devices.copied, compiler_options=options)
    trees = devices.copy(before[1]), devices.copy(after[1])
    rows = devices.rows(batch_size)
    found: list[tuple[Array, Array]] = []
    for batch, _, _ in loader.evaluation_batches(
        images, batch_size=batch_size, rows=rows, threads=threads
    ):
        found.append(devices.fetch(run(*trees, *devices.divide((batch,)))))
    one, two = (np.concatenate(part)[: len(images)] for part in zip(*found, strict=True))
    return Comparison(one.astype(np.float32), two.astype(np.float32), images.labels)
