"""What is rolled: services of two trees, a writer that goes on, and a check after each step."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.messages.codec import encode_vector
from pipeline.messages.records import Outgoing
from tests.kafka.audit import audit
from tests.kafka.site import QUICK_GROUPS, Process, Site

N_DIMS, N_ITEMS, N_CLUSTERS, N_PARTITIONS = 16, 400, 8, 6
SETTINGS = {
    "topics.partitions": N_PARTITIONS,
    "embedding.dimensions": N_DIMS,
    "clustering.clusters": N_CLUSTERS,
    "recluster.bootstrap_items": 200,
    "recluster.min_interval_s": 2,
    "recluster.max_updates": 2000,
    "centroids.min_interval_s": 0.5,
    **QUICK_GROUPS,
}
ELSEWHERE = str(Path(__file__).with_name("elsewhere.py"))
START_LIMIT_S = 300.0
"""A tree that never ran compiles its kernels first."""
REST_LIMIT_S = 120.0
FLOW_S = 3.0
"""Records flow so long between one change and the next."""


class Writer(threading.Thread):
    """Users: they write, rewrite and remove; they can be held, so that all is at rest."""

    def __init__(self, site: Site, seed: int, pause_s: float = 0.02) -> None:
        super().__init__(name="writer", daemon=True)
        self._pause_s = pause_s
        self.n_written = 0
        self.error: BaseException | None = None
        self._site, self._rng = site, np.random.default_rng(seed)
        self._centres = self._rng.standard_normal((N_CLUSTERS, N_DIMS)) * 3
        self._is_over, self._flows, self._is_still = (threading.Event() for _ in range(3))
        self._flows.set()

    def run(self) -> None:
        producer = self._site.broker.producer()
        try:
            while not self._is_over.wait(self._pause_s):
                if not self._flows.is_set():
                    producer.flush()
                    self._is_still.set()
                    self._flows.wait()
                    self._is_still.clear()
                for _ in range(int(self._rng.integers(1, 16))):
                    producer.write(self._record())
                    self.n_written += 1
            producer.flush()
        except BaseException as error:  # noqa: BLE001 the thread that joins says it
            self.error = error
            self._is_still.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is written meanwhile, and what was is acknowledged."""
        self._flows.clear()
        assert self._is_still.wait(REST_LIMIT_S), "the writer does not rest"
        self.check()
        yield
        self._flows.set()

    def finish(self) -> None:
        self._is_over.set()
        self._flows.set()
        self.join()
        self.check()

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def _record(self) -> Outgoing:
        n = int(self._rng.integers(N_ITEMS))
        topic, p = self._site.topics.input, n % N_PARTITIONS
        kind = self._rng.choice(["good", "removal", "short"], p=[0.85, 0.12, 0.03])
        value: bytes | None = b"EDV1"
        if kind == "removal":
            value = None
        elif kind == "good":
            centre = self._centres[self._rng.integers(N_CLUSTERS)]
            vector = (centre + self._rng.standard_normal(N_DIMS)).astype(np.float32)
            value = encode_vector(vector)
        return Outgoing(topic, p, b"item-%d" % n, value)


class Roll:
    """Assigners and a reclusterer, each of one of two trees."""

    def __init__(self, site: Site, old: Path, writer: Writer) -> None:
        self._site, self._old, self.writer = site, old, writer
        self._members: dict[str, Process] = {}
        self.n_steps = 0

    def start(self, name: str, *, is_old: bool) -> None:
        """Start a service, or put one of the other tree in its place."""
        if name in self._members:
            code = self._members.pop(name).terminate()
            assert code == 0, f"{name} ended with {code}"
        via = [sys.executable, ELSEWHERE, str(self._old)] if is_old else None
        service, _, _ = name.partition("-")
        words = ["--set", f"instance={name}", service]
        self._members[name] = process = self._site.start(*words, via=via)
        if service == "assigner":
            process.says("restore_finished", START_LIMIT_S)

    def step(self, what: str, names: tuple[str, ...], *, is_old: bool) -> None:
        """Change some processes while records flow; then all is at rest, and verified."""
        began = time.monotonic()
        for name in names:
            self.start(name, is_old=is_old)
        time.sleep(FLOW_S)
        dead = {name: p.said[-2000:] for name, p in self._members.items() if p.has_ended}
        assert not dead, dead
        with self.writer.held():
            self._site.wait_until_applied(REST_LIMIT_S)
            verified = self._site.run("verify", "--timeout", str(REST_LIMIT_S))
            assert verified.returncode == 0, f"{what}:\n{verified.stdout}{verified.stderr}"
        self.n_steps += 1
        took = time.monotonic() - began
        print(f"{what}: verified after {took:.1f} s, {self.writer.n_written} records", flush=True)

    def finish(self) -> int:
        """The whole log held against all promises; the number of change events."""
        self.writer.finish()
        self._site.wait_until_applied(REST_LIMIT_S)
        verified = self._site.run("verify", "--timeout", str(REST_LIMIT_S))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        return audit(self._site)


def roll(site: Site, old: Path, seed: int) -> tuple[int, int]:
    """Upgrade and rollback, step by step; records written, and change events of them."""
    site.create_topics()
    writer = Writer(site, seed)
    rolling = Roll(site, old, writer)
    writer.start()
    fleet = ("assigner-0", "assigner-1")
    rolling.start("reclusterer", is_old=True)  # an assigner restores nothing before a model
    rolling.start("assigner-0", is_old=True)  # alone, so that only one of them compiles
    rolling.step("all old", ("assigner-1",), is_old=True)
    rolling.step("a new assigner beside them", ("assigner-2",), is_old=False)
    rolling.step("reclusterer new", ("reclusterer",), is_old=False)
    for name in fleet:
        rolling.step(f"{name} new", (name,), is_old=False)
    for name in reversed(fleet):
        rolling.step(f"{name} old again", (name,), is_old=True)
    rolling.step("all old again", ("assigner-2", "reclusterer"), is_old=True)
    rolling.step("forward once more, at once", ("reclusterer", *fleet), is_old=False)
    return writer.n_written, rolling.finish()
