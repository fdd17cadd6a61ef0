"""Live streams: from commit to client, with a thousand of them at 2 000 events a second.

A server over the broker in memory, its follower, its view and its web server, in one process; the
clients in another, on this machine's cores as well. An event is timed from when it is written to
when the client has read it; what a real broker takes to hand it out is not in it. One client in a
hundred gets everything, the others what touches two clusters of a hundred; one in ten watches the
state of all clusters as well. Ten lifecycle events a second go to everybody: none may be missing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib
import json
import multiprocessing
import os
import re
import sys
import time
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks._stage import describe, machine, write_results
from pipeline.config import Config, ServerPolicy
from pipeline.kernels.cpu import CpuKernels
from pipeline.messages.codec import encode_assignment, encode_change, encode_lifecycle
from pipeline.messages.events import Cause, ChangeType, ClusterChange, Lifecycle, LifecycleType
from pipeline.messages.manifest import Manifest
from pipeline.messages.model import N_QUANTILES, Model, digest, model_records
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy
from pipeline.services.server.listening import Listening
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.services.server.stream_clients import MAX_PER_ADDRESS
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

N_CLUSTERS, N_DIMS, TICK_S, LIFECYCLE_EVERY_S = 100, 8, 0.01, 0.1
CHANGE_ID, LIFECYCLE_ID = re.compile(rb'"id":"t/(\d+)/'), re.compile(rb'"id":"l/(\d+)/')
SETTLE_S, SILENCE_LIMIT_S = 2.0, 60.0


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
    with Listening(server.app, config.server, reports) as running:
        pipe.send(running.port)
        while not pipe.poll():
            server.step()
            time.sleep(0.01)
        limit = time.monotonic() + SILENCE_LIMIT_S
        while _n_subscribed(server) < n_clients and time.monotonic() < limit:
            server.step()
            time.sleep(0.01)
        pipe.recv()
        cpu_s, began_at = time.process_time(), time.monotonic()
        sent = written(broker, config, server, rate, seconds)
        last = time.monotonic() + SETTLE_S
        while time.monotonic() < last:
            server.step()
            time.sleep(0.002)
        cores = (time.process_time() - cpu_s) / (time.monotonic() - began_at)
        pipe.send(sent | {"server_cores": round(cores, 2)})
        pipe.recv()
        server.close()


def _n_subscribed(server: Server) -> int:
    """Nobody misses what came before he asked for it."""
    return sum(len(client.feeds) for client in set(server.streams._clients))


def written(
    broker: MemoryBroker, config: Config, server: Server, rate: float, seconds: float
) -> dict[str, int]:
    """Write events as they are due, some in each transaction, and let the server follow."""
    rng, places = np.random.default_rng(7), count()
    n_changes = n_lifecycle = 0
    policy, partitions = EventPolicy(), config.topics.partitions
    began_at = time.monotonic()
    next_lifecycle = LIFECYCLE_EVERY_S
    while (now := time.monotonic() - began_at) < seconds:
        stamp = time.monotonic_ns()
        broker.now_ms = int(time.time() * 1000)
        while n_changes < rate * now:
            source, target = (f"c{i}" for i in rng.choice(N_CLUSTERS, 2, replace=False))
            n, p = next(places), n_changes % partitions
            change = ClusterChange(
                f"t/{stamp}/{n}", ChangeType.REASSIGNED, f"item-{n % 50_000}", source, target,
                Cause.RECORD, 1.0, 0.5, 0.5, 1, 0, config.topics.input, p, n, broker.now_ms,
            )  # fmt: skip
            value, headers = encode_change(change, policy)
            key = change.item.encode()
            broker.append(config.topics.changes, p, key, value, headers, broker.now_ms)
            placed = encode_assignment(target, 1.0, 0, 1, 0, p, n)
            broker.append(config.topics.assignments, p, key, placed, (), broker.now_ms)
            n_changes += 1
        if now > next_lifecycle:
            next_lifecycle += LIFECYCLE_EVERY_S
            told = Lifecycle(f"l/{stamp}/{n_lifecycle}", LifecycleType.LABELLED, 1, 0, None, None)
            value, headers = encode_lifecycle(told, policy)
            broker.append(config.topics.lifecycle, 0, told.key, value, headers, broker.now_ms)
            n_lifecycle += 1
        server.step()
        time.sleep(max(0.0, TICK_S - (time.monotonic() - began_at - now)))
    return {"changes": n_changes, "lifecycle": n_lifecycle}


class Listener:
    """A client as lean as one can be: the machine shall be the server's."""

    def __init__(self, number: int) -> None:
        self.waits_ns: list[int] = []
        self.n_lifecycle = self.n_changes = self.n_dropped = self.n_bytes = self.n_state = 0
        channels = ["changes", "lifecycle"] + ["clusters"] * (number % 10 == 0)
        chosen = [f"c{number % N_CLUSTERS}", f"c{(number + 37) % N_CLUSTERS}"]
        wanted = {} if number % 100 == 0 else {"clusters": chosen}
        self.question = {"type": "subscribe", "id": "", "channels": channels, "filter": wanted}
        self.source = f"127.0.1.{1 + number // MAX_PER_ADDRESS}"

    async def listen(self, port: int) -> None:
        """Until the server says bye."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, local_addr=(self.source, 0), limit=2**22
        )
        key = base64.b64encode(os.urandom(16))
        writer.write(
            b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        said = json.dumps(self.question).encode()
        writer.write(b"\x81\xfe" + len(said).to_bytes(2, "big") + bytes(4) + said)
        while True:
            first, size = await reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            body = await reader.readexactly(size)
            if first & 0xF == 9:  # ping
                writer.write(bytes([0x8A, 0x80 | size]) + bytes(4) + body)
            elif first & 0xF == 8:
                writer.close()
                return
            else:
                self.hear(body, time.monotonic_ns())

    def hear(self, body: bytes, now_ns: int) -> None:
        """Take one message."""
        self.n_bytes += len(body)
        if not body.startswith(b'{"type":"events"'):
            self.n_state += body.startswith((b'{"type":"delta"', b'{"type":"key"'))
            return
        for found in (CHANGE_ID.findall(body), lifecycle := LIFECYCLE_ID.findall(body)):
            self.waits_ns += [now_ns - int(stamp) for stamp in found]
        self.n_lifecycle += len(lifecycle)
        self.n_changes += body.count(b'"id":"t/')
        self.n_dropped += int(body.rpartition(b'"dropped":')[2].partition(b",")[0])


async def listened(port: int, n_clients: int, pipe: Connection) -> dict[str, Any]:
    """All clients, from the word to the end; what they felt."""
    clients = [Listener(number) for number in range(n_clients)]
    tasks = []
    for client in clients:
        tasks.append(asyncio.create_task(client.listen(port)))
        await asyncio.sleep(0.002)
    await asyncio.sleep(SETTLE_S)
    cpu_s, began_at = time.process_time(), time.monotonic()
    pipe.send("begin")
    sent: dict[str, Any] = await asyncio.to_thread(pipe.recv)
    cores = (time.process_time() - cpu_s) / (time.monotonic() - began_at)
    await _silence(clients)
    pipe.send("end")
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    waits_ms = np.array([wait for client in clients for wait in client.waits_ns]) / 1e6
    for reason in {repr(end) for end in ends if end is not None}:
        print(f"a client ended by {reason}", file=sys.stderr, flush=True)
    if not len(waits_ms):
        raise SystemExit(f"nothing came: {sent}, {len(clients)} clients")
    filtered = [client for n, client in enumerate(clients) if n % 100]
    return sent | {
        "clients": n_clients,
        "failed": sum(end is not None for end in ends),
        "delivered": len(waits_ms),
        "dropped": sum(client.n_dropped for client in clients),
        "dropped_filtered": sum(client.n_dropped for client in filtered),
        "lifecycle_missing": sum(sent["lifecycle"] - client.n_lifecycle for client in clients),
        "state_frames": sum(client.n_state for client in clients),
        "mb": round(sum(client.n_bytes for client in clients) / 1e6),
        "clients_cores": round(cores, 2),
        "latency_ms": {
            name: round(float(np.quantile(waits_ms, share)), 1)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
    }


async def _silence(clients: list[Listener]) -> None:
    """Until no more events come: who is behind still gets what waits for him."""
    ends_at, heard, before = time.monotonic() + SILENCE_LIMIT_S, -1, -2
    while heard != before and time.monotonic() < ends_at:
        before = heard
        await asyncio.sleep(SETTLE_S)
        heard = sum(len(client.waits_ns) for client in clients)


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
    found = asyncio.run(listened(ours.recv(), options.clients, ours))
    process.join(30)
    print(json.dumps(found, indent=2))
    if not options.no_write:
        print(f"written to {write_results('streams', {'streams': found}, about)}")
    return 0 if not found["failed"] and not found["lifecycle_missing"] else 1


if __name__ == "__main__":
    sys.exit(main())
