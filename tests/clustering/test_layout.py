"""Places on the map are near to what distances say, and hold still where nothing has moved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clustering import layout as layouts
from pipeline.clustering.layout import Layout, distances, epoch_layout, revised_layout, stress


def names(n, first=0):
    return tuple(f"c{i}" for i in range(first, first + n))


def topics(rng, n, n_dims=24, n_topics=6, noise=0.4):
    """Centroids as texts have them: heaps of unit vectors."""
    heaps = rng.normal(size=(n_topics, n_dims))
    rows = heaps[rng.integers(0, n_topics, n)] + noise * rng.normal(size=(n, n_dims))
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


@st.composite
def models(draw):
    n, n_dims = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    seed = draw(st.integers(0, 2**32 - 1))
    kind = draw(st.sampled_from(["normal", "equal", "line", "pairs", "tiny", "huge"]))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, n_dims))
    if kind == "equal":
        rows[:] = rows[0]
    elif kind == "line":
        rows = rows[:1] * np.arange(n)[:, None]
    elif kind == "pairs":
        rows[1::2] = rows[: 2 * (n // 2) : 2]
    elif kind == "tiny":
        rows *= 1e-12
    elif kind == "huge":
        rows *= 1e12
    return rows.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(models(), st.booleans())
def test_every_cluster_has_a_place_on_the_map(centroids, is_cosine):
    began = epoch_layout(names(len(centroids)), centroids, is_cosine=is_cosine)
    for found in (began, revised_layout(began, centroids * 1.5, is_cosine=is_cosine)):
        assert found.places.shape == (len(centroids), 2)
        assert np.isfinite(found.places).all()
        assert np.hypot(*found.places.T).max() <= 1.0 + 1e-9


@settings(max_examples=40, deadline=None)
@given(models(), models())
def test_so_has_every_cluster_of_an_epoch_that_follows(before, after):
    first = epoch_layout(names(len(before)), before)
    found = epoch_layout(names(len(after), len(before) // 2), after, before=first)

    assert np.isfinite(found.places).all()
    assert np.hypot(*found.places.T).max() <= 1.0 + 1e-9


@settings(max_examples=40, deadline=None)
@given(models())
def test_the_same_model_has_the_same_places_in_every_process(centroids):
    clusters = names(len(centroids))
    one, other = (epoch_layout(clusters, centroids.copy()) for _ in range(2))
    assert (one.places == other.places).all()
    skipped = revised_layout(one, centroids * 2)
    revised_layout(other, centroids * 1.1)  # a revision that the first never saw
    assert (revised_layout(other, centroids * 2).places == skipped.places).all()


def test_centroids_of_a_plane_are_drawn_as_they_lie():
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(30, 2)) * [3.0, 1.0]
    turned = plane @ np.linalg.qr(rng.normal(size=(16, 16)))[0][:2]

    found = epoch_layout(names(30), turned.astype(np.float32))

    apart = np.linalg.norm(plane[:, None] - plane, axis=2)
    on_map = np.linalg.norm(found.places[:, None] - found.places, axis=2)
    np.testing.assert_allclose(on_map / found.scale, apart, rtol=1e-3, atol=1e-3)


def test_the_start_is_classical_scaling():
    rng = np.random.default_rng(4)
    rows = (rng.normal(size=(25, 10)) * np.r_[5.0, 3.0, np.full(8, 0.5)]).astype(np.float32)
    squares = distances(rows) ** 2
    centring = np.eye(25) - 1 / 25
    values, vectors = np.linalg.eigh(-0.5 * centring @ squares @ centring)
    expected = vectors[:, -2:] * np.sqrt(values[-2:])

    axes, middle = layouts._principal_axes(rows)
    found = (rows - middle) @ axes

    turn, shift = layouts._turned(found, expected)
    np.testing.assert_allclose(found @ turn + shift, expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(models(), st.integers(1, 12), st.booleans())
def test_no_number_of_steps_makes_stress_larger(centroids, n_steps, some):
    rng = np.random.default_rng(len(centroids))
    wanted = distances(centroids)
    start = rng.normal(size=(len(centroids), 2)) * wanted.max(initial=0.0)
    free = np.arange(0, len(centroids), 2) if some and len(centroids) > 1 else None

    found = layouts._majorised(start, wanted, n_steps, free=free)

    assert stress(found, wanted) <= stress(start, wanted) * (1 + 1e-6) + 1e-9
    if free is not None:
        still = np.setdiff1d(np.arange(len(centroids)), free)
        assert (found[still] == start[still]).all()


def test_majorisation_draws_better_than_the_projection_alone():
    centroids = topics(np.random.default_rng(5), 80)
    wanted = distances(centroids)
    axes, middle = layouts._principal_axes(centroids)
    projected = (centroids - middle) @ axes

    assert stress(epoch_layout(names(80), centroids).points, wanted) < 0.5 * stress(
        projected, wanted
    )


def test_near_clusters_stand_near_each_other():
    rng = np.random.default_rng(6)
    heaps = np.repeat(np.eye(4, 24), 10, axis=0)
    centroids = (heaps + 0.05 * rng.normal(size=heaps.shape)).astype(np.float32)

    places = epoch_layout(names(40), centroids, is_cosine=True).places

    apart = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argsort(axis=1)[:, :5] // 10 == np.arange(40)[:, None] // 10).all()


@pytest.mark.parametrize("n", [30, 300])
def test_a_revision_moves_clusters_as_little_as_the_centroids_moved(n):
    rng = np.random.default_rng(7)
    centroids = topics(rng, n)
    began = epoch_layout(names(n), centroids)
    at_rest = revised_layout(began, centroids).places
    way = rng.normal(size=centroids.shape)
    way *= 0.05 / np.linalg.norm(way, axis=1)[:, None]

    moves = [
        np.abs(revised_layout(began, centroids + share * way).places - at_rest).max()
        for share in (0.001, 0.01, 0.1, 1.0)
    ]

    assert moves[0] < 0.002
    assert all(0.0 < less < more for less, more in itertools.pairwise(moves))
    assert moves[-1] < 0.25
    for less, more in itertools.pairwise(moves):
        assert more / less < 40  # ten times the way: no jump


def test_one_cluster_that_moves_leaves_the_others_about_where_they_are():
    rng = np.random.default_rng(8)
    centroids = topics(rng, 60)
    began = epoch_layout(names(60), centroids)
    at_rest = revised_layout(began, centroids).places
    moved = centroids.copy()
    moved[7] = centroids[(np.linalg.norm(centroids - centroids[7], axis=1)).argmax()]

    steps = np.linalg.norm(revised_layout(began, moved).places - at_rest, axis=1)

    assert steps[7] > 5 * np.delete(steps, 7).max()


def test_survivors_of_a_new_epoch_keep_their_places():
    rng = np.random.default_rng(9)
    centroids = topics(rng, 60)
    last = revised_layout(epoch_layout(names(60), centroids), centroids)
    fresh = np.concatenate((centroids[10:], topics(rng, 14)))

    found = epoch_layout(names(64, 10), fresh, before=last)

    steps = np.linalg.norm(found.places[:50] - last.places[10:], axis=1)
    assert steps.max() < 0.25  # a fifth of the clusters are heaps that there were not
    assert np.median(steps) < 0.1
    anew = epoch_layout(names(64, 10), fresh)  # negative control: without the past they do not
    assert np.linalg.norm(anew.places[:50] - last.places[10:], axis=1).max() > 0.3


def test_a_new_epoch_of_the_same_clusters_in_another_order_changes_nothing():
    rng = np.random.default_rng(10)
    centroids = topics(rng, 50)
    last = revised_layout(epoch_layout(names(50), centroids), centroids)
    order = rng.permutation(50)

    found = epoch_layout([last.clusters[i] for i in order], centroids[order], before=last)

    assert np.abs(found.places - last.places[order]).max() < 0.02


def test_newcomers_stand_near_those_that_they_are_like():
    rng = np.random.default_rng(11)
    centroids = topics(rng, 40)
    last = epoch_layout(names(40), centroids)
    twin = (centroids[5] + 0.001 * rng.normal(size=24)).astype(np.float32)

    found = epoch_layout(names(41), np.concatenate((centroids, twin[None])), before=last)

    assert np.linalg.norm(found.places[40] - found.places[5]) < 0.05


def test_another_embedding_model_leaves_survivors_where_they_are():
    rng = np.random.default_rng(12)
    centroids = topics(rng, 40)
    last = epoch_layout(names(40), centroids)
    wider = 30.0 * centroids @ np.linalg.qr(rng.normal(size=(32, 32)))[0][:24]

    found = epoch_layout(names(40), wider.astype(np.float32), before=last)

    assert np.abs(found.places - last.places).max() < 0.05


def test_a_layout_that_is_trapped_is_given_up():
    rng = np.random.default_rng(13)
    line = np.zeros((20, 3), np.float32)
    line[:, 0] = np.arange(20)
    last = epoch_layout(names(20), line)
    plane = rng.normal(size=(20, 3)).astype(np.float32)

    found = epoch_layout(names(20), plane, before=last)

    anew = epoch_layout(names(20), plane)
    wanted = distances(plane)
    assert stress(found.points, wanted) <= layouts.TRAPPED * stress(anew.points, wanted)


def test_a_map_of_others_is_turned_onto_the_one_before():
    rng = np.random.default_rng(14)
    plane = rng.normal(size=(12, 2)).astype(np.float32)
    last = epoch_layout(names(12), plane)
    mirrored = plane * [1.0, -1.0]
    fresh = np.concatenate((mirrored[:3], rng.normal(size=(30, 2)))).astype(np.float32)

    found = epoch_layout([*names(3), *names(30, 100)], fresh, before=last)

    assert isinstance(found, Layout)
    before, after = last.points[:3] - last.points[:3].mean(axis=0), found.points[:3]
    after = after - after.mean(axis=0)
    assert (before * after).sum() > 0.9 * np.linalg.norm(before) * np.linalg.norm(after)


def test_more_clusters_than_are_majorised_are_projected(monkeypatch):
    monkeypatch.setattr(layouts, "MAX_MAJORISED", 30)
    rng = np.random.default_rng(15)
    centroids = topics(rng, 50)
    began = epoch_layout(names(50), centroids)
    moved = centroids + 0.001 * rng.normal(size=centroids.shape).astype(np.float32)

    steps = np.abs(revised_layout(began, moved).places - began.places)
    following = epoch_layout(names(48, 2), centroids[2:], before=began)

    assert began.axes is not None
    assert steps.max() < 0.02
    assert np.abs(revised_layout(began, centroids).places - began.places).max() < 1e-9
    assert np.median(np.abs(following.places - began.places[2:])) < 0.1
    assert np.hypot(*following.places.T).max() <= 1.0 + 1e-9


def test_a_step_looks_at_no_more_pairs_than_it_may():
    assert layouts._n_steps(10) == layouts.N_STEPS
    for n in (500, 2000, layouts.MAX_MAJORISED):
        assert n * n * layouts._n_steps(n) <= layouts.MAX_PAIRS
