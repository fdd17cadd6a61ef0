"""When statistics go out."""

from __future__ import annotations

import pytest

from pipeline.clustering.centroids import CentroidPolicy
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("n_changes", "is_idle", "elapsed_s", "is_due"),
    [
        (0, True, 0.9, False),
        (0, True, 1.0, True),
        (99, False, 29.9, False),
        (100, False, 1.0, True),
        (100, False, 0.9, False),
        (1, False, 30.0, True),
    ],
)
def test_they_are_due_when_idle_or_enough_or_late_but_never_too_close(
    n_changes, is_idle, elapsed_s, is_due
):
    assert CentroidPolicy().is_due(n_changes, is_idle=is_idle, elapsed_s=elapsed_s) is is_due


def test_they_may_follow_every_record():
    policy = CentroidPolicy(min_updates=1, min_interval_s=0, max_interval_s=0)

    assert policy.is_due(1, is_idle=False, elapsed_s=0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"min_updates": 0}, {"min_interval_s": -0.1}, {"min_interval_s": 31.0},
     {"min_interval_s": float("nan")}, {"tolerance": -1.0}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="centroids"):
        CentroidPolicy(**wrong)
