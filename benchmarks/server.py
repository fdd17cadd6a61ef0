"""The server over a million items: requests a second and p99 of every question, and similarity.

The view is filled by what the topics would say, in the server's process; its clients are another,
on this machine's cores as well, each asking the next question once it has the answer to the last.
The limit of requests a second of one address is out of the way: the server's clock runs fast.
Every question is asked in several rounds, all others between them, and warmed up before the first.

Similarity is measured inside, without the network: the exact search and the index, in turns, at
each of the sizes. Rows are Debian's descriptions; beyond as many as there are, copies with noise of
--noise in each dimension, scaled to length 1. Recall is of the ten nearest by canonical distances,
of rows that the index was not tuned on; --threads of them build the index.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import http.client
import importlib
import json
import multiprocessing
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks._environment import about, options, settle
from benchmarks._server_view import LARGE_CLUSTER, N_CHANGES, N_CLUSTERS, rows_of, stood_up
from benchmarks._stage import describe, write_results
from pipeline.config import ServerPolicy
from pipeline.services.allocator import collect_seldom
from pipeline.services.server.desk import Desk
from pipeline.services.server.indexing import Indexing
from pipeline.services.server.listening import Listening
from pipeline.state.view.neighbour_graph import N_NEAREST, sampled
from pipeline.state.view.neighbours import Neighbour, Proposer, nearest

TARGETS_MS: Final = {10_000: 1.0, 50_000: 1.5, 1_000_000: 5.0}
"""Of the p50 of a similarity search, by the number of items."""
RELATED_MS: Final = 1.0
"""Of the p99 of related items, in a cluster of five thousand."""
ROUNDS: Final = 3
N_PROBES, N_WARM = 1000, 20
WARM_S: Final = 0.3

# --- similarity, without the network ----------------------------------------------------------


@dataclass(slots=True)
class Searches:
    """One way to search, and what it took and found so far."""

    propose: Callable[[NDArray[np.float32]], Proposer]
    probes: list[int]
    """Rows that are asked for, over and over."""
    waits_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    found: list[tuple[int, list[Neighbour]]] = field(default_factory=list)
    """Which probe, and its nearest: of the first time that it was asked."""

    def go_on(self, desk: Desk, seconds: float) -> None:
        """Search for so long, at least twice."""
        cpu_s, ends_at, n = time.process_time(), time.perf_counter() + seconds, 0
        while n < 2 or time.perf_counter() < ends_at:
            which = len(self.waits_s) % len(self.probes)
            began_at = time.perf_counter()
            near = self.once(desk, self.probes[which])
            self.waits_s.append(time.perf_counter() - began_at)
            if len(self.waits_s) <= len(self.probes):
                self.found.append((which, near))
            n += 1
        self.cpu_s += time.process_time() - cpu_s

    def once(self, desk: Desk, row: int) -> list[Neighbour]:
        """As a request does it."""
        with desk.looking() as view:
            items, query = view.items, view.items.vectors[row].copy()
            proposer = self.propose(query)
        return nearest(
            items, proposer, query, N_NEAREST, without=row, looking=desk.looking, tell=list
        )

    def told(self) -> dict[str, float]:
        """In milliseconds."""
        p50, p99 = np.quantile(self.waits_s, (0.5, 0.99)) * 1e3
        return {
            "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3),
            "cpu_ms": round(self.cpu_s / len(self.waits_s) * 1e3, 3), "n": len(self.waits_s),
        }  # fmt: skip


class Recall(NamedTuple):
    """Of the ten nearest."""

    share: float
    error: float
    """The standard error of that."""


def similarity(desk: Desk, indexer: Indexing, chosen: argparse.Namespace) -> dict[str, Any]:
    """Both searches at this size, and what building the index took."""
    items, exact = desk.view.items, desk.search
    assert exact is not None
    cpu_s, began_at = time.process_time(), time.perf_counter()
    while indexer.step():
        pass
    built_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    known, rng = items.has_vector(), np.random.default_rng(11)
    drawn = rng.choice(np.flatnonzero(known), N_PROBES + N_WARM, replace=False)
    truth = sampled(items.vectors, drawn[:N_PROBES], known)
    probes, members = truth.rows.tolist(), rng.permutation(items.members("c0")).tolist()
    ways = {
        "exact": Searches(lambda query: exact.proposer(query), probes),
        "related": Searches(lambda query: exact.proposer(query, items.members("c0")), members),
    }
    graph = desk.graph
    if graph is not None:
        ways["faiss"] = Searches(desk.proposer, probes)
    for way in ways.values():
        for row in drawn[N_PROBES:].tolist():
            way.once(desk, row)
    for _ in range(ROUNDS):
        for way in ways.values():
            way.go_on(desk, chosen.seconds / ROUNDS)
    said: dict[str, Any] = {
        "items": len(items), "built_s": round(built_s, 1), "built_cpu_s": round(cpu_s, 1),
        "build_threads": chosen.threads, "taken": graph is not None,
        "exact": ways["exact"].told() | recalled(ways["exact"], truth.farthest),
        "view_bytes_per_item": round(items.state_bytes / len(items)),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "p50_target_ms": TARGETS_MS.get(len(items)),
        "related": ways["related"].told()
        | {"members": len(members), "p99_target_ms": RELATED_MS},
    }  # fmt: skip
    if graph is not None:
        said["faiss"] = ways["faiss"].told() | recalled(ways["faiss"], truth.farthest)
        said |= {"effort": graph.effort, "index_bytes_per_item": round(graph.n_bytes / len(items))}
    return said


def recalled(way: Searches, farthest: NDArray[np.float64]) -> dict[str, float]:
    """What share of the ten nearest was found, or others as near, over all probes asked."""
    shares = np.array([
        sum(one.distance_squared <= farthest[which] for one in near) / N_NEAREST
        for which, near in way.found
    ])  # fmt: skip
    return {
        "recall_at_10": round(float(shares.mean()), 4),
        "recall_error": round(float(shares.std()) / len(shares) ** 0.5, 4),
        "probes": len(shares),
    }


# --- over the network ---------------------------------------------------------------------------


def serve(pipe: Connection, chosen: argparse.Namespace) -> None:
    """The process of the server: tells about similarity, then its port, and ends at a word."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # log lines are written, and nobody reads them
    for size in chosen.sizes:
        began_at = time.perf_counter()
        server = stood_up(rows_of(chosen.folder, size, chosen.noise))
        filled_s = time.perf_counter() - began_at
        indexer = Indexing(server.desk, min_items=min(size, 1000), threads=chosen.threads)
        found = similarity(server.desk, indexer, chosen)
        pipe.send(found | {"filled_s": round(filled_s, 1)})
        if size != chosen.sizes[-1]:
            server.close()
            del server, indexer
            gc.collect()
    stop, reports = threading.Event(), server._reports
    desk = server.desk
    collect_seldom()  # as every service does
    with indexer, Listening(server.app, ServerPolicy(port=0), reports) as running:
        pipe.send({"port": running.port, "n_dims": desk.embedding.dimensions})
        while True:
            if pipe.poll():
                if pipe.recv() == "end":
                    break
                pipe.send(time.process_time())
            server.step()
            stop.wait(0.01)
        server.close()


