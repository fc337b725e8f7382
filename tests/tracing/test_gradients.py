"""Derivatives of fused programs, through the fold, are those of the programs they came from."""

from __future__ import annotations

import pytest

from repjax import fuse
from tests.tracing import (
    test_bias_map_shapes,
    test_bias_maps,
    test_constants,
    test_missed_merges,
    test_moved_channels,
    test_never_raises,
    test_never_raises_elsewhere,
)
from tests.tracing.checks import same_gradients

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]

TABLES = {
    "maps": (test_bias_maps, test_bias_maps.BEFORE),
    "branches": (test_bias_maps, test_bias_maps.BRANCHES),
    "plain": (test_bias_maps, test_bias_maps.PLAIN),
    "positions": (test_bias_map_shapes, test_bias_map_shapes.POSITIONS),
    "constants": (test_constants, test_constants.PROGRAMS),
    "fans": (test_missed_merges, test_missed_merges.FANS),
    "splits": (test_moved_channels, test_moved_channels.SPLITS),
    "masks": (test_moved_channels, test_moved_channels.MASKS),
    "batch": (test_never_raises, {k: f for k, (f, _) in test_never_raises.BATCH.items()}),
    "crops": (test_never_raises, test_never_raises.CROPS),
    "ranks": (test_never_raises, test_never_raises.RANKS),
    "outputs": (test_never_raises_elsewhere, test_never_raises_elsewhere.OUTPUTS),
}
CASES = {f"{table}: {name}": (table, name) for table in TABLES for name in TABLES[table][1]}
WITHOUT = {"outputs: a number", "outputs: nothing", "outputs: no array at all"}


@pytest.mark.parametrize("case", [case for case in CASES if case not in WITHOUT])
def test_gradients(case):
    table, name = CASES[case]
    module, programs = TABLES[table]
    fused = fuse(programs[name], module.W, module.X())
    same_gradients(programs[name], module.W, fused, module.X())
