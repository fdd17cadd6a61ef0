"""A prefix: which directions, whether it pays, and that it changes no byte of a result."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.bounds import bounded
from pipeline.kernels.cpu import prefix
from pipeline.kernels.cpu.search import Float32Search
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.cpu.ways import FLOAT32_NS, comparison_ns
from tests.kernels.cases import normal
from tests.kernels.test_contract import wrong


def embeddings(n, d=256, rank=24, noise=0.05, seed=0):
    """Rows that differ along few directions, and a little along all."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(9).standard_normal((d, rank)))[0]
    rows = rng.standard_normal((n, rank)) @ directions.T
    return (rows + noise * rng.standard_normal((n, d))).astype(np.float32)


def basis_for(centroids, points, **changed):
    given = {"product_ns": FLOAT32_NS, "plain_ns": centroids.size * FLOAT32_NS, "rounding": 0.0}
    given |= {"look_ns": comparison_ns(centroids.shape[1])}
    return prefix.basis_for(centroids, points, **(given | changed))


def test_directions_are_those_in_which_centroids_differ():
    centroids = embeddings(600)

    rows = basis_for(centroids, embeddings(300, seed=1))

    assert rows.shape == (64, 256)
    assert np.allclose(rows @ rows.T, np.eye(64), atol=1e-5)
    centred = centroids - centroids.mean(axis=0)
    assert np.square(centred @ rows.T).sum() > 0.9 * np.square(centred).sum()


def test_a_prefix_that_would_not_pay_is_not_made():
    assert basis_for(normal(600, 256), normal(300, 256, 1)) is None
    assert basis_for(embeddings(600), embeddings(300, seed=1), plain_ns=1.0) is None


@pytest.mark.parametrize(("k", "d"), [(26, 1024), (5000, 64), (100, 384)])
def test_few_clusters_or_dimensions_never_ask_for_one(k, d):
    assert prefix.n_until_prefix(k, d, FLOAT32_NS) == np.inf


def test_many_clusters_ask_soon():
    few = prefix.n_until_prefix(500, 1024, FLOAT32_NS)
    many = prefix.n_until_prefix(5000, 1024, FLOAT32_NS)

    assert 100 < many < few < 50_000


def test_a_prefix_comes_by_itself_and_changes_no_byte(monkeypatch):
    monkeypatch.setattr(prefix, "OVERHEAD_NS", 0.0)
    points, centroids = embeddings(3000, seed=1), embeddings(600)
    plain, kernels = CpuKernels(prefix=0), CpuKernels()
    expected = plain.assign(plain.load(centroids), points, second=True)
    model = kernels.load(centroids)

    found = []
    for _ in range(40):
        found.append(kernels.assign(model, points, second=True))
        if len(model.ways) > 1:
            break

    assert [way.name for way in model.ways] == ["float32", "float32 prefix"]
    found.append(kernels.assign(model, points, second=True))
    assert model.choice(second=True, margin=False).way.name == "float32 prefix"
    for result in found:
        for name in ("labels", "distances_squared", "second_labels", "second_distances_squared"):
            assert getattr(result, name).tobytes() == getattr(expected, name).tobytes(), name
        true = expected.second_distances_squared - expected.distances_squared
        assert (result.gaps <= true).all()


def test_margins_do_without_a_prefix():
    points, centroids = embeddings(50, d=128, seed=1), embeddings(40, d=128)
    kernels = CpuKernels()
    model = kernels.load(centroids)
    kernels._add_float32_prefix(model, prefix.some_basis(centroids, 64))

    kernels.assign(model, points, margin=True)

    assert [way.is_prefixed for way in model.ways] == [False, True]
    assert not model.choice(second=False, margin=True).way.is_prefixed


def test_rows_that_are_no_basis_prove_nothing():
    model = bounded(normal(9, 20))
    rows = prefix.some_basis(model.centroids, 8)

    assert prefix.prefixed(model, rows) is not None
    assert prefix.prefixed(model, 2.0 * rows) is None
    assert prefix.prefixed(model, np.repeat(rows[:1], 8, axis=0)) is None


# A control: a suite that accepts it accepts anything


class ForgetsTheTail(CpuKernels):
    """Takes what a prefix says for all there is to say."""

    def load(self, centroids):
        model = super().load(centroids)
        search = model.ways[0].search
        bare = search.prefix._replace(tails=np.zeros_like(search.prefix.tails))
        model.ways[0]._search = Float32Search(search.model, bare)
        return model


def test_a_prefix_without_its_tail_is_caught():
    centroids = normal(40, 64)
    points = centroids[np.arange(60) % 40] + normal(60, 64, 1)

    assert wrong(CpuKernels(prefix=16), points, centroids) == set()
    assert "labels" in wrong(ForgetsTheTail(prefix=16), points, centroids)
