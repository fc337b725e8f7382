"""A function with its arguments, as it is and with its depthwise convolutions shifted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from repjax._dependence import coarsest, reached
from repjax.compiling.probe import Probe
from repjax.compiling.shifting import has_depthwise, shift_depthwise
from repjax.compiling.signature import Signature
from repjax.compiling.tolerance import coarsest_product
from repjax.leaves import Leaves


class Forms:
    """What there is to compile. Each form is traced once, when it is asked for.

    Args:
        fn: any function that JAX can trace.
        args: its arguments; leaves that are no arrays are bound to the function.
    """

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.signature = Signature(args)
        self.arrays: Any = args
        self._function = fn
        if not self.signature.only_arrays:
            leaves = Leaves(args)
            self.arrays = (leaves.arrays,)
            self._function = lambda arrays: fn(*leaves.rebuild(arrays))
            leaves.arrays = []

    def function(self, shifted: bool) -> Callable[..., Any]:
        """The function of `arrays`, in one of its forms."""
        return shift_depthwise(self._function) if shifted else self._function

    def lowered(self, shifted: bool) -> jax.stages.Lowered:
        """What is compiled, with any options."""
        return self._shifted if shifted else self._plain

    @property
    def depthwise(self) -> bool:
        """Whether the program has depthwise convolutions."""
        return has_depthwise(self._traced.jaxpr)

    def roundoff(self, platform: str) -> float:
        """Unit roundoff of the coarsest type that the outputs go through."""
        kinds = [_real(kind) for kind in reached(self._traced.jaxpr).types]
        name, roundoff = coarsest(kinds)
        return max(roundoff, coarsest_product(platform) if name == "float32" else 0.0)

    def probe(self, roundoff: float) -> Probe:
        """What a saved program is checked with, given the unit roundoff."""
        return Probe.like(jax.tree.leaves(self.arrays), roundoff)

    @functools.cached_property
    def _traced(self) -> jax.stages.Traced:
        return jax.jit(self._function).trace(*self.arrays)

    @functools.cached_property
    def _plain(self) -> jax.stages.Lowered:
        lowered: jax.stages.Lowered = self._traced.lower()
        return lowered

    @functools.cached_property
    def _shifted(self) -> jax.stages.Lowered:
        lowered: jax.stages.Lowered = jax.jit(self.function(shifted=True)).lower(*self.arrays)
        return lowered


def platform_of(program: jax.stages.Compiled) -> str:
    """The platform that a program was compiled for."""
    for sharding in jax.tree.leaves((program.output_shardings, program.input_shardings)):
        return str(next(iter(sharding.device_set)).platform)
    return jax.default_backend()


def _real(kind: Any) -> Any:
    real = isinstance(kind, np.dtype) and kind.kind == "c"
    return np.empty(0, kind).real.dtype if real else kind
