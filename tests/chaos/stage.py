"""What faults are done to: services, servers, brokers and the network; and who tends them."""

from __future__ import annotations

import heapq
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.cli.local.children import RestartPolicy, Services, service_commands
from pipeline.messages.records import Outgoing
from tests.chaos.asking import Address
from tests.chaos.cluster import SESSION_S, Cluster
from tests.chaos.proxy import free_port
from tests.kafka.site import Site, until

HERE = Path(__file__).parent
RULES = RestartPolicy(max_restarts=1000, backoff_s=0.2, max_backoff_s=1.0)
START_LIMIT_S = 45.0
RIVAL_LIMIT_S = 20.0
"""The first one may have just been killed or sent to sleep."""
OnLine = Callable[[str, str], None]


class Heard(NamedTuple):
    """What a service logged."""

    name: str
    event: str


def send(pid: int, number: signal.Signals) -> bool:
    """Whether there was somebody to get it: one may end by itself meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Clock:
    """The wall clock of all services, which can be moved while they run."""

    def __init__(self, folder: Path) -> None:
        self.why_not: str | None = None
        self._file, library = folder / "clock", folder / "clock.so"
        self.shift(0.0)
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            self.why_not = "no C compiler" if compiler is None else "only Linux lets us"
            return
        options = ["-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "clock.c")]
        subprocess.run([compiler, *options, "-ldl"], check=True)
        self._library = library

    @property
    def words(self) -> list[str]:
        """Before a command, so that it obeys this clock."""
        if self.why_not:
            return []
        return [f"LD_PRELOAD={self._library}", f"CHAOS_CLOCK={self._file}"]

    def is_obeyed_by(self, pid: int) -> bool:
        """Whether a process has it in its memory, and so jumps with it."""
        try:
            return str(self._file) in Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False

    def shift(self, seconds: float) -> None:
        """Against true time; in place, since the services have mapped the file."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("<q", round(seconds * 1e9)))


