"""The server over a million items: requests a second and p99 of every question, and similarity.

The view is filled by what the topics would say, in the server's process; its clients are another,
on this machine's cores as well, each asking the next question once it has the answer to the last.
The limit of requests a second of one address is out of the way: the server's clock runs fast.

Similarity is measured inside, without the network: the exact search, and the index once it stands,
at each of the sizes. Rows are Debian's descriptions; beyond as many as there are, copies with noise
of --noise in each dimension, scaled to length 1. Recall is of the ten nearest, as the exact search
finds them, of rows that the index was not tuned on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks._debian import read
from benchmarks._environment import about, options, settle
from benchmarks._stage import describe, write_results
from pipeline.config import Config, ServerPolicy
from pipeline.kernels.cpu import CpuKernels
from pipeline.messages.codec import encode_assignment, encode_change
from pipeline.messages.events import Cause, ChangeType, ClusterChange
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import N_QUANTILES, Model, digest, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from pipeline.messages.records import Record
from pipeline.services.server.desk import Desk
from pipeline.services.server.indexing import Indexing
from pipeline.services.server.listening import Listening
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.state.neighbours import Proposer, nearest
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

N_CLUSTERS, LARGE_CLUSTER, N_CHANGES, SLICE = 500, 5000, 20_000, 10_000
TARGETS_MS = {10_000: 1.0, 50_000: 1.5, 1_000_000: 5.0}
"""Of the p50 of a similarity search, by the number of items."""
RELATED_MS = 1.0
"""Of the p99 of related items, in a cluster of five thousand."""


def rows_of(folder: Path | None, n: int, noise: float) -> NDArray[np.float32]:
    """(n, n_dims) real rows, and copies of them."""
    real = np.ascontiguousarray(read(folder).vectors, np.float32)[:n]
    found = np.empty((n, real.shape[1]), np.float32)
    found[: len(real)] = real
    rng = np.random.default_rng(3)
    for start in range(len(real), n, len(real)):
        part = found[start : start + len(real)]
        part[:] = real[: len(part)]
        part += rng.normal(0.0, noise, part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def cluster_of(i: int, n: int) -> str:
    """One cluster of five thousand, spread over everything; the others are alike."""
    return "c0" if i % max(1, n // LARGE_CLUSTER) == 0 else f"c{1 + i % (N_CLUSTERS - 1)}"


def stood_up(vectors: NDArray[np.float32], port: int = 0) -> Server:
    """A server whose view is full."""
    n, n_dims = vectors.shape
    embedding = EmbeddingPolicy(dimensions=n_dims, metric="cosine")
    config = Config(
        topics=TopicPolicy(partitions=6), embedding=embedding, server=ServerPolicy(port=port),
    )  # fmt: skip
    broker = MemoryBroker()
    broker.create_topics(expected_topics(config.topics, config.limits.max_record_bytes))
    for record in model_records(
        _model(vectors[:: max(1, n // N_CLUSTERS)][:N_CLUSTERS]), config.topics.model,
        previous=None, drop=[],
    ):  # fmt: skip
        broker.append(record.topic, record.partition, record.key, record.value, record.headers)
    reports = ServerReports(get_logger(), Metrics("server"), Health("server", poll_timeout_s=1))
    server = Server(
        config, broker, CpuKernels(threads=1), input_is_compacted=True, reports=reports,
        clock=lambda: 1000.0 * time.monotonic(),
    )  # fmt: skip
    while server.follower.step() or not server.follower.is_caught_up:
        pass
    _fill(server.desk, vectors)
    return server


def _model(centroids: NDArray[np.float32]) -> Model:
    k, n_dims = centroids.shape
    manifest = Manifest(
        epoch=1, revision=0, metric="cosine", dimensions=n_dims, embedding_model=None,
        clusters=tuple(f"c{i}" for i in range(k)), max_component=1.0, input_policy="compact",
        digest=digest(centroids), next_cluster_number=k, fitted_items=k, fitted_inertia=1.0,
        fitted_offsets=(0,) * 6, created_at_ms=0,
    )  # fmt: skip
    ones, quantiles = np.ones(k), np.ones((k, N_QUANTILES), np.float32)
    return Model(manifest, centroids, np.ones(k, np.int64), ones, ones, quantiles, centroids)


def _fill(desk: Desk, vectors: NDArray[np.float32]) -> None:
    view, n, now_ms = desk.view, len(vectors), int(time.time() * 1000)
    view.items.reserve(n)
    for start in range(0, n, SLICE):
        numbers = range(start, min(n, start + SLICE))
        keys = [b"item-%d" % i for i in numbers]
        records = [
            Record(i % 6, i, key,
                   encode_assignment(cluster_of(i, n), i % 1000 / 1000, 0, 1, 0, i % 6, i), now_ms)
            for i, key in zip(numbers, keys, strict=True)
        ]  # fmt: skip
        with desk.changed:
            view.fold_assignments(records)
            rows = view.items.give(keys, vectors[start : start + SLICE], are_copies=False)
            desk.noted(rows)
            for i, row in zip(numbers, rows.tolist(), strict=True):
                view.items.metadata.put(row, {"section": f"s{i % 40}"})
    changes = []
    for i in range(N_CHANGES):
        change = ClusterChange(
            f"in/{i % 6}/{i}", ChangeType.REASSIGNED, f"item-{i % n}", f"c{i % N_CLUSTERS}",
            f"c{(i + 7) % N_CLUSTERS}", Cause.RECORD, 1.0, 0.5, 0.5, 1, 0, "in", i % 6, i, now_ms,
        )  # fmt: skip
        changes.append(Record(i % 6, i, b"", encode_change(change, EventPolicy())[0], now_ms))
    view.fold_changes(changes)


# --- similarity, without the network ----------------------------------------------------------


class Timed(NamedTuple):
    """Of some searches."""

    p50_ms: float
    p99_ms: float
    found: list[set[int]]


def similarity(desk: Desk, seconds: float, min_items: int) -> dict[str, Any]:
    """Both searches at this size, and what building the index took."""
    items, exact = desk.view.items, desk.search
    assert exact is not None
    rows = np.random.default_rng(11).choice(np.flatnonzero(items.has_vector()), 1000)
    by_scan = _timed(desk, rows, lambda query: exact.proposer(query), seconds)
    cpu_s, began_at = time.process_time(), time.perf_counter()
    indexer = Indexing(desk, min_items=min_items)
    while indexer.step():
        pass
    built_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    said: dict[str, Any] = {
        "items": len(items),
        "exact_ms": {"p50": by_scan.p50_ms, "p99": by_scan.p99_ms},
        "built_s": round(built_s, 1), "built_cpu_s": round(cpu_s, 1),
        "taken": desk.graph is not None,
    }  # fmt: skip
    if desk.graph is not None:
        graph = desk.graph
        by_graph = _timed(desk, rows, desk.proposer, seconds)
        pairs = list(zip(by_scan.found, by_graph.found, strict=False))
        said |= {
            "faiss_ms": {"p50": by_graph.p50_ms, "p99": by_graph.p99_ms},
            "recall_at_10": round(sum(len(a & b) for a, b in pairs) / 10 / len(pairs), 4),
            "queries": len(pairs), "effort": graph.effort,
            "bytes_per_item": round(graph.n_bytes / len(items)),
        }  # fmt: skip
        said["p50_target_ms"] = TARGETS_MS.get(len(items))
    members = items.members("c0")
    related = _timed(
        desk, members, lambda query: exact.proposer(query, items.members("c0")), seconds
    )
    said["related"] = {
        "members": len(members), "p50_ms": related.p50_ms, "p99_ms": related.p99_ms,
        "p99_target_ms": RELATED_MS,
    }  # fmt: skip
    return said


def _timed(
    desk: Desk,
    rows: NDArray[np.intp],
    propose: Callable[[NDArray[np.float32]], Proposer],
    seconds: float,
) -> Timed:
    """Searches from rows, in this order, for so long; the first few are not counted."""
    items, waits, found = desk.view.items, [], []
    ends_at = time.perf_counter() + seconds
    for n, row in enumerate(rows.tolist()):
        query = items.vectors[row].copy()
        began_at = time.perf_counter()
        with desk.looking():
            proposer = propose(query)
        near = nearest(items, proposer, query, 10, without=row, looking=desk.looking, tell=list)
        waits.append(time.perf_counter() - began_at)
        found.append({one.row for one in near})
        if n >= 30 and time.perf_counter() > ends_at:
            break
    p50, p99 = np.quantile(waits[min(10, len(waits) // 2) :], (0.5, 0.99)) * 1e3
    return Timed(round(float(p50), 3), round(float(p99), 3), found)


# --- over the network ---------------------------------------------------------------------------


def serve(pipe: Connection, chosen: argparse.Namespace) -> None:
    """The process of the server: tells about similarity, then its port, and ends at a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # log lines are written, and nobody reads them
    for size in chosen.sizes:
        server = stood_up(rows_of(chosen.folder, size, chosen.noise))
        found = similarity(server.desk, chosen.seconds, min(size, 1000))
        pipe.send(found)
        if size != chosen.sizes[-1]:
            server.close()
    stop, reports = threading.Event(), server._reports
    desk = server.desk
    with Listening(server.app, ServerPolicy(port=0), reports) as running:
        pipe.send({"port": running.port, "n_dims": desk.embedding.dimensions})
        while not pipe.poll():
            server.step()
            stop.wait(0.01)
        pipe.recv()
        server.close()


