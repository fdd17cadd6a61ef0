"""What the page is tested on: Debian's packages through the real services, in one process.

The broker is the twin in memory, so that hours of a stream pass in seconds; the server listens on a
real port. A history of a few hours is told by :func:`told`; from then on it is a stage's own time
(`Stage.live`), in which a thread turns everybody.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._inprocess import InProcess
from pipeline.cli.demo.debian import Change, Packages, load
from pipeline.cli.demo.portrait import portraits
from pipeline.clustering.centroids import CentroidPolicy
from pipeline.clustering.drift.policy import DriftPolicy
from pipeline.clustering.kmeans import ClusteringPolicy
from pipeline.clustering.schedule import ReclusterPolicy
from pipeline.config import Config, ServerPolicy
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.commands import Command, CommandType, encode_command
from pipeline.messages.policy import EmbeddingPolicy
from pipeline.services.server.listening import Listening
from pipeline.services.server.process import Server
from pipeline.services.server.reports import ServerReports
from pipeline.streams.topics import TopicPolicy
from pipeline.telemetry.health import Health
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics

KERNELS = CpuKernels(threads=1)
STEP_S = 60.0
HOUR_S = 3600.0
NEVER = 1e9
N_TURNS = 60
"""Seconds in which a fit is swept through, and all labels are set."""
N_BEGUN = 250
"""Changes of the last release that the history tells."""
PAGE = Path(__file__).parents[2] / "pipeline" / "web"


def configured(
    dimensions: int, n_clusters: int, bootstrap_items: int, policy: ServerPolicy | None = None
) -> Config:
    """No fit but the first, and those on command."""
    return Config(
        topics=TopicPolicy(partitions=3),
        embedding=EmbeddingPolicy(dimensions=dimensions, metric="cosine"),
        clustering=ClusteringPolicy(n_clusters),
        recluster=ReclusterPolicy(
            bootstrap_items=bootstrap_items,
            bootstrap_max_wait_s=60.0,
            max_updates=10**9,
            max_age_s=NEVER,
            on_drift=False,
            max_inertia_growth=None,
            keep_epochs=8,
        ),
        # a revision every few minutes: a sweep of all items each
        centroids=CentroidPolicy(min_interval_s=300.0, max_interval_s=600.0),
        drift=DriftPolicy(window=256, arl0=2000),
        server=policy or ServerPolicy(port=0),
    )


class Stage(InProcess):
    """Services, and a server that follows them; everything turns in whoever's thread calls."""

    def __init__(self, config: Config, now_s: float) -> None:
        super().__init__(config, KERNELS, n_assigners=1)
        self.now_s = now_s
        self.broker.now_ms = int(now_s * 1000)
        self.server: Server | None = None
        self.labelled: set[str] = set()
        for assigner in self.assigners:  # in leaps of a minute it would be proofs and nothing else
            assigner.checks._again_at = float("inf")
        self.turning = threading.Lock()
        """Held by whoever writes or turns: the twin of the broker is for one thread."""

    def turn(self) -> None:
        self.broker.now_ms = int(self.now_s * 1000)
        super().turn()
        self.follow()

    def follow(self) -> None:
        """The server takes in what there is."""
        if self.server is not None:
            self.server.step()

    def start_server(self, config: Config | None = None) -> Server:
        """A server, as far as all there is; one that was there before is closed."""
        if self.server is not None:
            self.server.close()
        metrics = Metrics("server")
        reports = ServerReports(get_logger(), metrics, Health("server", poll_timeout_s=1.0))
        self.server = Server(
            config or self.config,
            self.broker,
            KERNELS,
            input_is_compacted=True,
            reports=reports,
            now=lambda: self.now_s,
        )
        for _ in range(10_000):
            self.server.step()
            if self.server.follower.is_caught_up:
                break
        for _ in range(5):
            self.server.step()
        return self.server

    def ask(self, kind: CommandType, **fields: object) -> None:
        """A command, as the server would write it."""
        self._n_commands += 1
        key, value = encode_command(Command(f"stage-{self._n_commands}", kind, **fields))
        self.broker.append(self.config.topics.commands, 0, key, value)

    @contextmanager
    def live(self, port: int = 0) -> Iterator[Running]:
        """Listen, and let time pass, until the end of the block."""
        running = Running(self, port)
        try:
            yield running
        finally:
            running.close()