class Disk:
    """The folder of the state: small, so that it can be full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self.folder.mkdir()
        self.why_not: str | None = None
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.is_mounted = done.returncode == 0
            if not self.is_mounted:
                self.why_not = f"no small disk: {done.stderr.strip()}"
        except FileNotFoundError:
            self.is_mounted, self.why_not = False, "no small disk: there is no mount"

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.is_mounted:
            self.is_mounted = False
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Stage:
    """Does what a fault needs, and starts again what died."""

    def __init__(
        self,
        site: Site,
        cluster: Cluster,
        rng: np.random.Generator,
        folder: Path,
        *,
        clock: Clock,
        disk: Disk,
        on_line: OnLine,
        n_assigners: int,
        n_servers: int,
        transactions: str,
        answers: str,
        places: tuple[str, ...],
    ) -> None:
        self.heard: list[Heard] = []
        self.site, self.cluster, self.rng, self.folder = site, cluster, rng, folder
        self.clock, self.disk, self.places = clock, disk, places
        self._tell = on_line
        self._began: dict[str, int] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._asleep: set[int] = set()
        self._numbers = count()
        self._rivals: list[Services] = []
        # ports that stay: whoever asks a server finds the next process where the last one was
        self.addresses = tuple(
            Address(f"server-{n + 1}", free_port(), free_port()) for n in range(n_servers)
        )
        self.commands = self._commands(n_assigners, transactions)
        self.services = Services(self.commands, policy=RULES, on_line=self._hear)
        commands = self._server_commands(answers)
        self.servers = Services(commands, policy=RULES, on_line=self._hear)

    @property
    def _flags(self) -> list[str]:
        # the last one counts: services go through the proxies
        return [*self.site.flags, "--set", f"kafka.bootstrap.servers={self.cluster.bootstrap}"]

    @property
    def _base(self) -> list[str]:
        return ["env", f"CHAOS_FOLDER={self.folder}", *self.clock.words]

    def _commands(self, n_assigners: int, transactions: str) -> dict[str, list[str]]:
        found = {}
        for name, words in service_commands(self._flags, n_assigners=n_assigners).items():
            kind = transactions if name.startswith("assigner") else "Whole"
            ours = [f"CHAOS_TRANSACTIONS={kind}", sys.executable, str(HERE / "service.py")]
            found[name] = [*self._base, *ours, *words[3:]]
        return found

    def _server_commands(self, answers: str) -> dict[str, list[str]]:
        found = {}
        for name, port, ops_port in self.addresses:
            ours = [f"CHAOS_ANSWERS={answers}", sys.executable, str(HERE / "service.py")]
            own = [f"server.port={port}", f"telemetry.metrics_port={ops_port}", f"instance={name}"]
            flags = [word for setting in own for word in ("--set", setting)]
            found[name] = [*self._base, *ours, *self._flags, *flags, "server"]
        return found

    @property
    def _all(self) -> tuple[Services, ...]:
        return (self.services, self.servers, *self._rivals)

    @property
    def pids(self) -> dict[str, int]:
        """Of services and servers that run."""
        return {**self.services.pids, **self.servers.pids}

    # --- time goes on ---------------------------------------------------------------

    def wait(self, duration_s: float) -> None:
        """Go on for so long; a supervisor never rests."""
        ends_at = time.monotonic() + duration_s
        while time.monotonic() < ends_at:
            self.tend()
            time.sleep(0.05)

    def tend(self) -> None:
        """Do what is due, wake who fell asleep in a commit, start again what ended."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        for nap in self.folder.glob("nap.*"):
            self.sleep(int(nap.suffix[1:]))
            nap.unlink()
        for crash in self.folder.glob("crash.*"):
            crash.unlink()
        for services in self._all:
            services.check()

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), action))

    def settle(self) -> None:
        """Wait for what is still to be undone."""
        while self._later:
            self.wait(0.1)

    def aside(self, work: Callable[[], object]) -> None:
        """Work that takes long, in a thread, while this one tends."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 raised below
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while thread.is_alive():
            self.wait(0.05)
        if errors:
            raise errors[0]

    # --- what services say ----------------------------------------------------------

    def _hear(self, name: str, line: str) -> None:
        self._tell(name, line)
        with suppress(ValueError, KeyError, TypeError):  # what others print is no event
            event = json.loads(line)["event"]
            if event == "service_started":
                self._began[name] = self.pids.get(name, 0)
            self.heard.append(Heard(name, event))

    def has_said(self, event: str, since: int, *names: str) -> bool:
        """Whether one of these (else any) logged it, after `heard` had ``since`` entries."""
        told = self.heard[since:]
        return any(one.event == event and (not names or one.name in names) for one in told)

    def comes_true(self, is_so: Callable[[], bool], limit_s: float) -> bool:
        """Wait for it, but not for ever."""
        gives_up_at = time.monotonic() + limit_s
        while not (found := is_so()) and time.monotonic() < gives_up_at:
            self.wait(0.05)
        return found

    # --- what faults are made of ----------------------------------------------------

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def anybody(self) -> int:
        """The process of some service that is awake and at work."""
        found: dict[str, int] = {}

        def look() -> bool:
            self.tend()
            pids = self.pids.items()
            at_work = {n: p for n, p in pids if p and self._began.get(n) == p}
            found.update({n: p for n, p in at_work.items() if p not in self._asleep})
            return bool(found)

        until(look, "some process runs")
        return found[str(self.rng.choice(sorted(found)))]

    def order(self, what: str, place: str, limit_s: float) -> bool:
        """Have who comes to a place of a transaction first do something; whether anybody did."""
        order, new = self.folder / what, self.folder / "order"
        new.write_text(place)
        new.rename(order)
        if self.comes_true(lambda: not order.exists(), limit_s):
            return True
        try:
            order.rename(new)
        except FileNotFoundError:  # in the last moment
            return True
        return False

    def sleep(self, pid: int) -> bool:
        """Stop a process for longer than its session; whether it was there."""
        is_there = send(pid, signal.SIGSTOP)
        self._asleep.add(pid)

        def wake() -> None:
            self._asleep.discard(pid)
            send(pid, signal.SIGCONT)

        self.later(SESSION_S + self.uniform(0.5, 3.0), wake)
        return is_there

    def rival(self, name: str, duration_s: float) -> bool:
        """A second process like one of the services; killed so long after one fenced the other.

        Returns
        -------
        bool
            Whether one of the two said that it was fenced.
        """
        rival, began = f"{name}-rival", len(self.heard)
        services = Services({rival: self.commands[name]}, policy=RULES, on_line=self._hear)
        services.start()
        self._rivals.append(services)

        found = self.comes_true(
            lambda: self.has_said("service_started", began, rival), START_LIMIT_S
        ) and self.comes_true(
            lambda: self.has_said("producer_fenced", began, name, rival), RIVAL_LIMIT_S
        )
        self.wait(duration_s)
        self._rivals.remove(services)
        for pid in services.pids.values():
            send(pid, signal.SIGKILL)
        services.stop()
        return found

    def close(self) -> None:
        for services in self._all:
            for pid in services.pids.values():
                send(pid, signal.SIGCONT)
            services.stop()
        self.disk.close()

    def ask_for_a_fit(self) -> None:
        command = f"command-{self.site.n_commands}".encode()
        value = json.dumps({"type": "recluster", "force": True}).encode()
        self.site.write([Outgoing(self.site.topics.commands, 0, command, value)])
        self.site.n_commands += 1

    def answers(self) -> dict[object, str]:
        """Command -> its outcome; the judge counts that it has one only."""
        self.tend()
        told = self.site.values(self.site.topics.lifecycle)
        return {
            event["command"]: str(event["type"])
            for event in told
            if event["type"] in ("installed", "rejected") and event["command"] is not None
        }
