"""Assigners that look at themselves: in every history they find nothing; what is wrong they find.

That nothing is found is also said where every history comes to rest (`World.settle`).
"""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.services.assigner.checks import Checks
from tests.simulation.test_simulation import play
from tests.simulation.world import World

pytestmark = pytest.mark.sim

HISTORIES = {
    "faults": {},
    "forgetting": {"half_life_s": 4.0},
    "float16": {"dtype": "float16"},
    "ghosts": {"compacts_unread": True},
    "cosine": {"metric": "cosine", "dtype": "float16", "half_life_s": 4.0},
}


@pytest.fixture
def seen(monkeypatch):
    """How many labels each look checked, and under which models."""
    found = {"labels": 0, "versions": set(), "pending": 0}
    look = Checks.look

    def noted(self, engine, clock):
        before = self.n_checked
        violations = look(self, engine, clock)
        found["labels"] += self.n_checked - before
        if self.n_checked > before:
            found["versions"].add(engine.version)
            found["pending"] += any(state.to_sweep for state in engine.partitions.values())
        return violations

    monkeypatch.setattr(Checks, "look", noted)
    return found


@pytest.mark.parametrize("settings", HISTORIES.values(), ids=HISTORIES)
def test_nothing_is_found_in_any_history_of_many_models(settings, seen):
    for seed in range(1000, 1002):
        world, _ = play(seed, n_steps=100, **settings)
        world.command(force=True)
        world.crash_rate = 0.02
        world.live(40)
        world.settle()
        assert world.violations == []

    assert seen["labels"] > 2000
    assert seen["pending"] > 0  # also while a sweep was on its way
    assert len({version.epoch for version in seen["versions"]}) > 1
    assert any(version.revision for version in seen["versions"])


class Lying(CpuKernels):
    """Control: now and then a point is given to its second cluster."""

    def assign(self, model, points, *, second=False, margin=False):
        found = super().assign(model, points, second=True, margin=margin)
        is_wrong = np.arange(len(points)) % 7 == 3
        return found._replace(
            labels=np.where(is_wrong, found.second_labels, found.labels).astype(np.int32)
        )


class Forgetful(CpuKernels):
    """Control: a component of what leaves a cluster stays in its sums."""

    def accumulate(self, sums, old, old_labels, new, new_labels, **weights):
        super().accumulate(sums, old, old_labels, new, new_labels, **weights)
        if (old_labels >= 0).any():
            sums.sums[old_labels[old_labels >= 0][0], 1] += 1


@pytest.mark.parametrize(
    ("kernels", "invariant"), [(Lying, "exact_label"), (Forgetful, "sums")], ids=["lies", "forgets"]
)
def test_control_kernels_that_err_are_found(kernels, invariant):
    world = World(1)
    world.crash_rate, world.kernels = 0.0, kernels(threads=1)
    world.start_assigner("a0")
    world.start_reclusterer()
    world.write(300)
    with pytest.raises(AssertionError):
        for _ in range(20):
            world.write(20)
            world.settle()

    assert {violation.invariant for violation in world.violations} == {invariant}
