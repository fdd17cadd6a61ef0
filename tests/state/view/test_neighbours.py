"""Both twins of the search for neighbours hold one contract; one of them misses a few."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.kernels.graph import NeighbourGraph
from pipeline.messages.codec import encode_assignment
from pipeline.messages.records import Record
from pipeline.state.view import neighbour_graph
from pipeline.state.view.items import ClusterNames, Items
from pipeline.state.view.neighbour_graph import EFFORTS, Graph, draw, sampled, tuned
from pipeline.state.view.neighbours import ExactSearch, nearest

N_DIMS = 16


class Bench:
    """Items with vectors, both searches over them, and the truth in a dict."""

    def __init__(self, n, seed=0):
        self.rng = np.random.default_rng(seed)
        self.items = Items(0, ClusterNames())
        self.truth = {}
        self.offset = 0
        self.items.forget_vectors(N_DIMS)
        self.exact = ExactSearch(self.items)
        self.graph = None
        self.put([b"item-%d" % i for i in range(n)])
        self.graph = Graph(self.items, NeighbourGraph(N_DIMS))
        self.catch_up()

    def put(self, keys, vectors=None):
        if vectors is None:
            vectors = self.rng.normal(size=(len(keys), N_DIMS)).astype(np.float32)
        records = []
        for key in keys:
            self.offset += 1
            value = encode_assignment("c1", 0.0, 0, 1, 0, 0, self.offset)
            records.append(Record(0, self.offset, key, value, 1))
        self.items.fold(records)
        self.note(self.items.give(keys, vectors, are_copies=False))
        self.truth.update(zip(keys, vectors, strict=True))

    def remove(self, keys):
        self.items.fold([Record(0, self.offset, key, None, 1) for key in keys])
        for key in keys:
            del self.truth[key]

    def note(self, rows):
        self.exact.note(rows)
        if self.graph is not None:
            self.graph.note(rows)

    def catch_up(self, n=10_000):
        rows, vectors = self.graph.pick(n)
        first = len(self.graph.nodes)
        self.graph.nodes.add(vectors)
        self.graph.place(rows, first)

    def proposer(self, twin, query, rows=None):
        if twin == "exact" or rows is not None:
            return self.exact.proposer(query, rows)
        return self.graph.proposer(query, self.exact)

    def found(self, twin, query, limit=10, rows=None, **options):
        told = nearest(
            self.items, self.proposer(twin, query, rows), query, limit, tell=list, **options
        )
        return [(self.items.name(one.row), one.distance_squared) for one in told]

    def true(self, query, limit=10):
        distances = [
            (float(((v.astype(float) - query) ** 2).sum()), k) for k, v in self.truth.items()
        ]
        return [(k, d) for d, k in sorted(distances)[:limit]]

    def recall(self, twin, n=100):
        n_right = 0
        for query in self.rng.normal(size=(n, N_DIMS)).astype(np.float32):
            truth = dict(self.true(query))
            n_right += sum(key in truth for key, _ in self.found(twin, query))
        return n_right / (10 * n)


@pytest.fixture(scope="module")
def bench():
    return Bench(1500)


both = pytest.mark.parametrize("twin", ["exact", "faiss"])


@both
def test_the_nearest_are_found_and_their_distances_are_exact(bench, twin):
    for query in bench.rng.normal(size=(20, N_DIMS)).astype(np.float32):
        found = bench.found(twin, query)

        truth = bench.true(query, 20)
        assert [d for _, d in found] == sorted(d for _, d in found)
        for key, squared in found:
            gap = bench.truth[key].astype(float) - query
            assert squared == pytest.approx(float((gap**2).sum()), rel=1e-12)
        if twin == "exact":
            assert found == [(k, pytest.approx(d)) for k, d in truth[:10]]
    assert bench.recall(twin, 30) >= (1.0 if twin == "exact" else 0.99)


@both
def test_what_is_not_meant_too_far_or_too_much_is_left_out(bench, twin):
    row = bench.items.find(b"item-7")
    query = bench.items.vectors[row].copy()
    everything = bench.found(twin, query, 30)
    assert everything[0] == (b"item-7", 0.0)

    assert bench.found(twin, query, 29, without=row) == everything[1:]
    border = everything[9][1]
    assert bench.found(twin, query, 30, max_squared=border) == everything[:10]
    few = np.array([bench.items.find(key) for key, _ in everything[5:9]])
    assert bench.found(twin, query, 30, rows=np.sort(few)) == everything[5:9]
    assert len(bench.found(twin, query, 5000)) == 1500


@both
def test_what_changed_is_found_by_what_it_is_now(twin):
    bench = Bench(600, seed=2)
    bench.graph.effort = 64

    for turn in range(12):
        changed = [b"item-%d" % i for i in bench.rng.choice(600, 40, replace=False)]
        gone = [key for key in changed[:10] if key in bench.truth]
        bench.put(changed[10:])  # some of them were gone, and are here again
        bench.remove(gone)
        if turn % 3 == 0:
            bench.catch_up(25)
        key = changed[-1]
        assert bench.found(twin, bench.truth[key], 1) == [(key, 0.0)]
        names = {name for name, _ in bench.found(twin, bench.truth[key], 200)}
        assert names <= bench.truth.keys()
        assert len(names) == 200

    assert bench.recall(twin) >= 0.99
    assert bench.graph.n_idle > 0


@both
def test_equal_distances_go_by_id(twin):
    bench = Bench(300, seed=3)
    same = np.ones((4, N_DIMS), np.float32)
    bench.put([b"item-9", b"item-21", b"item-3", b"item-100"], same)
    bench.catch_up()

    found = bench.found(twin, same[0], 3)

    assert found == [(b"item-100", 0.0), (b"item-21", 0.0), (b"item-3", 0.0)]


def test_vectors_that_change_while_they_are_added_wait_on():
    bench = Bench(200, seed=4)
    bench.put([b"item-1", b"item-2"])
    rows, vectors = bench.graph.pick(10)
    bench.put([b"item-2"])
    first = len(bench.graph.nodes)
    bench.graph.nodes.add(vectors)
    assert bench.found("faiss", bench.truth[b"item-1"], 1) == [(b"item-1", 0.0)]  # waits, too

    bench.graph.place(rows, first)

    assert bench.graph.waiting().tolist() == [bench.items.find(b"item-2")]
    for key in (b"item-1", b"item-2"):
        assert bench.found("faiss", bench.truth[key], 1) == [(key, 0.0)]


def test_rows_are_picked_a_part_at_a_time_and_none_is_left(monkeypatch):
    bench = Bench(30)
    keys = sorted(bench.truth)
    monkeypatch.setattr(neighbour_graph, "PICKED_ROWS", 7)
    for some in ([keys[25]], keys[20:24], [keys[1], keys[29], keys[12]]):  # behind, and before
        bench.put(some)
        wanted = set(bench.items.find_all(some).tolist())
        picked = []
        while len(part := bench.graph.pick(2)[0]):
            assert len(part) <= 2
            picked += part.tolist()

        assert sorted(picked) == sorted(wanted)


def test_nodes_of_rows_that_are_others_or_gone_are_idle():
    bench = Bench(30)
    keys = sorted(bench.truth)
    assert bench.graph.n_idle == 0

    bench.remove(keys[:3])
    bench.put(keys[5:9])
    assert bench.graph.n_idle == 7

    bench.catch_up()
    assert bench.graph.n_idle == 7
    bench.put([b"new-%d" % i for i in range(200)])  # the items have grown since
    assert bench.graph.n_idle == 7


def test_vectors_of_another_length_are_far_from_everything():
    bench = Bench(200, seed=5)
    query = bench.truth[b"item-0"]
    proposer = bench.proposer("exact", query)
    proposer.take(10)
    bench.items.forget_vectors(N_DIMS - 3)
    bench.items.vector_offsets[:] = bench.items.offsets

    found = nearest(bench.items, proposer, query, 5, max_squared=1e30, tell=list)

    assert found == []


def test_the_effort_is_the_least_that_finds_enough(bench):
    rows, known = draw(bench.items, 200, seed=1)
    sample = sampled(bench.items.vectors, rows, known)

    n_nodes = len(bench.graph.nodes)
    found = tuned(bench.graph, bench.items, sample, n_nodes, min_recall=0.99)

    assert found.recall >= 0.99
    for i in range(0, 200, 40):
        truth = bench.true(sample.vectors[i], 11)
        assert sample.farthest[i] == pytest.approx(truth[10][1])
    # negative control: a graph that lost its way finds little, and says so
    with _lost(bench.graph):
        lost = tuned(bench.graph, bench.items, sample, n_nodes, min_recall=0.99)
    assert lost.effort == EFFORTS[-1]
    assert lost.recall < 0.8


def test_what_changed_since_the_sample_was_drawn_counts_neither_way():
    bench = Bench(800, seed=7)
    rows, known = draw(bench.items, 100, seed=1)
    sample, n_nodes = sampled(bench.items.vectors, rows, known), len(bench.graph.nodes)

    bench.put([b"item-%d" % i for i in range(0, 800, 3)])
    bench.catch_up(100)
    some = tuned(bench.graph, bench.items, sample, n_nodes, min_recall=0.99)
    bench.put([b"item-%d" % i for i in range(800)])
    nothing = tuned(bench.graph, bench.items, sample, n_nodes, min_recall=0.99)

    assert some.recall >= 0.99
    assert nothing.recall == 0.0


def test_while_many_rows_wait_all_are_scanned(bench):
    assert bench.proposer("faiss", bench.truth[b"item-0"]).index == "faiss"
    n = int(neighbour_graph.MAX_WAITING_SHARE * 1500) + 1
    bench.graph.note(np.arange(n))

    assert bench.proposer("faiss", bench.truth[b"item-0"]).index == "exact"
    bench.catch_up()
    assert bench.graph.n_idle == n


def test_an_item_of_a_graph_takes_the_bytes_that_are_stated():
    bench = Bench(4000, seed=6)

    per_item = bench.graph.n_bytes / 4000

    assert per_item <= 1.25 * 9 + 2 * N_DIMS + 272 + 16


@contextmanager
def _lost(graph):
    """A third of the nodes have no row any more, and nobody was told."""
    before = graph._node_rows.copy()
    graph._node_rows[::3] = -1
    yield
    graph._node_rows[:] = before
