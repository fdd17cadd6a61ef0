"""The tools of the chaos runs do what they say: a verdict hangs on them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.chaos.proxy import Network, Way
from tests.chaos.stage import Clock

WAIT_S = 5.0
NOTHING_S = 0.2


@pytest.fixture
def proxy():
    """A proxy in front of a server that answers with what it was told."""
    with socket.create_server(("127.0.0.1", 0)) as server, Network(1) as network:

        def echo(near):
            with near:
                while data := near.recv(1000):
                    near.sendall(data)

        def serve():
            while True:
                try:
                    near, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(near,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        network.proxies[0].target = server.getsockname()[1]
        yield network.proxies[0]
        server.shutdown(socket.SHUT_RDWR)


def client(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)


def answer(connection, *, within_s=WAIT_S):
    """What comes back for three bytes; b"" if the connection is over, None if nothing comes."""
    connection.settimeout(within_s)
    try:
        connection.sendall(b"abc")
        return connection.recv(1000)
    except TimeoutError:
        return None
    except OSError:
        return b""


def test_an_open_way_passes_everything_on(proxy):
    with client(proxy) as connection:
        assert answer(connection) == b"abc"


def test_a_cut_ends_connections_and_makes_no_new_one_until_it_is_healed(proxy):
    with client(proxy) as old:
        assert answer(old) == b"abc"
        proxy.set(Way.CUT)
        assert answer(old) == b""
    with client(proxy) as late:
        assert answer(late) == b""
    proxy.set(Way.OPEN)
    with client(proxy) as new:
        assert answer(new) == b"abc"


def test_a_half_open_way_swallows_and_never_uses_what_it_spoiled_again(proxy):
    with client(proxy) as old:
        assert answer(old) == b"abc"
        proxy.set(Way.HALF_OPEN)
        with client(proxy) as late:
            assert answer(late, within_s=NOTHING_S) is None
        assert answer(old, within_s=NOTHING_S) is None
        assert proxy.n_bytes_lost == 6
        proxy.set(Way.OPEN)
        assert answer(old) == b""


def test_on_a_one_way_requests_arrive_and_answers_do_not(proxy):
    with client(proxy) as connection:
        assert answer(connection) == b"abc"
        proxy.set(Way.ONE_WAY)
        assert answer(connection, within_s=NOTHING_S) is None
        assert proxy.n_bytes_lost == 3  # the answer, so the server was asked


def test_a_delay_is_felt_in_both_directions(proxy):
    proxy.set(Way.OPEN, delay_s=0.05)
    with client(proxy) as connection:
        began = time.monotonic()
        assert answer(connection) == b"abc"
        assert time.monotonic() - began >= 0.1


def test_the_wall_clock_jumps_while_a_process_runs_and_nothing_else_does(tmp_path):
    if not (shutil.which("gcc") or shutil.which("cc")):
        pytest.skip("no C compiler")
    clock = Clock(tmp_path)
    if clock.why_not:
        pytest.skip(clock.why_not)
    says = "import time\nwhile input() != '': print(time.time(), time.monotonic(), flush=True)"
    with subprocess.Popen(
        ["env", *clock.words, sys.executable, "-c", says],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip

        def asked():
            process.stdin.write("now\n")
            process.stdin.flush()
            return [float(word) for word in process.stdout.readline().split()]

        wall, steady = asked()
        clock.shift(86_400.0)
        jumped, later = asked()
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(WAIT_S)
    assert abs(wall - time.time()) < WAIT_S + 60
    assert 86_400.0 <= jumped - wall < 86_400.0 + 60
    assert 0.0 <= later - steady < 60
