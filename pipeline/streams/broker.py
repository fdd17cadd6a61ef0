"""A real Apache Kafka on this machine: one node, on loopback, in a folder.

`eddy broker`, the demo and the tests start it here and nowhere else: as a Java process where
:mod:`pipeline.streams.jars` can bring what it needs, else in a container.

A broker ends with the process that started it (:mod:`pipeline.streams.guard`), and its data stay
in its folder: started there again, it goes on where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from pipeline.errors import FatalError
from pipeline.streams import guard
from pipeline.streams.container import ContainerHost, docker_answers
from pipeline.streams.jars import (
    KAFKA_VERSION,
    Runtime,
    Say,
    cluster_id,
    find_runtime,
    last_words,
)
from pipeline.streams.node import Node

_START_LIMIT_S: Final = 90.0
_STOP_LIMIT_S: Final = 30.0
_PORT_LIMIT_S: Final = 3.0
_N_PORT_TRIES: Final = 5
_STARTED: Final = "Kafka Server started"
_TAKEN: Final = ("Address already in use", "Failed to bind", "port is already allocated")

_INSTALL: Final = (
    "install Java 17 or newer and Maven, or pip install 'eddy-stream[broker]', or start "
    "Docker; or set kafka.bootstrap.servers to a broker that runs already"
)


def start_broker(
    directory: Path | None,
    *,
    port: int = 0,
    extra: Mapping[str, str] | None = None,
    heap: str = "512m",
    node: Node | None = None,
    say: Say = lambda _: None,
) -> RunningBroker:
    """Start Apache Kafka and return once it takes clients.

    Parameters
    ----------
    directory
        Where its data live; made if missing. A broker that was there before comes back with its
        topics, and with its port where that is still free. None: a scratch folder, removed
        by `RunningBroker.close` or with this process.
    port
        0: any free one.
    extra
        Server properties, over those set here; ``{port}`` and ``{controller_port}`` in a value
        stand for the ports taken.
    heap
        The Java heap, as ``-Xmx`` takes it.
    node
        How it is formatted; None: a cluster of its own.
    say
        Told what takes long, for people.

    Raises
    ------
    FatalError
        What is missing and how to install it, or the last lines of the broker's log.
    """
    if directory is None:
        folder, scratch = Path(tempfile.mkdtemp(prefix="eddy-broker-")), True
    else:
        folder, scratch = directory.resolve(), False
        folder.mkdir(parents=True, exist_ok=True)
    try:
        host = _find_host(heap, folder if scratch else None, say)
        broker = RunningBroker(
            folder, host, port, extra or {}, scratch=scratch, node=node or Node()
        )
        broker.start()
    except BaseException:
        if scratch:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return broker


class RunningBroker:
    """A broker of ours; also a context manager that closes it."""

    def __init__(
        self,
        directory: Path,
        host: _Host,
        port: int,
        extra: Mapping[str, str],
        *,
        scratch: bool,
        node: Node,
    ) -> None:
        self.directory = directory
        self._host = host
        self._asked_port = port
        self._extra = dict(extra)
        self._scratch = scratch
        self._node = node
        self._ports = (0, 0)
        self._lock: int | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """Of the Java process, to send it signals. In a container: as the machine sees it."""
        return self._host.pid

    @property
    def log(self) -> Path:
        """What the broker has written, all starts in a row."""
        return self.directory / "broker.log"

    def is_running(self) -> bool:
        return self._host.is_running()

    def start(self) -> None:
        """Start it, if it does not run; the first time on a free port, then on the same one."""
        if self._host.is_running():
            return
        self._take_folder()
        try:
            self._start()
        except BaseException:
            self._leave_folder()
            raise

    def kill(self) -> None:
        """SIGKILL, as if the machine lost power; returns once it is gone."""
        self._host.kill()
        self._leave_folder()

    def stop(self) -> None:
        """End it in order. Does nothing to one that does not run."""
        self._host.stop()
        self._leave_folder()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same data and port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it for good; a scratch folder goes, and no time is lost on a clean end of it."""
        if self._scratch:
            self.kill()
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        # who restarts it has told others the address, so that one has to come free
        port = self._ports[0] or self._asked_port
        ports = self._ports if self._ports[0] else self._read_ports()
        for _ in range(_N_PORT_TRIES):
            data_port = port or ports[0]
            controller_port = self._node.controller_port or ports[1]
            if port:
                _await_free(port)
            elif not _is_free(data_port):
                data_port = _free_port()
            if not _is_free(controller_port):
                controller_port = _free_port()
            self._write_properties(data_port, controller_port)
            problem = self._run(data_port)
            if problem is None:
                self._ports = (data_port, controller_port)
                return
            self._host.kill()
            if not any(words in problem for words in _TAKEN):
                raise FatalError(f"Kafka did not start in {self.directory}:\n{problem}")
            ports = (0, 0)  # somebody was faster: others
        raise FatalError(f"Kafka found its ports taken {_N_PORT_TRIES} times: {problem}")

    def _take_folder(self) -> None:
        """Kafka's own lock comes too late: by then the controller has fenced the first one."""
        if self._lock is not None:
            return
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise FatalError(f"another broker runs in {self.directory}") from error
        self._lock = lock

    def _leave_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read_ports(self) -> tuple[int, int]:
        path = self.directory / "server.properties"
        if not path.exists():
            return 0, 0
        listeners = r"^listeners=\w+://.*?:(\d+),CONTROLLER://.*?:(\d+)"
        found = re.search(listeners, path.read_text(), re.M)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _write_properties(self, port: int, controller_port: int) -> None:
        listen = self._host.listen_address
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            # not controller.quorum.voters, which excludes a format with --standalone
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "3",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            # the default does not fit a small heap
            "log.cleaner.dedupe.buffer.size": "8388608",
            # after a kill the controller refuses the node until its session ends: 9 s by default
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
        } | self._extra
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        text = text.replace("{port}", str(port)).replace("{controller_port}", str(controller_port))
        (self.directory / "server.properties").write_text(text)

    def _run(self, port: int) -> str | None:
        """Start the process and wait until it takes clients; else what its log says."""
        log_from = self.log.stat().st_size if self.log.exists() else 0

        def news() -> str:
            with self.log.open("rb") as log:
                log.seek(log_from)
                return log.read().decode(errors="replace")

        self._host.start(self.directory, self.log, port, self._node)
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            if not self._host.is_running():
                return last_words(news())
            if _STARTED in news() and _accepts(port):
                return None
            time.sleep(0.05)
        return f"no answer at port {port} after {_START_LIMIT_S:.0f} s\n{last_words(news())}"


