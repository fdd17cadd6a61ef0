"""The index of vectors is built beside the answers, taken when it is good, and kept up."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.config import ServerPolicy
from pipeline.services.server import indexing
from pipeline.services.server.indexing import Indexing, Sharing
from tests.services.server.conftest import Site, world_of_corners
from tests.services.server.test_items import vectors_of
from tests.simulation.test_commands import CORNERS, put

FAISS = replace(ServerPolicy(), search="faiss")


def turned(indexer):
    """All that there is to do is done."""
    for _ in range(200):
        if not indexer.step():
            return
    raise AssertionError("it goes on and on")


@pytest.fixture
def site():
    return Site(world_of_corners(), FAISS)


def test_the_index_answers_once_it_stands_and_knows_what_changed(site, monkeypatch):
    monkeypatch.setattr(indexing, "BUILD_ROWS", 7)
    indexer = Indexing(site.server.desk, min_items=10)
    exactly = site.ok("/items/item-0/similar", limit=15)
    assert indexer.step()
    assert site.ok("/items/item-0/similar")["index"] == "exact"  # while it is built

    turned(indexer)
    by_index = site.ok("/items/item-0/similar", limit=15)

    assert (exactly["index"], exactly["nprobe"]) == ("exact", None)
    assert by_index["index"] == "faiss"
    assert by_index["nprobe"] > 0
    assert by_index["items"] == exactly["items"]
    for i in range(4):  # few enough that the index stays
        put(site.world, i, CORNERS[(i + 2) % 4] + site.world.rng.normal(0, 1, 3))
    site.settle()
    for _ in range(2):  # once while they wait, once when they are in it
        found = site.ok("/items/item-0/similar", limit=3)
        assert found["index"] == "faiss"
        vectors = vectors_of(site.world)
        near = sorted(vectors, key=lambda o: np.linalg.norm(vectors[o] - vectors["item-0"]))
        assert [row["item"] for row in found["items"]] == near[1:4]
        turned(indexer)


def test_another_is_built_when_too_many_nodes_have_no_row(site, monkeypatch):
    monkeypatch.setattr(indexing, "LOOK_S", 0.0)
    indexer = Indexing(site.server.desk, min_items=10)
    turned(indexer)
    first = site.server.desk.graph
    assert first is not None
    for turn in range(10):
        for i in range(turn * 4, turn * 4 + 4):
            put(site.world, i, CORNERS[i % 4] + site.world.rng.normal(0, 1, 3))
        site.settle()
        turned(indexer)

    assert site.server.desk.graph is not first
    assert site.server.desk.graphs == (site.server.desk.graph,)
    assert len(site.server.desk.graph.nodes) < 80 * 1.5


def test_an_index_that_finds_too_little_is_not_taken(site, monkeypatch):
    monkeypatch.setattr(indexing, "MIN_RECALL", 1.01)
    indexer = Indexing(site.server.desk, min_items=10)

    turned(indexer)

    assert site.server.desk.graph is None
    assert site.server.desk.graphs == ()
    assert site.ok("/items/item-0/similar")["index"] == "exact"


@pytest.mark.parametrize("policy", [
    replace(ServerPolicy(), search="exact"),
    replace(FAISS, vectors="none"),
    replace(FAISS, max_vector_bytes=80 * 4 * 3 + 1000),
])  # fmt: skip
def test_there_is_none_where_none_is_wanted_or_there_is_no_room(policy):
    site = Site(world_of_corners(), policy)
    with Indexing(site.server.desk, min_items=10) as indexer:
        assert (indexer._thread is not None) == (policy.max_vector_bytes < 10_000)
        turned(indexer)

    assert site.server.desk.graphs == ()


def test_nobody_searches_while_somebody_adds():
    sharing, inside, worst = Sharing(), [0, 0], []

    def search():
        for _ in range(200):
            with sharing.searching():
                inside[0] += 1
                worst.append(inside[1])
                inside[0] -= 1

    def add():
        for _ in range(200):
            with sharing.adding():
                inside[1] += 1
                worst.append(inside[1] - 1)
                inside[1] -= 1

    threads = [threading.Thread(target=work) for work in (search, search, add, add)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(worst) == 800
    assert max(worst) == 0