class Running:
    """A stage in its own time, and a server that can be stopped and started again.

    Attributes
    ----------
    port
        The same over restarts.
    users
        Called at each turn, by the thread that turns: somebody who writes.
    """

    def __init__(self, stage: Stage, port: int = 0) -> None:
        self.stage = stage
        self.port = port or _free_port()
        self.users: list[Callable[[], None]] = []
        self._stop = threading.Event()
        self._listening: Listening | None = None
        self.start()
        self._thread = threading.Thread(target=self._turn, name="stage", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.stage.config.server.root_path}/"

    def start(self) -> None:
        """The server listens."""
        with self.stage.turning:
            server = self.stage.server or self.stage.start_server()
        policy = replace(self.stage.config.server, port=self.port)
        self._listening = Listening(server.app, policy, server._reports)

    def kill(self) -> None:
        """The server is gone."""
        assert self._listening is not None
        with self.stage.turning:
            server, self.stage.server = self.stage.server, None
        if server is not None:
            server.streams.drain()
        self._listening.close()
        if server is not None:
            server.close()
        self._listening = None

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)
        if self._listening is not None:
            self.kill()

    def _turn(self) -> None:
        shift_s = self.stage.now_s - time.time()  # it goes on where the history ended
        while not self._stop.is_set():
            with self.stage.turning:
                for user in self.users:
                    user()
                self.stage.now_s = max(self.stage.now_s, time.time() + shift_s) - 1.0
                self.stage.turn()  # a second passes in there
                for _ in range(3):
                    self.stage.follow()
            self._stop.wait(0.02)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# --- the history ------------------------------------------------------------------------------


def told(n_clusters: int = 40, policy: ServerPolicy | None = None) -> Stage:
    """Four releases of Debian within as many hours, the fifth has begun; labels are words."""
    packages = load()
    releases = [changes for _, changes in packages.releases()]
    config = configured(packages.vectors.shape[1], n_clusters, len(releases[0]), policy)
    stage = Stage(config, time.time() - 3.4 * HOUR_S)
    rows: dict[str, int] = {}
    stage.start_server()
    _write(stage, packages, releases[0], rows)
    _turn(stage)
    _label(stage, packages, rows)
    for number, changes in enumerate(releases[1:4]):
        _pass(stage, packages, changes, rows, HOUR_S * (0.9, 1.0, 1.1)[number])
        stage.ask(CommandType.RECLUSTER, cold=number == 1, force=True)
        _turn(stage)
        _label(stage, packages, rows)
    _pass(stage, packages, releases[4][:N_BEGUN], rows, 0.3 * HOUR_S)
    for _ in range(20):
        stage.follow()
    return stage


def trickle(stage: Stage, per_turn: float = 0.2) -> Callable[[], None]:
    """A user who goes on with the fifth release, a few changes a second."""
    packages = load()
    waiting = iter([changes for _, changes in packages.releases()][4][N_BEGUN:])
    owed = 0.0

    def write() -> None:
        nonlocal owed
        owed += per_turn
        while owed >= 1.0:
            owed -= 1.0
            change = next(waiting, None)
            if change is not None:
                vector = None if change.row < 0 else packages.vectors[change.row]
                stage.write(change.package, vector)

    return write


def _turn(stage: Stage, n: int = N_TURNS) -> None:
    for _ in range(n):
        stage.turn()


def _pass(
    stage: Stage, packages: Packages, changes: Sequence[Change], rows: dict[str, int], span_s: float
) -> None:
    """Changes come evenly over a span of time."""
    n_steps = max(1, round(span_s / STEP_S))
    for part in np.array_split(np.arange(len(changes)), n_steps):
        _write(stage, packages, [changes[i] for i in part.tolist()], rows)
        stage.turn()
        stage.turn()
        stage.now_s += STEP_S - 2.0


def _write(
    stage: Stage, packages: Packages, changes: Sequence[Change], rows: dict[str, int]
) -> None:
    stage.broker.now_ms = int(stage.now_s * 1000)
    for change in changes:
        if change.row < 0:
            rows.pop(change.package, None)
            stage.write(change.package, None)
        else:
            rows[change.package] = change.row
            stage.write(change.package, packages.vectors[change.row])


def _label(stage: Stage, packages: Packages, rows: dict[str, int]) -> None:
    """Every cluster is called by the words that set its packages apart."""
    picture = stage.picture()
    manifest = picture.model.manifest
    centroids = {
        cluster: picture.model.centroids[label].astype(np.float32)
        for label, cluster in enumerate(manifest.clusters)
    }
    members = {
        item: (cluster, rows[item]) for item, cluster in picture.clusters.items() if item in rows
    }
    drawn = portraits(members, packages.summaries, packages.vectors, centroids)
    for cluster in drawn.keys() - stage.labelled:  # who has a name keeps it
        stage.ask(CommandType.LABEL, cluster=cluster, label=drawn[cluster].about)
        stage.labelled.add(cluster)
    _turn(stage)
