"""What the server says of clusters is what stands in the topics."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.simulation.judge import assigned, newest_model
from tests.simulation.test_commands import CORNERS, asked, corner_of, put


def everywhere(world):
    """Item -> cluster, as the assignments have it."""
    return {
        item.decode() if isinstance(item, bytes) else item: row["cluster"]
        for p in range(world.topics.partitions)
        for item, row in assigned(world, p).items()
    }


def test_sizes_are_those_of_the_assignments(corners):
    truth = Counter(everywhere(corners.world).values())

    rows = corners.pages("/clusters")

    assert {row["cluster"]: row["size"] for row in rows} == truth
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)


def test_members_are_those_of_the_assignments_the_nearest_first(corners):
    truth = everywhere(corners.world)

    for cluster in set(truth.values()):
        rows = corners.pages(f"/clusters/{cluster}/members", limit=3)

        assert {row["item"] for row in rows} == {i for i, c in truth.items() if c == cluster}
        assert len({row["item"] for row in rows}) == len(rows)
        keys = [(row["distance"], row["item"]) for row in rows]
        assert keys == sorted(keys)


def test_odd_members_come_first_where_they_are_asked_for(corners):
    for cluster in set(everywhere(corners.world).values()):
        nearest = corners.pages(f"/clusters/{cluster}/members", limit=500)

        rows = corners.pages(f"/clusters/{cluster}/members", order="-distance", limit=3)

        assert rows == sorted(nearest, key=lambda row: (-row["distance"], row["item"]))


def test_members_by_id_come_in_the_order_of_their_ids(corners):
    rows = corners.pages("/clusters/c1/members", order="item_id", limit=7)

    items = [row["item"] for row in rows]
    assert items == sorted(items)
    assert len(items) == corners.ok("/clusters/c1")["size"]


def test_a_page_is_not_shifted_by_what_comes_between(make_site):
    site = make_site()
    cluster = corner_of(site.world, 0)
    first = site.ok(f"/clusters/{cluster}/members", order="item_id", limit=5)
    put(site.world, 0, CORNERS[1])  # of the first page, and goes elsewhere
    site.settle()

    rest = site.pages(
        f"/clusters/{cluster}/members", order="item_id", limit=5, cursor=first["next_cursor"]
    ) if False else site.ok(
        f"/clusters/{cluster}/members", order="item_id", limit=500, cursor=first["next_cursor"]
    )["items"]  # fmt: skip

    seen = [row["item"] for row in (*first["items"], *rest)]
    assert len(seen) == 20
    assert len(set(seen)) == 20


def test_spread_is_that_of_the_members(corners):
    world = corners.world
    ids, centroids, _ = newest_model(world)
    truth = everywhere(world)
    desk = corners.server.desk
    for cluster, centroid in zip(ids, centroids, strict=True):
        rows = desk.view.items.members(cluster)
        points = desk.view.items.vectors[rows].astype(float)
        spread = np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())

        told = corners.ok(f"/clusters/{cluster}")

        assert told["spread"] == pytest.approx(spread, rel=1e-6)
        nearest = min(
            (float(np.linalg.norm(p - centroid)), desk.view.items.name(r).decode())
            for p, r in zip(points, rows, strict=True)
        )
        assert truth[told["exemplar"]] == cluster
        assert told["exemplar"] == nearest[1]


def test_similar_clusters_are_ranked_by_their_centroids(corners):
    ids, centroids, _ = newest_model(corners.world)
    one = dict(zip(ids, centroids, strict=True))

    rows = corners.ok("/clusters/c1/similar")["items"]

    assert [row["cluster"] for row in rows] == sorted(
        (c for c in ids if c != "c1"), key=lambda c: float(np.linalg.norm(one[c] - one["c1"]))
    )
    for row in rows:
        expected = np.linalg.norm(one[row["cluster"]].astype(float) - one["c1"])
        assert row["distance"] == pytest.approx(float(expected), rel=1e-9)


def test_a_retired_cluster_is_gone_and_names_its_successors(make_site):
    site = make_site()
    asked(site.world, "merge", clusters=[corner_of(site.world, 0), corner_of(site.world, 1)])
    site.follow()
    (retired,) = site.pages("/lifecycle", type="retired")

    answer = site.get(f"/clusters/{retired['cluster']}")

    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/cluster-retired"
    assert answer.json()["successors"] == retired["children"]
    timeline = site.ok(f"/clusters/{retired['cluster']}/timeline")
    assert timeline["lifecycle"][0]["type"] == "retired"


def test_a_cluster_that_never_was_is_not_found(corners):
    answer = corners.get("/clusters/c99")

    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_a_search_finds_labels_and_typical_items(make_site):
    site = make_site()
    cluster = corner_of(site.world, 2)
    asked(site.world, "label", cluster=cluster, label="Ärger mit C++")
    site.follow()

    assert [row["cluster"] for row in site.pages("/clusters", q="ärger")] == [cluster]
    exemplar = site.ok(f"/clusters/{cluster}")["exemplar"]
    assert cluster in [row["cluster"] for row in site.pages("/clusters", q=exemplar)]
    assert site.pages("/clusters", q="nobody is called so") == []


@pytest.mark.parametrize("sort", ["size", "growth", "drift", "born_at"])
def test_pages_of_one_give_every_cluster_once_in_any_order(corners, sort):
    rows = corners.pages("/clusters", sort=sort, limit=1)

    assert sorted(row["cluster"] for row in rows) == ["c1", "c2", "c3", "c4"]


def test_empty_clusters_are_told_from_live_ones(make_site):
    site = make_site(follows=False)
    cluster = corner_of(site.world, 0)
    for i in range(0, 80, 4):
        put(site.world, i, CORNERS[1])
    site.settle()

    assert [row["cluster"] for row in site.pages("/clusters", state="empty")] == [cluster]
    assert len(site.pages("/clusters", state="live")) == 3
