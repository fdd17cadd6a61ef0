"""An engine that holds float16 does, bit by bit, what one does that is given rounded vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.engine import recount as counting
from pipeline.engine.cluster_engine import ClusterEngine, Restored
from pipeline.messages.halves import round_to_half
from pipeline.state.members import Members
from tests.engine.house import KERNELS, engine, model, record, write

D, N = 24, 60
RNG = np.random.default_rng(5)
CENTROIDS = RNG.normal(size=(7, D)).astype(np.float32)
HOURS_MS = {"half_life_s": 3600.0, "landmark_ms": 0}


def holding(dtype, first):
    """An engine of that dtype, which owns an empty partition."""
    settings = engine(compacted=False, first=first).settings
    settings = replace(settings, embedding=replace(settings.embedding, dtype=dtype))
    made = ClusterEngine(settings, KERNELS)
    made.install_model(first)
    made.adopt(Restored(0, 0, Members(D, dtype=dtype), [], {}, set(), 0))
    return made


def history(made, *, rounds):
    """What an engine says of items that come, change and go, and of a sweep by a newer model."""
    rng, said, offset = np.random.default_rng(6), [], 0
    for n_items in (N, N, N // 2):
        records = []
        for vector in rng.normal(size=(n_items, D)).astype(np.float32):
            item = f"item-{rng.integers(N)}"
            if rng.random() < 0.2:
                vector = None
            elif rounds:
                round_to_half(vector[None])
            records.append(record(offset, item, vector))
            offset += 1
        said += write(made, records)
    made.install_model(replace_centroids(made, CENTROIDS * np.float32(0.7)))
    while made.partitions[0].to_sweep:
        changes = made.sweep(0, max_rows=7)
        made.install(changes)
        said += changes.outgoing
    changes = made.publish_statistics(0)
    made.install(changes)
    return [(out.topic, out.key, out.value) for out in [*said, *changes.outgoing]]


def replace_centroids(made, centroids):
    fields = {name: getattr(made.loaded.model.manifest, name) for name in HOURS_MS}
    return model(centroids, epoch=2, input_policy="delete", **fields)


@pytest.mark.parametrize("fading", [{}, HOURS_MS], ids=["plain", "forgetting"])
def test_it_says_what_an_engine_says_that_is_given_rounded_vectors(fading):
    first = model(CENTROIDS, input_policy="delete", **fading)
    half, whole, other = (holding(d, first) for d in ("float16", "float32", "float32"))

    said = history(half, rounds=False)

    assert said == history(whole, rounds=True)
    assert said != history(other, rounds=False)  # else there was nothing to round
    mine, its = half.partitions[0].members, whole.partitions[0].members
    assert mine.vectors.dtype == np.float16
    assert mine.vectors.astype(np.float32).tobytes() == its.vectors.tobytes()


def test_rows_take_half_the_memory():
    members, halves = Members(D), Members(D, dtype="float16")
    for one in (members, halves):
        one.reserve(1000)

    assert 2 * halves.vectors.nbytes == members.vectors.nbytes == 1000 * D * 4


@pytest.mark.parametrize("fading", [{}, HOURS_MS], ids=["plain", "forgetting"])
def test_members_that_are_counted_in_parts_add_up_to_the_same(monkeypatch, fading):
    made = holding("float16", model(CENTROIDS, input_policy="delete", **fading))
    history(made, rounds=False)
    state, decay = made.partitions[0], made.loaded.decay
    before = {name: getattr(state.sums, name).copy() for name in state.sums.arrays}
    monkeypatch.setattr(counting, "WIDENED_ROWS", 4)

    counting.recount(state, decay, KERNELS, max_component=256.0)

    for name, array in before.items():
        assert array.tobytes() == getattr(state.sums, name).tobytes()
