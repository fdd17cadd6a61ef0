"""`eddy top` against a real server: without a terminal, and in one."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

from pipeline.cli.main import main
from tests.kafka.site import environment, until

N_CLUSTERS = 4


def plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_one_frame_shows_what_the_server_says(living, client, capsys):
    assert main(["top", "--once", "--server", living.url]) == 0
    shown = plain(capsys.readouterr().out)
    stats = client.stats()
    assert f"items {stats.items}" in shown
    assert f"model {stats.model}" in shown
    for one in client.clusters():
        assert re.search(rf"^{one.cluster} .* {one.size} ", shown, re.MULTILINE), one


def test_json_is_one_line_of_the_same(living, client, capsys):
    assert main(["top", "--once", "--json", "--sort", "drift", "--server", living.url]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("{")]
    told = json.loads(line)
    assert told["stats"]["items"] == client.stats().items
    assert {row["cluster"]: row["size"] for row in told["clusters"]} == {
        one.cluster: one.size for one in client.clusters()
    }
    assert len(told["clusters"]) == N_CLUSTERS


def test_a_server_that_is_not_there_is_exit_code_4(capsys, monkeypatch):
    monkeypatch.setattr("pipeline.cli.asking._LIMIT_S", 0.1)
    assert main(["top", "--server", "http://127.0.0.1:9"]) == 4


def test_in_a_terminal_it_goes_on_until_q(living, client):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "pipeline.cli", "top", "--every", "0.2"]
    said = bytearray()
    with subprocess.Popen(
        [*command, "--server", living.url], stdin=follower, stdout=follower, stderr=follower,
        env={**environment(), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    ) as process:  # fmt: skip
        os.close(follower)
        os.set_blocking(leader, False)

        def screen(wanted):
            with suppress(OSError):  # nothing yet, or nothing any more
                said.extend(os.read(leader, 65_536))
            return wanted.encode() in said

        until(lambda: screen("what became of clusters"), "a first frame")
        client.label("c1", "seen in top").wait()
        until(lambda: screen("seen in top"), "the label is shown")
        os.write(leader, b"d")
        until(lambda: screen("drift ↓"), "it is sorted anew")
        os.write(leader, b"q")
        until(lambda: screen("\x1b[?1049l") or process.poll() is not None, "the end")
        assert process.wait(60) == 0
    os.close(leader)