class _Host(Protocol):
    """What a broker runs in."""

    listen_address: str

    @property
    def pid(self) -> int: ...
    def start(self, directory: Path, log: Path, port: int, node: Node) -> None: ...
    def is_running(self) -> bool: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...


class _JavaHost:
    """A Java process under a guard."""

    listen_address = "127.0.0.1"

    def __init__(self, java: Path, jars: Path, heap: str, scratch: Path | None) -> None:
        self._java = java
        self._classpath = str(jars / "*")
        self._heap = heap
        self._scratch = scratch
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        return self._pid

    def start(self, directory: Path, log: Path, port: int, node: Node) -> None:
        small = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        properties = str(directory / "server.properties")
        base = [str(self._java), *small, "-cp", self._classpath]
        with log.open("ab") as out:
            if not (directory / "data" / "meta.properties").exists():
                tool = ["kafka.tools.StorageTool", "format", *node.format_with]
                command = [*base, *tool, "-t", node.cluster_id or cluster_id(), "-c", properties]
                format_ = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
                if format_.returncode:
                    return  # the log says why, and nothing runs
            command = [*base[:1], f"-Xmx{self._heap}", *base[1:], "kafka.Kafka", properties]
            guarded = [sys.executable, "-I", "-S", guard.__file__]
            guarded += [str(os.getpid()), str(self._scratch or ""), *command]
            # a session of its own: Ctrl-C is for the services first, which need a broker to end
            self._guard = subprocess.Popen(
                guarded,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                cwd=directory,
                start_new_session=True,
            )
        assert self._guard.stdout is not None
        with self._guard.stdout as said:
            self._pid = int(said.readline() or 0)

    def is_running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._guard is None or self._guard.poll() is not None or not self._pid:
            return
        with contextlib.suppress(ProcessLookupError):  # gone, and the guard is about to notice
            os.kill(self._pid, number)
        try:
            self._guard.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.kill(self._pid, signal.SIGKILL)
            self._guard.wait()


def _find_host(heap: str, scratch: Path | None, say: Say) -> _Host:
    """Java and jars from wherever they can be had, else Docker."""
    runtime = find_runtime(say)
    if isinstance(runtime, Runtime):
        return _JavaHost(runtime.java, runtime.jars, heap, scratch)
    if docker_answers():
        say(f"starting Apache Kafka {KAFKA_VERSION} in a container ({runtime})")
        return ContainerHost(heap)
    raise FatalError(f"Apache Kafka cannot run here: {runtime}, and no Docker answers; {_INSTALL}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    """Whether a server could listen there; port 0 is none."""
    if port == 0:
        return False
    with socket.socket() as probe:
        # as servers do: what a predecessor's connections left behind is no obstacle
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _await_free(port: int) -> None:
    deadline = time.monotonic() + _PORT_LIMIT_S
    while not _is_free(port):
        if time.monotonic() > deadline:
            raise FatalError(f"port {port} is taken; stop what listens there, or take another")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True
