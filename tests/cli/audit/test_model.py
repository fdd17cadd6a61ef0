"""Centroids are read by their first bytes: what a version says behind them is its own affair."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pipeline.cli.audit.model import edv1
from pipeline.messages.vectors import encode_vector

VECTOR = encode_vector(np.array([1, 2], np.float32), 7)
TAILS = {
    "before profiles": struct.pack("<Qd", 1, 0.5),
    "with a profile": struct.pack("<Qdd9f", 1, 0.5, 0.5, *[0.5] * 9),
    "moved since the fit": struct.pack("<Qdd9f2f", 1, 0.5, 0.5, *[0.5] * 9, 3, 4),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_centroid_is_read_whatever_its_tail(tail):
    found = edv1(VECTOR + tail, 2, min_tail=16)

    assert found is not None
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "min_tail"),
    [(VECTOR, 16), (VECTOR + bytes(15), 16), (VECTOR + bytes(16), 0), (VECTOR[:-1], 0)],
)
def test_control_what_is_too_short_or_has_a_tail_where_none_may_be_is_refused(value, min_tail):
    assert edv1(value, 2, min_tail=min_tail) is None