def questions(n: int, n_dims: int) -> dict[str, Callable[[int], tuple[str, bytes]]]:
    """Name -> path and body of the i-th question."""
    rng = np.random.default_rng(5)
    asked = rng.integers(0, n, 5000).tolist()
    large = max(1, n // LARGE_CLUSTER)
    bodies = [
        json.dumps({"vector": [round(x, 5) for x in row]}).encode()
        for row in rng.normal(size=(20, n_dims)).tolist()
    ]

    def item(i: int) -> int:
        return int(asked[i % len(asked)])

    return {
        "items/{id}": lambda i: (f"/items/item-{item(i)}", b""),
        "items/{id}/related": lambda i: (f"/items/item-{item(i) // large * large}/related", b""),
        "items/{id}/similar": lambda i: (f"/items/item-{item(i)}/similar", b""),
        "items/{id}/similar?where=": lambda i: (
            f"/items/item-{item(i)}/similar?where=section:s{i % 40}", b""
        ),
        "POST similar": lambda i: ("/similar", bodies[i % len(bodies)]),
        "POST assign": lambda i: ("/assign", bodies[i % len(bodies)]),
        "clusters": lambda i: ("/clusters", b""),
        "clusters?q=": lambda i: (f"/clusters?q=item-{item(i)}", b""),
        "clusters/{id}": lambda i: (f"/clusters/c{i % N_CLUSTERS}", b""),
        "clusters/{id}/members": lambda i: (f"/clusters/c{i % N_CLUSTERS}/members", b""),
        "clusters/{id}/similar": lambda i: (f"/clusters/c{i % N_CLUSTERS}/similar", b""),
        "clusters/{id}/timeline": lambda i: (f"/clusters/c{i % N_CLUSTERS}/timeline", b""),
        "trending": lambda i: ("/trending", b""),
        "flows": lambda i: ("/flows", b""),
        "changes": lambda i: ("/changes", b""),
        "changes?item=": lambda i: (f"/changes?item=item-{i % N_CHANGES}", b""),
        "lifecycle": lambda i: ("/lifecycle", b""),
        "stats": lambda i: ("/stats", b""),
        "drift": lambda i: ("/drift", b""),
        "model": lambda i: ("/model", b""),
        "models": lambda i: ("/models", b""),
    }  # fmt: skip


async def _ask(
    port: int, question: Callable[[int], tuple[str, bytes]], first: int, step: int, seconds: float
) -> tuple[list[float], set[int]]:
    """One connection, question after question; how long each took, and what was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    waits, statuses, i = [], set(), first
    ends_at = time.perf_counter() + seconds
    while time.perf_counter() < ends_at:
        path, body = question(i)
        i += step
        verb = b"POST" if body else b"GET"
        began_at = time.perf_counter()
        writer.write(
            verb + b" /api/v1" + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        waits.append(time.perf_counter() - began_at)
        statuses.add(int(head.split(b" ", 2)[1]))
    writer.close()
    return waits, statuses


async def asked(port: int, n: int, n_dims: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Every question for some seconds; requests a second, and how long one takes."""
    found: dict[str, Any] = {}
    for name, question in questions(n, n_dims).items():
        await _ask(port, question, 0, 1, 0.2)
        began_at = time.perf_counter()
        answers = await asyncio.gather(
            *(_ask(port, question, c, chosen.connections, chosen.seconds)
              for c in range(chosen.connections))
        )  # fmt: skip
        seconds = time.perf_counter() - began_at
        waits = np.array([wait for some, _ in answers for wait in some]) * 1e3
        found[name] = {
            "requests_per_s": round(len(waits) / seconds),
            "p50_ms": round(float(np.quantile(waits, 0.5)), 2),
            "p99_ms": round(float(np.quantile(waits, 0.99)), 2),
            "statuses": sorted(set().union(*(statuses for _, statuses in answers))),
        }
        row = found[name]
        print(f"{name:28} {row['requests_per_s']:7,} /s  p50 {row['p50_ms']:8.2f} ms  "
              f"p99 {row['p99_ms']:8.2f} ms  {row['statuses']}", flush=True)  # fmt: skip
    return found


def main() -> int:
    parser = options(__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 50_000, 1_000_000],
        help="numbers of items; the last one is served",
    )  # fmt: skip
    parser.add_argument("--noise", type=float, default=0.02, help="in each dimension of a copy")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each question")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--no-write", action="store_true", help="keep nothing")
    chosen = parser.parse_args()

    settle(chosen.isa, "server")
    rows = "the bundled slice" if chosen.folder is None else "the full set"
    machine = about(chosen, f"Debian package descriptions: {rows}")
    print(describe(machine), flush=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    itself = importlib.import_module("benchmarks.server")  # a script that runs has no such name
    process = context.Process(target=itself.serve, args=(theirs, chosen))
    process.start()
    theirs.close()  # so that its end is ours, too
    found: dict[str, Any] = {"similarity": []}
    for _ in chosen.sizes:
        found["similarity"].append(ours.recv())
        print(json.dumps(found["similarity"][-1], indent=2), flush=True)
    served = ours.recv()
    found["requests"] = asyncio.run(
        asked(served["port"], chosen.sizes[-1], served["n_dims"], chosen)
    )
    ours.send("end")
    process.join(30)
    if not chosen.no_write:
        similar = {f"similarity {row['items']}": row for row in found["similarity"]}
        figures = {f"requests {chosen.sizes[-1]}": found["requests"], **similar}
        print(f"written to {write_results('server', figures, machine)}")
    refused = [name for name, row in found["requests"].items() if row["statuses"] != [200]]
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
