"""The command as a person runs it: processes, a real broker, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.messages.codec import encode_change
from pipeline.messages.events import ClusterChange
from pipeline.messages.policy import EventPolicy
from pipeline.messages.records import Outgoing
from pipeline.streams.kafka.broker import KafkaBroker
from tests.cli.console import TOPICS, change
from tests.cli.local.test_children import is_running, until

pytestmark = pytest.mark.kafka

EDDY = [sys.executable, "-m", "pipeline.cli"]


def shell(**settings: str) -> dict[str, str]:
    """An environment with nothing of this one's configuration, but with what is given."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EDDY_")}
    return env | {"EDDY_EMBEDDING__DIMENSIONS": "3"} | settings


def run(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDDY, *arguments], capture_output=True, text=True, env=env, timeout=120, check=False
    )


@contextmanager
def running(
    *arguments: str, env: Mapping[str, str], to: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A command that goes on; the process, and what it has written so far."""
    with to.open("wb") as file:
        process = subprocess.Popen([*EDDY, *arguments], stdout=file, stderr=file, env=env)
    try:
        yield process, lambda: to.read_text(errors="replace")
    finally:
        process.kill()
        process.wait()


def test_a_broker_that_is_not_there_is_exit_code_4_after_some_seconds():
    with socket.socket() as bound:  # listens to nobody
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        began = time.monotonic()

        ended = run("topics", "check", env=shell(EDDY_KAFKA__BOOTSTRAP__SERVERS=address))

    assert ended.returncode == 4
    assert address in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert time.monotonic() - began < 20


def test_broker_topics_produce_and_watch_work_together(tmp_path):
    with running("broker", "--json", "--port", "0", env=shell(), to=tmp_path / "broker") as (
        broker,
        said,
    ):
        until(lambda: "bootstrap.servers" in said() or broker.poll() is not None, 120)
        told = json.loads(said().splitlines()[-1])
        env = shell(EDDY_KAFKA__BOOTSTRAP__SERVERS=told["kafka.bootstrap.servers"])

        assert run("topics", "check", env=env).returncode == 1
        assert run("topics", "create", env=env).returncode == 0
        assert run("topics", "check", env=env).returncode == 0
        wrong = run("topics", "check", "--set", "topics.partitions=3", env=env)
        assert wrong.returncode == 1
        assert "topics.partitions is 3" in wrong.stdout

        np.save(tmp_path / "v.npy", np.ones((1000, 3), np.float32))
        (tmp_path / "ids").write_text("".join(f"item-{i}\n" for i in range(1000)))
        produced = run("produce", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "ids"), env=env)
        assert produced.returncode == 0, produced.stderr
        assert "in embedding-changes" in produced.stdout

        with running(
            "watch", "--json", "-n", "2", "--timeout", "60", env=env, to=tmp_path / "watch"
        ) as (watch, seen):
            client = KafkaBroker({"bootstrap.servers": told["kafka.bootstrap.servers"]})
            producer = client.producer()

            def write_and_look() -> bool:  # it follows from the end, wherever that was
                write(producer.write, change(f"item-{time.monotonic_ns()}"))
                producer.flush()
                return watch.poll() is not None

            until(write_and_look, 60)
            assert watch.returncode == 0
            assert len([json.loads(line) for line in seen().splitlines()]) == 2

        broker.send_signal(signal.SIGTERM)
        assert broker.wait(60) == 0
        until(lambda: not is_running(told["pid"]))


def write(to: Callable[[Outgoing], None], event: ClusterChange) -> None:
    value, headers = encode_change(event, EventPolicy())
    to(Outgoing(TOPICS.changes, 0, event.item.encode(), value, headers))


def blobs(folder: Path, n: int) -> tuple[str, str]:
    """``n`` items in three heaps."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0]], np.float32)
    vectors = centres[np.arange(n) % 3] + rng.standard_normal((n, 3)).astype(np.float32) / 10
    np.save(folder / "v.npy", vectors.astype(np.float32))
    (folder / "ids").write_text("".join(f"item-{i}\n" for i in range(n)))
    return str(folder / "v.npy"), str(folder / "ids")


@contextmanager
def everything(
    folder: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str], dict[str, str]]]:
    """`eddy up` with a broker of its own; the process, what it says, the others' environment."""
    few = {
        "EDDY_CLUSTERING__CLUSTERS": "3",
        "EDDY_RECLUSTER__BOOTSTRAP_ITEMS": "300",
        "EDDY_DEVICE__KIND": "cpu",
    }
    with running("up", "--port", "0", *arguments, env=shell(**few), to=folder / "up") as (up, said):
        until(lambda: "Ctrl-C ends all" in said() or up.poll() is not None, 120)
        assert up.poll() is None, said()
        address = said().partition("broker ")[2].split()[0]
        yield up, said, shell(EDDY_KAFKA__BOOTSTRAP__SERVERS=address, **few)


def test_up_clusters_what_is_produced_and_ends_on_ctrl_c(tmp_path):
    with everything(tmp_path, "--assigners", "2") as (up, said, env):
        assert run("produce", *with_ids(blobs(tmp_path, 600)), env=env).returncode == 0

        seen = run("watch", "--from-beginning", "-n", "600", "--timeout", "90", "--json", env=env)
        assert seen.returncode == 0, said()
        events = [json.loads(line) for line in seen.stdout.splitlines()]
        assert {event["type"] for event in events} == {"assigned"}
        assert len({event["item"] for event in events}) == 600

        forced = run("recluster", "--force", "--wait", "--timeout", "90", env=env)
        assert forced.returncode == 0, forced.stderr + said()
        assert "published model 2.0" in forced.stdout
        shown = run("model", "show", "--json", env=env)
        assert [row["fitted"] for row in json.loads(shown.stdout)["clusters"]] == [200] * 3
        url = said().partition("server ")[2].split()[0]
        listed = run("clusters", "list", "--server", url, "--json", env=env)
        assert listed.returncode == 0, listed.stderr + said()
        assert [json.loads(line)["size"] for line in listed.stdout.splitlines()] == [200] * 3

        up.send_signal(signal.SIGINT)

        assert up.wait(60) == 0, said()
        assert "Traceback" not in said()


def test_nothing_is_left_of_up_when_it_is_killed(tmp_path):
    with everything(tmp_path) as (up, _, _):
        children = descendants(up.pid)
        assert len(children) >= 6  # three guards, two services and a broker

        up.kill()

        until(lambda: not any(is_running(pid) for pid in children))


def with_ids(paths: tuple[str, str]) -> tuple[str, str, str]:
    return paths[0], "--ids", paths[1]


def descendants(pid: int) -> list[int]:
    """Process ids below one, by ``ps``."""
    said = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    parents = [tuple(map(int, line.split())) for line in said.stdout.splitlines()]
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents if parent in new]
        found += new
    return found
