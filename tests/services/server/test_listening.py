"""Real sockets: an address of its own, clients that dawdle, and an end."""

from __future__ import annotations

import socket
import time
from urllib.request import urlopen

import pytest

from pipeline.config import ServerPolicy
from pipeline.errors import ConfigError
from pipeline.services.server import listening
from pipeline.services.server.listening import Listening


@pytest.fixture
def running(corners):
    with Listening(corners.server.app, ServerPolicy(port=0), corners.server._reports) as running:
        yield running


def test_a_question_is_answered_over_the_network(running):
    url = f"http://127.0.0.1:{running.port}/api/v1/clusters"

    with urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        assert "uvicorn" not in str(answer.headers).lower()


def test_an_address_that_is_taken_is_named(corners, running):
    with pytest.raises(ConfigError, match=f"127.0.0.1 and {running.port}"):
        Listening(corners.server.app, ServerPolicy(port=running.port), corners.server._reports)


@pytest.mark.parametrize("said", [b"", b"GET /api/v1/clusters HTTP/1.1\r\nHost: "])
def test_a_client_that_never_ends_its_head_is_shown_out(running, monkeypatch, said):
    monkeypatch.setattr(listening._Impatient, "head_s", 0.2)

    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        client.sendall(said)
        assert client.recv(100) == b""


def test_a_client_that_asks_twice_on_one_connection_is_not(running, monkeypatch):
    monkeypatch.setattr(listening._Impatient, "head_s", 0.5)
    question = b"GET /problems/not-found HTTP/1.1\r\nHost: x\r\n\r\n"

    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
        for _ in range(2):
            client.sendall(question)
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200")
        client.sendall(question[:20])  # negative control: the third never ends
        assert client.recv(100) == b""


def test_no_second_part_of_a_reply_waits_for_a_receipt_of_the_first(running, monkeypatch):
    options, made = [], listening._Impatient.connection_made

    def noted(self, transport):
        accepted = transport.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(listening._Impatient, "connection_made", noted)
    with urlopen(f"http://127.0.0.1:{running.port}/problems/not-found", timeout=30):
        pass

    assert options and all(options)


def test_a_server_that_ends_leaves_its_address(corners):
    running = Listening(corners.server.app, ServerPolicy(port=0), corners.server._reports)
    began_at = time.monotonic()

    running.close()

    assert time.monotonic() - began_at < 20
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", running.port), timeout=5)