Question = Callable[[int], tuple[str, bytes]]


def questions(n: int, n_dims: int, cursor: str) -> dict[str, Question]:
    """Name -> path and body of the i-th question.

    ``cursor``: of the second page of the members of the large cluster.
    """
    rng = np.random.default_rng(5)
    asked = rng.integers(0, n, 5000).tolist()
    large = max(1, n // LARGE_CLUSTER)
    bodies = [
        json.dumps({"vector": [round(x, 5) for x in row]}).encode()
        for row in rng.normal(size=(20, n_dims)).tolist()
    ]

    def item(i: int) -> int:
        return int(asked[i % len(asked)])

    def of(path: str) -> Question:
        return lambda i: (path, b"")

    def cluster(rest: str = "") -> Question:
        return lambda i: (f"/clusters/c{i % N_CLUSTERS}{rest}", b"")

    return {
        "items/{id}": lambda i: (f"/items/item-{item(i)}", b""),
        "items/{id}/related": lambda i: (f"/items/item-{item(i) // large * large}/related", b""),
        "items/{id}/similar": lambda i: (f"/items/item-{item(i)}/similar", b""),
        "items/{id}/similar?where=": lambda i: (
            f"/items/item-{item(i)}/similar?where=section:s{i % 40}", b""
        ),
        "POST similar": lambda i: ("/similar", bodies[i % len(bodies)]),
        "POST assign": lambda i: ("/assign", bodies[i % len(bodies)]),
        "clusters": of("/clusters"),
        "clusters?sort=growth": of("/clusters?sort=growth"),
        "clusters?q=": lambda i: (f"/clusters?q=item-{item(i)}", b""),
        "clusters/{id}": cluster(),
        "clusters/{id}/members": cluster("/members"),
        "clusters/{id}/members?cursor=": of(f"/clusters/c0/members?cursor={cursor}"),
        "clusters/{id}/members?order=-distance": cluster("/members?order=-distance"),
        "clusters/{id}/members?order=item_id": cluster("/members?order=item_id"),
        "clusters/{id}/similar": cluster("/similar"),
        "clusters/{id}/timeline": cluster("/timeline"),
        "trending": of("/trending"),
        "flows": of("/flows"),
        "changes": of("/changes"),
        "changes?item=": lambda i: (f"/changes?item=item-{i % N_CHANGES}", b""),
        "changes?cluster=": lambda i: (f"/changes?cluster=c{i % N_CLUSTERS}", b""),
        "lifecycle": of("/lifecycle"),
        "lifecycle?cluster=": lambda i: (f"/lifecycle?cluster=c{i % N_CLUSTERS}", b""),
        "stats": of("/stats"),
        "drift": of("/drift"),
        "drift/alarms": of("/drift/alarms"),
        "frames": of("/frames"),
        "model": of("/model"),
        "models": of("/models"),
    }  # fmt: skip


async def _ask(
    port: int, question: Question, first: int, step: int, seconds: float
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


@dataclass(slots=True)
class Asked:
    """What a question took so far."""

    waits_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of the server's process, all of it."""
    statuses: set[int] = field(default_factory=set)

    def told(self) -> dict[str, Any]:
        """For the page of results."""
        n = len(self.waits_ms)
        p50, p99 = np.quantile(self.waits_ms, (0.5, 0.99))
        return {
            "requests_per_s": round(n / self.seconds), "n": n,
            "p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2),
            "cpu_ms": round(self.cpu_s / n * 1e3, 2), "statuses": sorted(self.statuses),
        }  # fmt: skip


async def ask_all(
    port: int, n: int, n_dims: int, chosen: argparse.Namespace, cpu_s: Callable[[], float]
) -> dict[str, Any]:
    """Every question in each of the rounds; requests a second, and how long one takes."""
    found: dict[str, Asked] = {}
    for round_number in range(ROUNDS):
        for name, question in questions(n, n_dims, _second_page(port)).items():
            if not round_number:
                await _ask(port, question, 0, 1, WARM_S)
            one, cpu_before = found.setdefault(name, Asked()), cpu_s()
            first, began_at = len(one.waits_ms), time.perf_counter()
            answers = await asyncio.gather(
                *(_ask(port, question, first + c, chosen.connections, chosen.seconds / ROUNDS)
                  for c in range(chosen.connections))
            )  # fmt: skip
            one.seconds += time.perf_counter() - began_at
            one.cpu_s += cpu_s() - cpu_before
            for waits, statuses in answers:
                one.waits_ms += [wait * 1e3 for wait in waits]
                one.statuses |= statuses
    return {name: one.told() for name, one in found.items()}


def _second_page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30.0)
    connection.request("GET", "/api/v1/clusters/c0/members", headers={"Host": "localhost"})
    cursor: str = json.loads(connection.getresponse().read())["next_cursor"]
    connection.close()
    return cursor


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
    similar = []
    for _ in chosen.sizes:
        similar.append(ours.recv())
        print(json.dumps(similar[-1], indent=2), flush=True)
    served = ours.recv()

    def cpu_s() -> float:
        ours.send("cpu")
        return float(ours.recv())

    size = chosen.sizes[-1]
    asked = asyncio.run(ask_all(served["port"], size, served["n_dims"], chosen, cpu_s))
    ours.send("end")
    process.join(30)
    for name, row in asked.items():
        print(f"{name:38} {row['requests_per_s']:7,} /s  p50 {row['p50_ms']:7.2f} ms  "
              f"p99 {row['p99_ms']:7.2f} ms  cpu {row['cpu_ms']:6.2f} ms  "
              f"{row['statuses']}")  # fmt: skip
    machine["load_after"] = [round(load, 2) for load in os.getloadavg()]
    if not chosen.no_write:
        figures = {f"requests {size}": asked}
        figures |= {f"similarity {row['items']}": row for row in similar}
        print(f"written to {write_results('server', figures, machine)}")
    return 1 if any(row["statuses"] != [200] for row in asked.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
