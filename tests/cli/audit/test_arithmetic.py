"""The judge's own arithmetic against sums that are written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.cli.audit.arithmetic import TOLERANCE, nearest_of


def by_hand(vector, centroid):
    pairs = zip(vector.tolist(), centroid.tolist(), strict=True)
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in pairs))


@pytest.mark.parametrize("offset", [0.0, 200.0])
def test_nearest_is_exact_also_far_from_the_origin(offset):
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((200, 37)) + offset).astype(np.float32)
    c = np.concatenate([x[:9], (rng.standard_normal((9, 37)) + offset).astype(np.float32)])
    labels = rng.integers(0, len(c), len(x))

    own, best, best_labels = nearest_of(x, labels, c)

    truth = np.array([[by_hand(vector, centroid) for centroid in c] for vector in x])
    np.testing.assert_allclose(own, truth[np.arange(len(x)), labels], rtol=TOLERANCE, atol=0)
    np.testing.assert_allclose(best, truth.min(axis=1), rtol=TOLERANCE, atol=0)
    assert best_labels.tolist() == truth.argmin(axis=1).tolist()
    assert best[:9].tolist() == [0.0] * 9


def test_last_bit_decides():
    x = np.full((1, 8), 0.5, np.float32)
    near = np.zeros(8, np.float32)
    far = near.copy()
    far[0] = -np.float32(2**-24)

    own, best, best_labels = nearest_of(x, np.array([0]), np.stack([far, near]))

    assert best_labels.tolist() == [1]
    assert own[0] > best[0] * (1 + TOLERANCE)
