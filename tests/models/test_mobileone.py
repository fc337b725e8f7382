"""MobileOne networks: parameters and operations, without computing anything large."""

from __future__ import annotations

import pytest

from repjax import models
from tests.models.counting import count, count_deployed
from tests.models.sampled import sampled

PARAMETERS = {
    "mobileone_s0": (5_293_272, 2_078_504),
    "mobileone_s1": (4_825_192, 4_764_840),
    "mobileone_s2": (7_884_648, 7_808_168),
    "mobileone_s3": (10_170_600, 10_078_312),
    "mobileone_s4": (14_951_248, 14_838_352),
}
# (10^9 multiply-accumulates, 10^6 activations), train and deploy
OPERATIONS = {
    "mobileone_s0": ((1.09, 15.48), (0.28, 3.79)),
    "mobileone_s1": ((0.86, 9.67), (0.83, 6.27)),
    "mobileone_s2": ((1.34, 11.55), (1.3, 7.56)),
    "mobileone_s3": ((1.94, 13.85), (1.9, 9.13)),
    "mobileone_s4": ((3.04, 17.74), (2.98, 11.81)),
}
PAIRS = 2 + 8 + 10 + 1


@pytest.mark.parametrize("name", sampled(PARAMETERS, "mobileone_s0", "mobileone_s4"))
def test_counts(name: str) -> None:
    model = models.create(name)
    train, deploy = count(model), count_deployed(model)
    assert (train.parameters, deploy.parameters) == PARAMETERS[name]
    # the stem: 3x3 and 1x1; a depthwise block: copies and 1x1; a pointwise block: copies
    copies = model.config.copies
    assert train.convolutions == 2 + PAIRS * (2 * copies + 1)
    assert (deploy.convolutions, deploy.norms) == (1 + 2 * PAIRS, 0)
    for found, (gmacs, mactivations) in zip((train, deploy), OPERATIONS[name], strict=True):
        assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.0051)
        assert found.activations / 1e6 == pytest.approx(mactivations, abs=0.0051)


def test_every_network_is_listed() -> None:
    assert {name for name in models.names() if name.startswith("mobileone")} == set(PARAMETERS)
