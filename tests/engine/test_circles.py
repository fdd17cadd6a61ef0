"""What is made for every batch and model is gone when nobody needs it: no circle keeps it.

The services let Python's collector come late, so a circle of such objects is memory that grows.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.errors import Reason, RecordError
from pipeline.kernels.avx512.twin import Avx512Kernels
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.features import has_avx512_vnni
from pipeline.messages.policy import JSON
from tests.engine import house

POINTS = np.random.default_rng(7).standard_normal((40, 12)).astype(np.float32)


@contextmanager
def only_collected_by_counting():
    """No collection inside; what one finds at the end is what circles have kept."""
    gc.collect()
    gc.disable()
    found = []
    try:
        yield found
    finally:
        found.append(gc.collect())
        gc.enable()


def load_and_search(kernels):
    model = kernels.load(POINTS[:10])
    for asked in {}, {"second": True}, {"margin": True}:
        kernels.assign(model, POINTS, **asked)


@pytest.mark.parametrize("twin", [CpuKernels, Avx512Kernels])
@pytest.mark.parametrize("prefix", [None, 4])
def test_a_model_goes_with_its_last_holder(twin, prefix):
    if twin is Avx512Kernels and not has_avx512_vnni():
        pytest.skip("the processor has no AVX-512 VNNI")
    kernels = twin(1, prefix=prefix)
    load_and_search(kernels)

    with only_collected_by_counting() as found:
        load_and_search(kernels)

    assert found == [0]


def test_a_batch_with_dead_letters_goes_with_its_transaction():
    engine = house.engine()

    def take(offset):
        good = house.record(offset, "a", [1.0, 0.0])
        unknown = house.record(offset + 1, "b", [1.0, 0.0], headers=[("content-type", b"none")])
        bad = house.record(offset + 2, "c", b"no vector")
        foreign = house.record(offset + 3, "d", b"[]", headers=[("content-type", JSON.encode())])
        changes = engine.prepare([good, unknown, bad, foreign])
        assert changes.tally.dead == {Reason.CONTENT_TYPE: 1, Reason.DECODE: 2}
        engine.install(changes)

    take(0)

    with only_collected_by_counting() as found:
        take(4)

    assert found == [0]


def test_an_error_that_is_stored_as_it_was_caught_is_such_a_circle():
    def read(rows):
        errors = {}
        for i, row in enumerate(rows):
            try:
                raise RecordError(Reason.DECODE, row)
            except RecordError as error:
                errors[i] = error
        return errors

    with only_collected_by_counting() as found:
        read(["a", "b"])

    assert found[0] > 0
