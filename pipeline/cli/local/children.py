"""The services of one Eddy as child processes: started, watched, started again, ended.

A child that dies is started again, later each time, and after a few deaths in a row given
up; one that says its configuration or its use is wrong is given up at once, since a restart
would only say it again. Children end with this process, also when it is killed
(:mod:`pipeline.streams.guard`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from pipeline.errors import ConfigError, FatalError, UsageError
from pipeline.streams import guard

OnLine = Callable[[str, str], None]
"""Given a child's name and a line it wrote."""

_HOPELESS: Final = (ConfigError.exit_code, UsageError.exit_code)
_STOP_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a child that dies gets another chance."""

    max_restarts: int = 5
    """In a row; then it is given up."""
    backoff_s: float = 0.5
    """Before the first restart; doubled for each further one."""
    max_backoff_s: float = 10.0
    healthy_s: float = 60.0
    """One that lived this long starts counting anew."""

    def delay_s(self, n_deaths: int) -> float:
        """How long to wait after the ``n_deaths``-th death in a row (from 1)."""
        return min(self.backoff_s * 2.0 ** (n_deaths - 1), self.max_backoff_s)


def service_commands(flags: Sequence[str], *, n_assigners: int = 1) -> dict[str, list[str]]:
    """How to start a reclusterer and the assigners.

    Parameters
    ----------
    flags
        The words before the verb: ``--config PATH``, ``--set key=value``.
    n_assigners
        They share the partitions. More than one get instance names of their own.
    """
    # a free port each: they share this machine's address
    base = [sys.executable, "-m", "pipeline.cli", *flags, "--set", "telemetry.metrics_port=0"]
    commands = {"reclusterer": [*base, "reclusterer"]}
    if n_assigners == 1:
        return commands | {"assigner": [*base, "assigner"]}
    for n in range(1, n_assigners + 1):
        own = ["--set", f"instance={socket.gethostname()}-{n}"]
        commands[f"assigner-{n}"] = [*base, *own, "assigner"]
    return commands


@dataclass(slots=True)
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[str] | None = None
    pid: int = 0
    reader: threading.Thread | None = None
    started_at: float = 0.0
    due_at: float | None = None
    n_deaths: int = 0
    last_words: list[str] = field(default_factory=list)


class Services:
    """Child processes that belong together; a context manager that ends them when it is left.

    Parameters
    ----------
    commands
        By name; see `service_commands`.
    on_line
        Called from threads, one at a time per child; what it raises is lost.
    policy
        About children that die.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        on_line: OnLine = lambda name, line: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._on_line = on_line
        self._policy = policy or RestartPolicy()
        self._children = [_Child(name, command) for name, command in commands.items()]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the children, as `on_line` gets them."""
        return tuple(child.name for child in self._children)

    @property
    def pids(self) -> dict[str, int]:
        """Of those that run; to send them signals."""
        return {c.name: c.pid for c in self._children if c.process and c.process.poll() is None}

    def start(self) -> None:
        """Start them all; returns at once."""
        for child in self._children:
            self._start(child)

    def check(self) -> None:
        """Start again what died and whose time has come.

        Raises
        ------
        FatalError
            One was given up: which, and its last words.
        """
        now = time.monotonic()
        for child in self._children:
            if child.due_at is not None:
                if now >= child.due_at:
                    self._start(child)
            elif child.process is not None and child.process.poll() is not None:
                self._bury(child, now)

    def wait(self, stop: threading.Event) -> None:
        """`check` until ``stop`` is set."""
        while not stop.wait(0.2):
            self.check()

    def stop(self, limit_s: float = _STOP_LIMIT_S) -> None:
        """SIGTERM to all, SIGKILL to what has not ended after ``limit_s``. Idempotent."""
        for child in self._children:
            child.due_at = None
        running = [c for c in self._children if c.process and c.process.poll() is None]
        for child in running:
            assert child.process is not None
            child.process.terminate()  # the guard passes it on
        deadline = time.monotonic() + limit_s
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                if child.pid:  # still the child's: its guard lives, and reaps it before it ends
                    os.kill(child.pid, signal.SIGKILL)
                child.process.wait()
        for child in self._children:
            if child.reader is not None:
                child.reader.join()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self, child: _Child) -> None:
        child.due_at = None
        child.started_at = time.monotonic()
        child.last_words.clear()
        # a group of its own: Ctrl-C is for this process, which ends the others in order
        child.process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), "", *child.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert child.process.stdout is not None
        with child.process.stdout as said:
            child.pid = int(said.readline() or 0)
        child.reader = threading.Thread(target=self._read, args=(child, child.process), daemon=True)
        child.reader.start()

    def _read(self, child: _Child, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # where the guard sends both of the child's streams
        with process.stderr as lines:
            for line in lines:
                line = line.rstrip("\n")
                child.last_words = [*child.last_words[-4:], line]
                self._on_line(child.name, line)

    def _bury(self, child: _Child, now: float) -> None:
        """Plan a restart of a child that died, or give it up."""
        assert child.process is not None
        assert child.reader is not None
        child.reader.join()
        code = child.process.returncode
        child.n_deaths = (
            1 if now - child.started_at > self._policy.healthy_s else child.n_deaths + 1
        )
        hopeless = code in _HOPELESS
        if hopeless or child.n_deaths > self._policy.max_restarts:
            why = f"ended with exit code {code}"
            if not hopeless:
                why += f", {child.n_deaths} times in a row"
            words = next((w for w in reversed(child.last_words) if w.strip()), "it said nothing")
            raise _GivenUpError(f"{child.name} {why}: {words}", code)
        delay_s = self._policy.delay_s(child.n_deaths)
        self._on_line(child.name, f"ended with exit code {code}; again in {delay_s:g} s")
        child.due_at = now + delay_s


class _GivenUpError(FatalError):
    """A child failed for good; this process ends with the child's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if 0 < code < 128 else FatalError.exit_code  # type: ignore[misc]
