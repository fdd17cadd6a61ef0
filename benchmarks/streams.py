"""Live streams: from commit to client, with a thousand of them at 2 000 events a second.

A server over the broker in memory, its follower, its view and its web server, in one process; the
clients in another. An event is timed from when it is written to when the client has read it; what a
real broker takes to hand it out is not in it. One client in a hundred gets everything, the others
what touches two clusters of a hundred; one in ten watches the state of all clusters as well. Ten
lifecycle events a second go to everybody: none may be missing.

Both processes share the machine's cores, so a client's cost counts, too. All thousand are one loop
over sockets; what is counted (events, lifecycle, bytes, dropped) is counted of every client, and
one in seven is timed, event by event: of each kind as many as there are among all. The load is
encoded beforehand, and its writer shares the process, and the interpreter's lock, with the server.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import multiprocessing
import os
import re
import selectors
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from benchmarks._stage import describe, machine, write_results
from pipeline.config import Config, ServerPolicy
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_assignment, encode_change, encode_lifecycle
from pipeline.messages.events import Cause, ChangeType, ClusterChange, Lifecycle, LifecycleType
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import N_QUANTILES, Model, digest, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from pipeline.services.allocator import collect_seldom
from pipeline.services.server.listening import Listening
from pipeline.services.server.live.clients import MAX_PER_ADDRESS
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

N_CLUSTERS, N_DIMS, TICK_S, LIFECYCLE_EVERY_S = 100, 8, 0.01, 0.1
EVENT_ID = re.compile(rb'"id":"[tl]/(\d+)/')
SETTLE_S, QUIET_S, SILENCE_LIMIT_S = 2.0, 5.0, 60.0
TIMED_ONE_IN = 7
"""Among a thousand clients: 143, of which 2 get everything and 15 watch the state."""
STAMP = b"0" * 20
"""Stands where the nanosecond goes at which an event is written."""


def opened(broker: MemoryBroker, config: Config) -> None:
    """Topics, and a model of a hundred clusters."""
    broker.create_topics(expected_topics(config.topics, config.limits.max_record_bytes))
    centroids = np.eye(N_CLUSTERS, N_DIMS, dtype=np.float32)
    names = tuple(f"c{i}" for i in range(N_CLUSTERS))
    manifest = Manifest(
        epoch=1, revision=0, metric="euclidean", dimensions=N_DIMS, embedding_model=None,
        clusters=names, max_component=config.embedding.largest_component, input_policy="compact",
        digest=digest(centroids), next_cluster_number=N_CLUSTERS, fitted_items=N_CLUSTERS,
        fitted_inertia=1.0, fitted_offsets=(0,) * config.topics.partitions, created_at_ms=0,
    )  # fmt: skip
    ones = np.ones(N_CLUSTERS)
    quantiles = np.ones((N_CLUSTERS, N_QUANTILES), np.float32)
    model = Model(
        manifest, centroids, np.ones(N_CLUSTERS, np.int64), ones, ones, quantiles, centroids
    )
    for record in model_records(model, config.topics.model, previous=None, drop=[]):
        broker.append(record.topic, record.partition, record.key, record.value, record.headers)


def serve(pipe: Connection, rate: float, seconds: float, n_clients: int) -> None:
    """The process of the server; says its port, waits for the word, then how it went."""
    embedding = EmbeddingPolicy(dimensions=N_DIMS, metric="euclidean")
    config = Config(
        topics=TopicPolicy(partitions=6), embedding=embedding,
        server=ServerPolicy(port=0, vectors="none"),
    )  # fmt: skip
    broker = MemoryBroker()
    opened(broker, config)
    metrics, health = Metrics("server"), Health("server", poll_timeout_s=1)
    reports = ServerReports(get_logger(), metrics, health)
    server = Server(config, broker, CpuKernels(threads=1), input_is_compacted=True, reports=reports)
    load = load_of(config, int(rate * seconds) + 1)
    with Listening(server.app, config.server, reports) as running:
        pipe.send(running.port)
        while not pipe.poll():
            server.step()
            time.sleep(0.01)
        limit = time.monotonic() + SILENCE_LIMIT_S
        collect_seldom()  # as every service does; the load is not the server's to look through
        while _n_subscribed(server) < n_clients and time.monotonic() < limit:
            server.step()
            time.sleep(0.01)
        pipe.recv()
        cpu_s, began_at = time.process_time(), time.monotonic()
        sent = written(broker, config, server, load, rate, seconds)
        last = time.monotonic() + SETTLE_S
        while time.monotonic() < last:
            server.step()
            time.sleep(0.002)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - began_at)
        pipe.send(sent | {"server_cores": round(cores, 2)})
        while not pipe.poll():  # who is behind still gets what waits for him
            server.step()
            time.sleep(0.002)
        server.close()


def _n_subscribed(server: Server) -> int:
    """Nobody misses what came before he asked for it."""
    return sum(len(client.feeds) for client in set(server.streams._clients))


class Load(NamedTuple):
    """One change, and where its item is then, as records; both bear `STAMP`."""

    key: bytes
    change: bytes
    headers: Any
    placed: bytes


def load_of(config: Config, n_changes: int) -> list[Load]:
    """What will be written: what it costs to encode it is a worker's, not a server's."""
    rng, policy, made = np.random.default_rng(7), EventPolicy(), []
    pairs = rng.integers(0, N_CLUSTERS, n_changes), rng.integers(1, N_CLUSTERS, n_changes)
    now_ms = int(time.time() * 1000)
    for n, (at, ahead) in enumerate(zip(*pairs, strict=True)):
        source, target, p = f"c{at}", f"c{(at + ahead) % N_CLUSTERS}", n % config.topics.partitions
        change = ClusterChange(
            f"t/{STAMP.decode()}/{n}", ChangeType.REASSIGNED, f"item-{n % 50_000}", source, target,
            Cause.RECORD, 1.0, 0.5, 0.5, 1, 0, config.topics.input, p, n, now_ms,
        )  # fmt: skip
        value, headers = encode_change(change, policy)
        assert STAMP in value
        placed = encode_assignment(target, 1.0, 0, 1, 0, p, n)
        made.append(Load(change.item.encode(), value, headers, placed))
    return made


def written(
    broker: MemoryBroker,
    config: Config,
    server: Server,
    load: list[Load],
    rate: float,
    seconds: float,
) -> dict[str, int]:
    """Write events as they are due, some in each transaction, and let the server follow."""
    n_changes = n_lifecycle = 0
    policy, topics = EventPolicy(), config.topics
    began_at = time.monotonic()
    next_lifecycle = LIFECYCLE_EVERY_S
    while (now := time.monotonic() - began_at) < seconds:
        stamp = b"%020d" % time.monotonic_ns()
        now_ms = broker.now_ms = int(time.time() * 1000)
        while n_changes < rate * now:
            key, change, headers, placed = load[n_changes]
            p, change = n_changes % topics.partitions, change.replace(STAMP, stamp, 1)
            broker.append(topics.changes, p, key, change, headers, now_ms)
            broker.append(topics.assignments, p, key, placed, (), now_ms)
            n_changes += 1
        if now > next_lifecycle:
            next_lifecycle += LIFECYCLE_EVERY_S
            name = f"l/{stamp.decode()}/{n_lifecycle}"
            told = Lifecycle(name, LifecycleType.LABELLED, 1, 0, None, None)
            value, headers = encode_lifecycle(told, policy)
            broker.append(topics.lifecycle, 0, told.key, value, headers, now_ms)
            n_lifecycle += 1
        server.step()
        time.sleep(max(0.0, TICK_S - (time.monotonic() - began_at - now)))
    return {"changes": n_changes, "lifecycle": n_lifecycle}


class Listener:
    """A client as lean as one can be: the machine shall be the server's."""

    def __init__(self, number: int, port: int) -> None:
        self.waits_ns: list[int] = []
        self.n_lifecycle = self.n_changes = self.n_dropped = self.n_bytes = self.n_state = 0
        self.is_timed, self.is_filtered = number % TIMED_ONE_IN == 0, number % 100 > 0
        self.is_closed = False
        self._rest = b""
        source = f"127.0.1.{1 + number // MAX_PER_ADDRESS}"
        self.socket = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
        self.socket.sendall(
            b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n"
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(4096)
        assert head.startswith(b"HTTP/1.1 101"), head
        self._rest = head.partition(b"\r\n\r\n")[2]
        channels = ["changes", "lifecycle"] + ["clusters"] * (number % 10 == 0)
        chosen = [f"c{number % N_CLUSTERS}", f"c{(number + 37) % N_CLUSTERS}"]
        wanted = {"clusters": chosen} if self.is_filtered else {}
        question = {"type": "subscribe", "id": "", "channels": channels, "filter": wanted}
        said = json.dumps(question).encode()
        self.socket.sendall(b"\x81\xfe" + len(said).to_bytes(2, "big") + bytes(4) + said)
        self.socket.setblocking(False)

    def read(self, buffer: memoryview) -> None:
        """Take what has come, whole messages of it."""
        n = self.socket.recv_into(buffer)
        now_ns = time.monotonic_ns()
        data = self._rest + buffer[:n] if self._rest else bytes(buffer[:n])
        at, self.is_closed = 0, not n
        while len(data) - at >= 2:
            begin, size = at + 2, data[at + 1]
            if size >= 126:
                begin += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : begin], "big")
            if len(data) < begin + size:
                break
            self._take(data[at] & 0xF, data[begin : begin + size], now_ns)
            at = begin + size
        self._rest = data[at:]

    def _take(self, kind: int, body: bytes, now_ns: int) -> None:
        self.n_bytes += len(body)
        if kind == 9:  # ping
            self.socket.send(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
        elif kind == 8:
            self.is_closed = True
        elif body.startswith(b'{"type":"events"'):
            self.n_changes += body.count(b'"id":"t/')
            self.n_lifecycle += body.count(b'"id":"l/')
            end = body.rindex(b'"dropped":') + 10
            self.n_dropped += int(body[end : body.index(b",", end)])
            if self.is_timed:
                self.waits_ns += [now_ns - int(stamp) for stamp in EVENT_ID.findall(body)]
        else:
            self.n_state += body.startswith((b'{"type":"delta"', b'{"type":"key"'))


class Crowd:
    """All clients, read from as something comes."""

    def __init__(self, port: int, n_clients: int) -> None:
        self.clients: list[Listener] = []
        self._selector, self._buffer = selectors.DefaultSelector(), memoryview(bytearray(2**20))
        for number in range(n_clients):
            client = Listener(number, port)
            self.clients.append(client)
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            self.listen(0.0, lambda: True)

    def listen(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """For so long, or until it is enough."""
        ends_at = time.monotonic() + seconds
        while True:
            for key, _ in self._selector.select(0.0 if not seconds else 0.05):
                key.data.read(self._buffer)
                if key.data.is_closed:
                    self._selector.unregister(key.fileobj)
                    key.data.socket.close()
            if is_enough() or time.monotonic() >= ends_at:
                return

    def total(self, name: str) -> int:
        """Of all clients."""
        return sum(getattr(client, name) for client in self.clients)


def listened(port: int, n_clients: int, pipe: Connection) -> dict[str, Any]:
    """All clients, from the word to the end; what they felt."""
    crowd = Crowd(port, n_clients)
    crowd.listen(SETTLE_S)
    cpu_s, began_at = time.process_time(), time.monotonic()
    pipe.send("begin")
    crowd.listen(float("inf"), pipe.poll)
    sent: dict[str, Any] = pipe.recv()
    cores = (time.process_time() - cpu_s) / (time.monotonic() - began_at)
    heard, before, ends_at = 0, -1, time.monotonic() + SILENCE_LIMIT_S
    while heard != before and time.monotonic() < ends_at:
        before = heard
        crowd.listen(QUIET_S)
        heard = crowd.total("n_changes") + crowd.total("n_lifecycle")
    n_failed = crowd.total("is_closed")
    pipe.send("end")
    crowd.listen(SILENCE_LIMIT_S, lambda: crowd.total("is_closed") == n_clients)
    waits_ms = np.array([wait for client in crowd.clients for wait in client.waits_ns]) / 1e6
    if not len(waits_ms):
        raise SystemExit(f"nothing came: {sent}, {n_clients} clients")
    return sent | {
        "clients": n_clients,
        "failed": n_failed,
        "delivered": heard,
        "timed": len(waits_ms),
        "dropped": crowd.total("n_dropped"),
        "dropped_filtered": sum(c.n_dropped for c in crowd.clients if c.is_filtered),
        "lifecycle_missing": sum(sent["lifecycle"] - c.n_lifecycle for c in crowd.clients),
        "state_frames": crowd.total("n_state"),
        "mb": round(crowd.total("n_bytes") / 1e6),
        "clients_cores": round(cores, 2),
        "latency_ms": {
            name: round(float(np.quantile(waits_ms, share)), 1)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--no-write", action="store_true", help="keep nothing")
    options = parser.parse_args()

    about = machine()
    print(describe(about), flush=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    itself = importlib.import_module("benchmarks.streams")  # a script that runs has no such name
    told = (theirs, options.rate, options.seconds, options.clients)
    process = context.Process(target=itself.serve, args=told)
    process.start()
    theirs.close()  # so that its end is ours, too
    found = listened(ours.recv(), options.clients, ours)
    process.join(30)
    print(json.dumps(found, indent=2))
    if not options.no_write:
        print(f"written to {write_results('streams', {'streams': found}, about)}")
    return 0 if not found["failed"] and not found["lifecycle_missing"] else 1


if __name__ == "__main__":
    sys.exit(main())
