"""Child processes: they end with their parent, come back, and are given up in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from pipeline.cli.local.children import RestartPolicy, Services, service_commands
from pipeline.errors import ConfigError, FatalError

AT_ONCE = RestartPolicy(max_restarts=3, backoff_s=0.01)
SLEEPER = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]


def child(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not fetched yet is none."""
    asked = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


class Lines:
    """What children wrote."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, name: str, line: str) -> None:
        self.all.append((name, line))

    def has(self, *words: str) -> bool:
        return any(all(word in f"{name} {line}" for word in words) for name, line in self.all)


def test_lines_of_both_streams_come_with_the_name_of_the_child():
    lines = Lines()
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.stdin.read()"

    with Services({"one": child(code + "; import time; time.sleep(600)")}, on_line=lines):
        until(lambda: lines.has("one", "out") and lines.has("one", "err"))


def test_leaving_the_context_asks_children_to_end_and_waits_for_them():
    lines = Lines()
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('finished', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )

    with Services({"a": child(code), "b": child(code)}, on_line=lines) as services:
        until(lambda: lines.has("a", "up") and lines.has("b", "up"))
        pids = services.pids

    assert lines.has("a", "finished")
    assert lines.has("b", "finished")
    assert not any(is_running(pid) for pid in pids.values())


def test_one_that_does_not_listen_is_killed_after_the_limit():
    lines = Lines()
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)"
    )
    services = Services({"deaf": child(code)}, on_line=lines)
    services.start()
    until(lambda: lines.has("deaf", "up"))
    pid = services.pids["deaf"]

    services.stop(limit_s=0.2)

    assert not is_running(pid)


def test_a_child_that_is_killed_comes_back():
    with Services({"one": SLEEPER}, policy=AT_ONCE) as services:
        first = services.pids["one"]
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            services.check()
            return services.pids.get("one", first) != first

        until(is_back)


def test_a_child_that_dies_again_and_again_is_given_up_with_its_last_words():
    lines = Lines()
    with (
        Services(
            {"ill": child("import sys; sys.exit('no luck')")}, policy=AT_ONCE, on_line=lines
        ) as s,
        pytest.raises(
            FatalError, match=r"ill ended with exit code 1, 4 times in a row: no luck"
        ) as e,
    ):
        s.wait(threading.Event())

    assert e.value.exit_code == 1
    assert sum(line == "no luck" for _, line in lines.all) == 4


def test_a_wrong_configuration_is_given_up_at_once_with_its_exit_code():
    code = "import sys; print('clusters is 0', file=sys.stderr); sys.exit(3)"
    with (
        Services({"one": child(code), "other": SLEEPER}) as services,
        pytest.raises(FatalError, match="one ended with exit code 3: clusters is 0") as caught,
    ):
        services.wait(threading.Event())

    assert caught.value.exit_code == ConfigError.exit_code


def test_delays_grow_to_a_bound():
    policy = RestartPolicy(backoff_s=0.5, max_backoff_s=3.0)

    assert [policy.delay_s(n) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_children_end_with_a_parent_that_is_killed():
    code = (
        "import sys, time\n"
        "from pipeline.cli.local.children import Services\n"
        f"services = Services({{'one': {SLEEPER!r}}})\n"
        "services.start()\n"
        "print(services.pids['one'], flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)

        parent.kill()

        until(lambda: not is_running(pid))


def test_one_assigner_has_the_name_of_the_machine_and_several_have_their_own():
    alone = service_commands(["--set", "a=b"])
    three = service_commands([], n_assigners=3)

    assert list(alone) == ["reclusterer", "assigner"]
    assert alone["assigner"][-5:] == [
        "--set",
        "a=b",
        "--set",
        "telemetry.metrics_port=0",
        "assigner",
    ]
    assert list(three) == ["reclusterer", "assigner-1", "assigner-2", "assigner-3"]
    names = {word for command in three.values() for word in command if word.startswith("instance=")}
    assert len(names) == 3
