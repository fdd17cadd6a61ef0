"""Kills, stops, a broker that dies and forced fits, all at once: nothing lost, nothing twice.

A history is drawn from a seed (``EDDY_TEST_CHAOS_SEED``; times depend on the machine, so a seed
gives the same faults, not the same run). ``EDDY_TEST_CHAOS_ROUNDS`` makes it longer.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import threading
import time
from contextlib import suppress
from itertools import count

import numpy as np
import pytest

from pipeline.cli.children import RestartPolicy, Services, service_commands
from pipeline.messages.codec import encode_vector
from pipeline.messages.records import Outgoing
from pipeline.streams.broker import start_broker
from tests.conftest import FAST_GROUPS
from tests.kafka.audit import audit
from tests.kafka.site import QUICK_GROUPS, Site, site_at, until

pytestmark = pytest.mark.kafka

N_DIMS, N_ITEMS, N_CLUSTERS = 16, 300, 12
SESSION_S = 3.0
A_ROUND = ("kill", "recluster", "stop", "kill", "broker", "recluster", "stop", "kill", "restart")
PAUSE_S = (0.5, 2.0)
"""Between two faults: some meet a restore, others the work after it."""
TICK_S = 0.02
REST_LIMIT_S = 150.0


class Writer(threading.Thread):
    """Users: they write, rewrite, remove, and make mistakes, until told to stop."""

    def __init__(self, site: Site, seed: int) -> None:
        super().__init__(name="writer", daemon=True)
        self.n_written = 0
        self.error: BaseException | None = None
        self._site = site
        self._rng = np.random.default_rng(seed)
        self._centres = self._rng.standard_normal((N_CLUSTERS, N_DIMS)) * 3
        self._sequences: dict[int, int] = {}
        self._is_over = threading.Event()

    def run(self) -> None:
        producer = self._site.broker.producer()
        try:
            while not self._is_over.wait(TICK_S):
                for _ in range(int(self._rng.integers(1, 16))):
                    producer.write(self._record(int(self._rng.integers(N_ITEMS))))
                    self.n_written += 1
            for n in range(N_ITEMS):  # what a wrong memory does shows at an item's next record
                producer.write(self._upsert(n, 0))
            producer.flush()
        except BaseException as error:  # noqa: BLE001 the test's own thread says it
            self.error = error

    def finish(self) -> None:
        """One more record for every item, and everything acknowledged."""
        self._is_over.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _record(self, n: int) -> Outgoing:
        kind = self._rng.choice(
            ["plain", "numbered", "stale", "removal", "nan", "short"],
            p=[0.6, 0.15, 0.05, 0.12, 0.04, 0.04],
        )
        if kind == "removal":
            self._sequences.pop(n, None)
            return self._upsert(n, 0)._replace(value=None)
        if kind == "short":
            return self._upsert(n, 0)._replace(value=b"EDV1")
        if kind == "nan":
            broken = encode_vector(np.full(N_DIMS, np.nan, np.float32))
            return self._upsert(n, 0)._replace(value=broken)
        if kind == "numbered":
            self._sequences[n] = self._sequences.get(n, 0) + 1
            return self._upsert(n, self._sequences[n])
        return self._upsert(n, max(1, self._sequences.get(n, 0)) if kind == "stale" else 0)

    def _upsert(self, n: int, sequence: int) -> Outgoing:
        centre = self._centres[self._rng.integers(N_CLUSTERS)]
        vector = (centre + self._rng.standard_normal(N_DIMS)).astype(np.float32)
        topics = self._site.topics
        value = encode_vector(vector, sequence)
        return Outgoing(topics.input, n % topics.partitions, b"item-%d" % n, value)


class Chaos:
    """Does to processes and broker what a script says, and starts again what died."""

    def __init__(self, site: Site, services: Services, machine, rng) -> None:
        self._site, self._services, self._machine, self._rng = site, services, machine, rng
        self._later: list[tuple[float, int, int]] = []  # when to wake which process
        self._numbers = count()

    def play(self, script: list[str]) -> None:
        for fault in script:
            getattr(self, f"_{fault}")()
            print(f"{time.monotonic():.1f} {fault}")
            self.wait(float(self._rng.uniform(*PAUSE_S)))
        while self._later:
            self.wait(0.1)

    def wait(self, duration_s: float) -> None:
        """Go on for so long; a supervisor never rests."""
        ends_at = time.monotonic() + duration_s
        while time.monotonic() < ends_at:
            self.tend()
            time.sleep(0.05)

    def tend(self) -> None:
        """Wake those whose time has come, and start again those that ended."""
        while self._later and self._later[0][0] <= time.monotonic():
            send(heapq.heappop(self._later)[2], signal.SIGCONT)
        self._services.check()

    def is_answered(self) -> bool:
        """Whether every command has its outcome; the judge counts that it has one only."""
        self.tend()
        told = self._site.values(self._site.topics.lifecycle)
        outcomes = {
            event["command"] for event in told if event["type"] in ("installed", "rejected")
        }
        return len(outcomes - {None}) == self._site.n_commands

    def _kill(self) -> None:
        send(self._anybody(), signal.SIGKILL)

    def _stop(self) -> None:
        pid = self._anybody(but_not={pid for _, _, pid in self._later})
        send(pid, signal.SIGSTOP)
        wakes_at = time.monotonic() + SESSION_S + float(self._rng.uniform(0.5, 3.0))
        heapq.heappush(self._later, (wakes_at, next(self._numbers), pid))

    def _restart(self) -> None:
        send(self._anybody(), signal.SIGTERM)

    def _broker(self) -> None:
        """The broker dies in the middle of transactions; it comes back on the same data."""
        self._machine.kill()
        self.wait(float(self._rng.uniform(0.0, 1.0)))
        self._machine.start()

    def _recluster(self) -> None:
        command = f"command-{self._site.n_commands}".encode()
        value = json.dumps({"type": "recluster", "force": True}).encode()
        self._site.write([Outgoing(self._site.topics.commands, 0, command, value)])
        self._site.n_commands += 1

    def _anybody(self, but_not: frozenset[int] | set[int] = frozenset()) -> int:
        """The process of some assigner, now and then of the reclusterer."""
        found: dict[str, int] = {}

        def look() -> bool:
            self.tend()
            pids = self._services.pids
            found.update({n: pid for n, pid in pids.items() if pid and pid not in but_not})
            return bool(found)

        until(look, "some process runs")
        return found[str(self._rng.choice(sorted(found)))]


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.kill(pid, number)


def test_faults_of_every_kind_leave_no_trace(tmp_path):
    seed = int(os.environ.get("EDDY_TEST_CHAOS_SEED") or time.time_ns() % 1_000_000)
    n_rounds = int(os.environ.get("EDDY_TEST_CHAOS_ROUNDS") or 1)
    print(f"EDDY_TEST_CHAOS_SEED={seed}")
    rng = np.random.default_rng(seed)
    script = [str(fault) for _ in range(n_rounds) for fault in rng.permutation(A_ROUND)]
    print(*script)
    rules = RestartPolicy(max_restarts=1000, backoff_s=0.2, max_backoff_s=1.0)
    settings = {
        "topics.partitions": 6,
        "embedding.dimensions": N_DIMS,
        "clustering.clusters": N_CLUSTERS,
        "recluster.bootstrap_items": 100,
        "recluster.min_interval_s": 1,
        "centroids.min_interval_s": 0.5,
        **QUICK_GROUPS,
    }
    with (
        start_broker(tmp_path / "broker", extra=FAST_GROUPS) as broker,
        site_at(broker.bootstrap_servers, tmp_path, settings) as site,
        (tmp_path / "services.log").open("w") as log,
    ):
        site.create_topics()
        writer = Writer(site, seed)
        commands = service_commands(site.flags, n_assigners=3)
        with Services(commands, policy=rules, on_line=lambda n, s: log.write(f"{n} {s}\n")) as up:
            chaos = Chaos(site, up, broker, rng)
            writer.start()
            until(lambda: chaos.tend() or site.committed(site.topics.changes)[0], "a first event")
            began = time.monotonic()

            chaos.play(script)
            writer.finish()
            ended = time.monotonic()
            site.wait_until_applied(REST_LIMIT_S, tending=chaos.tend)
            until(chaos.is_answered, "every command is answered", REST_LIMIT_S)

            recovered_s = time.monotonic() - ended
            verified = site.run("verify", "--timeout", str(REST_LIMIT_S))
            assert verified.returncode == 0, verified.stdout + verified.stderr
        n_events = audit(site)
        broker.kill()
    print(
        f"{writer.n_written + N_ITEMS} records, {n_events} events, faults for "
        f"{ended - began:.1f} s, everything applied {recovered_s:.1f} s after the last"
    )
    print(verified.stdout)
