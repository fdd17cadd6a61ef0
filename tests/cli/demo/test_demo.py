"""The demo as a newcomer runs it, and as somebody ends it half-way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from pipeline.cli.page import answers
from tests.kafka.site import until

EDDY = [sys.executable, "-m", "pipeline.cli", "--set", "device.kind=cpu", "demo", "--rate", "5000"]


@pytest.mark.kafka
def test_demo_tells_its_story_and_ends_verified(kafka_cluster):
    environ = os.environ | {"EDDY_KAFKA__BOOTSTRAP__SERVERS": kafka_cluster.bootstrap_servers}

    process = subprocess.Popen(
        [*EDDY, "--page"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
        env=environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    begin = []
    for line in process.stdout:
        begin.append(line)
        if "the page" in line:
            break
    page = begin[-1].split()[-1]
    until(lambda: answers(page) or process.poll() is not None, "the page is there")
    assert process.poll() is None, "it is there while the stream is replayed"
    rest, err = process.communicate(timeout=180)

    assert process.returncode == 0, rest[-2000:] + err[-2000:]
    stdout = "".join(begin) + rest
    said = stdout.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "6 774 packages assigned, one event each",
        "of the 203 new descriptions moved",
        "kept their identity",
        "p95",
        "Every promise kept: 8 509 items",
    ):
        assert words in said, said
    assert re.search(r"\S+: c\d+ \(.+\) → c\d+ \(.+\)", said), "a package that moved, by name"
    assert "\x1b" not in stdout, "plain lines where no terminal is"


@pytest.mark.kafka
def test_interrupted_demo_leaves_nothing_behind(tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("EDDY_KAFKA__")}
    process = subprocess.Popen(
        EDDY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    broker = next(line for line in process.stdout if "Apache Kafka" in line)
    assert len(list(tmp_path.glob("eddy-broker-*"))) == 1, "its folder is where it was told"

    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)

    assert process.returncode == 130, rest + err
    assert "stopped" in err
    assert list(tmp_path.glob("eddy-broker-*")) == []
    port = re.search(r"127\.0\.0\.1:(\d+)", broker)
    assert port is not None
    listening = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import socket; socket.create_connection(('127.0.0.1', {port[1]}))",
        ],
        capture_output=True,
    )
    assert listening.returncode != 0, "the broker still takes clients"
