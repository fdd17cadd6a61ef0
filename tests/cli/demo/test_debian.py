"""The bundled stream is whole: every change follows from the one before it."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from sklearn.cluster import KMeans

from pipeline.cli.demo.debian import RELEASES, load
from pipeline.clustering.recluster import FitSettings, propose
from pipeline.kernels.cpu.twin import CpuKernels


def test_every_change_follows_from_the_one_before():
    packages = load()
    live: dict[str, int] = {}
    for change in packages.changes:
        is_new = change.package not in live
        assert is_new == (change.kind in ("insert", "reinsert")), change
        if change.kind == "delete":
            del live[change.package]
            assert change.row == -1
        else:
            assert live.get(change.package) != change.row, change
            live[change.package] = change.row

    assert 8_000 < len(live) < 12_000
    assert [release for release, _ in packages.releases()] == list(RELEASES)


def test_every_row_is_a_unit_vector_with_a_summary():
    packages = load()

    rows = {change.row for change in packages.changes} - {-1}

    assert rows == set(range(len(packages.summaries)))
    assert packages.vectors.shape == (len(rows), 384)
    np.testing.assert_allclose(np.linalg.norm(packages.vectors, axis=1), 1, atol=1e-6)
    assert all(packages.summaries)


def test_slice_is_small_enough_for_the_package_and_names_its_licence():
    folder = files("pipeline.cli.demo").joinpath("data")

    sizes = [len(path.read_bytes()) for path in folder.iterdir()]

    assert sum(sizes) <= 10_000_000
    assert "Debian Free Software Guidelines" in folder.joinpath("README.md").read_text()


def test_a_stream_that_is_followed_stays_near_a_fit_of_its_last_state():
    kernels, settings = CpuKernels(), FitSettings(40, 0, 300, 256.0, spherical=False)
    packages = load()
    live: dict[str, int] = {}
    incumbent, candidate = None, None
    for _, changes in packages.releases():
        for change in changes:
            if change.kind == "delete":
                del live[change.package]
            else:
                live[change.package] = change.row
        points = packages.vectors[[live[package] for package in sorted(live)]]
        candidate = propose(points, incumbent, settings, kernels=kernels)
        incumbent = candidate.centroids

    from_nothing = KMeans(40, n_init=3, random_state=0).fit(points).inertia_

    # over six seeds 0.2 to 1.2 %; that of the default seed is 0.6 %
    assert candidate.inertia_after < 1.01 * from_nothing
