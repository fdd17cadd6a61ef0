"""Statistics as bytes: they come back as they were, and lie as documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RecordError
from pipeline.messages.events import StatisticsRow
from pipeline.messages.statistics import decode_statistics, encode_statistics, statistics_key
from tests.schemas import validate

INT64 = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None)
@given(
    st.integers(1, 2**63), st.lists(INT64, min_size=4, max_size=4),
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=2), st.lists(INT64, max_size=40),
    st.none() | INT64,
)  # fmt: skip
def test_statistics_come_back(epoch, integers, floats, sums, weight):
    row = StatisticsRow(epoch, *integers, *floats, np.array(sums, np.int64), weight)

    again = decode_statistics(encode_statistics(row))

    assert again.sums.tolist() == sums
    for name in ("epoch", "count", "square_high", "square_low", "landed", "distance", "weight"):
        assert getattr(again, name) == getattr(row, name)
    assert again.distance_squared == row.distance_squared


def test_statistics_are_laid_out_as_documented():
    value = encode_statistics(StatisticsRow(7, 3, 4, 5, 6, 1.5, 2.5, np.array([-1, 2], np.int64)))

    assert value.hex(" ", 4).split() == [
        "45445331", "02000000", "07000000", "00000000", "03000000", "00000000", "04000000",
        "00000000", "05000000", "00000000", "06000000", "00000000", "00000000", "0000f83f",
        "00000000", "00000440", "ffffffff", "ffffffff", "02000000", "00000000",
    ]  # fmt: skip
    validate("cluster-stats", statistics_key(3, "c40"), value)


def test_a_weight_stands_behind_the_sums():
    sums = np.array([-1, 2], np.int64)
    plain = StatisticsRow(7, 3, 4, 5, 6, 1.5, 2.5, sums)
    weighted = StatisticsRow(7, 3, 4, 5, 6, 1.5, 2.5, sums, 2**33 + 2)

    value = encode_statistics(weighted)

    assert value == encode_statistics(plain) + bytes.fromhex("0200000002000000")
    validate("cluster-stats", statistics_key(3, "c40"), value)
    for cut in (value[:-1], value[:-4], value + b"\0", value + 8 * b"\0"):
        with pytest.raises(RecordError, match="2 sums make 80, or 8 more with a weight"):
            decode_statistics(cut)
