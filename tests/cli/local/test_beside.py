"""The server beside the others: its port, its address, and what it lacks."""

from __future__ import annotations

import socket
import sys

from pipeline.cli.local.beside import missing_library, server_beside
from pipeline.config import Config, ServerPolicy


def test_the_configured_port_is_taken_where_it_is_free():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    server = server_beside(Config(server=ServerPolicy(port=port)), ["--set", "a=b"])

    assert server.url == f"http://127.0.0.1:{port}"
    assert not server.is_elsewhere
    assert server.command[3:5] == ["--set", "a=b"]
    assert server.command[-3:] == ["--set", f"server.port={port}", "server"]


def test_another_port_is_found_where_it_is_not():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        server = server_beside(Config(server=ServerPolicy(port=port)), [])

    assert server.is_elsewhere
    assert not server.url.endswith(f":{port}")


def test_a_server_for_everybody_is_asked_on_this_machine():
    assert server_beside(Config(server=ServerPolicy(host="0.0.0.0", port=0)), []).url.startswith(
        "http://127.0.0.1:"
    )


def test_what_is_not_installed_is_named(monkeypatch):
    assert missing_library() is None
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert missing_library() == "uvicorn"
