"""Both transports over real sockets: what comes, what is refused, and how it ends."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pipeline.config import ServerPolicy
from pipeline.messages.codec import decode_change
from pipeline.messages.records import Record
from pipeline.services.server.listening import Listening
from pipeline.services.server.live import clients, routes, streams
from pipeline.state.view.fold import News
from tests.services.server.conftest import READER, Site
from tests.simulation.test_commands import CORNERS, put

LIMIT_S = 30
CHANGE = (
    b'{"id":"in/0/%d","type":"reassigned","item":"i","from":"c1","to":"c2","cause":"record",'
    b'"distance":1.0,"margin":1.0,"confidence":0.5,"model":{"epoch":1,"revision":0},'
    b'"source":{"topic":"in","partition":0,"offset":%d},"occurred_at":null,"metadata":{"x":"%s"}}'
)


@contextmanager
def listening_at(site):
    with Listening(site.server.app, ServerPolicy(port=0), site.server._reports) as running:
        yield running.port
        site.server.streams.drain()


@pytest.fixture
def site(make_site):
    return make_site()


@pytest.fixture
def port(site):
    with listening_at(site) as port:
        yield port


class Socket:
    """A WebSocket, and what came over it by type."""

    def __init__(self, port, **headers):
        url = f"ws://127.0.0.1:{port}/api/v1/stream"
        asking = connect(
            url, additional_headers=headers, open_timeout=LIMIT_S, proxy=None, max_size=None
        )
        self.ws = asking.__enter__()
        self.hello = self.next("hello")

    def say(self, kind, **fields):
        self.ws.send(json.dumps({"type": kind, **fields}))
        return self

    def next(self, *kinds):
        while True:
            told = json.loads(self.ws.recv(timeout=LIMIT_S))
            if told["type"] in kinds:
                return told

    def end(self):
        """The code that it is closed by."""
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                self.ws.recv(timeout=LIMIT_S)
        return caught.value.rcvd.code


class Events:
    """A stream of server-sent events."""

    def __init__(self, port, query, **headers):
        self.connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        self.connection.request("GET", f"/api/v1/events?{query}", headers=headers)
        self.reply = self.connection.getresponse()

    def next(self, *kinds):
        """The id, and the object, of the next event of a type; None: the stream has ended."""
        found = ""
        while line := self.reply.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                found = value
            elif name == "data":
                told = json.loads(value)
                if told["type"] in kinds:
                    return found, told
        return None


def subscribed(site, port, n=1, **fields):
    """A socket whose subscription stands: a change that is told after this comes to it."""
    one = Socket(port).say("subscribe", id="a", **fields)

    def stands():
        return sum(len(client.feeds) for client in list(site.server.streams._clients)) >= n

    until(stands)
    return one


def until(holds):
    began_at = time.monotonic()
    while not holds():
        assert time.monotonic() - began_at < LIMIT_S


def ended(site, transport="ws"):
    """Reason -> how many streams ended by it."""
    text = site.metrics.exposition("")[0].decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("eddy_stream_disconnects_total") and f'transport="{transport}"' in line:
            reason = line.partition('reason="')[2].partition('"')[0]
            if float(line.split()[-1]):
                found[reason] = int(float(line.split()[-1]))
    return found


def move(site, item, corner):
    put(site.world, item, CORNERS[corner])
    site.settle()


def test_a_client_sees_what_the_questions_say(site, port):
    client = subscribed(site, port, channels=["clusters", "stats", "changes"], rate_hz=10)
    state = {row["cluster"]: row for row in client.next("key")["clusters"]}
    where = site.ok("/items/item-3")["cluster"]

    move(site, 3, 0)

    (event,) = client.next("events")["events"]
    assert (event["item"], event["from"], event["type"]) == ("item-3", where, "reassigned")
    while True:
        shown = {row["cluster"]: row for row in site.pages("/clusters")}
        if all(state[c][name] == shown[c][name] for c in shown for name in state[c]):
            break
        delta = client.next("delta", "key")
        state |= {row["cluster"]: row for row in delta["clusters"]}
    client.say("key", id="a")
    assert {row["cluster"]: row for row in client.next("key")["clusters"]} == state
    assert client.next("stats")["stats"]["items"] == 80


def test_filters_hold_and_a_subscription_can_end(site, port):
    item = subscribed(site, port, 1, channels=["changes"], filter={"items": ["item-5"]})
    cluster = site.ok("/items/item-4")["cluster"]
    of_cluster = subscribed(
        site, port, 2, channels=["changes"], filter={"clusters": [cluster], "types": ["reassigned"]}
    )

    for n, corner in ((6, 3), (5, 3), (4, 2)):
        move(site, n, corner)

    (event,) = item.next("events")["events"]
    assert event["item"] == "item-5"
    (event,) = of_cluster.next("events")["events"]
    assert (event["item"], event["from"]) == ("item-4", cluster)
    item.say("unsubscribe", id="a").say("subscribe", id="b", channels=["nothing"])
    problem = item.next("problem")["problem"]
    assert problem["status"] == 422 and problem["errors"][0]["pointer"] == "/channels"


def test_events_go_on_at_another_replica(site, port):
    """Over SSE, with the id of the last event; nothing is missing, and nothing comes twice."""
    first = Events(port, "channels=changes,lifecycle")
    first.next("hello")
    subscribed(site, port, 2, channels=["changes"])
    move(site, 3, 0)
    resume, told = first.next("events")
    assert [event["item"] for event in told["events"]] == ["item-3"]
    assert first.reply.headers["content-type"].startswith("text/event-stream")
    first.connection.close()
    move(site, 4, 1)
    other = Site(site.world, ServerPolicy())  # it has read all of it from the beginning

    with listening_at(other) as other_port:
        again = Events(other_port, "channels=changes", **{"Last-Event-ID": resume})
        _, told = again.next("events", "resync")
        assert told["type"] == "events" and told["resume"]
        assert [event["item"] for event in told["events"]] == ["item-4"]
        by_socket = Socket(other_port).say("subscribe", channels=["changes"], resume=resume)
        assert by_socket.next("events")["events"] == told["events"]
    assert again.next("bye") and again.next("hello") is None


@pytest.mark.parametrize(
    "question", ["", "channels=x", "channels=changes&resume=x", "channels=stats&y=1"]
)
def test_a_wrong_question_is_a_problem(site, port, question):
    reply = Events(port, question).reply

    assert reply.status == 422 and json.load(reply)["type"] == "/problems/invalid-request"


def test_a_slow_client_is_let_go_and_a_fast_one_misses_nothing(site, port, monkeypatch):
    monkeypatch.setattr(streams, "SEND_S", 0.3)
    fast = subscribed(site, port, 1, channels=["changes"])
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", port))
    slow_sse = socket.socket()
    slow_sse.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow_sse.connect(("127.0.0.1", port))
    with closing(slow), closing(slow_sse):
        say = json.dumps({"type": "subscribe", "channels": ["changes"]}).encode()
        frame = bytes([0x81, 0x80 | len(say), 0, 0, 0, 0]) + say
        slow.sendall(
            b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        slow.recv(100)  # what stands behind the head in one packet is lost with the upgrade
        slow.sendall(frame)
        slow_sse.sendall(b"GET /api/v1/events?channels=changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        offset, seen = 1000, []
        while not ("slow" in ended(site) and "slow" in ended(site, "sse")):
            value = CHANGE % (offset, offset, b"x" * 100_000)
            record = Record(0, offset, b"i", value)
            site.server.streams.hear(News([decode_change(value)], records=[record]))
            seen += [event["source"]["offset"] for event in fast.next("events")["events"]]
            offset += 1
            assert offset < 1300, "nobody was let go"

    assert seen == list(range(1000, offset))
    assert ended(site) == {"slow": 1}


def test_there_is_room_for_so_many(site, port, monkeypatch):
    monkeypatch.setattr(streams, "MAX_PER_ADDRESS", 2)
    one, two = Socket(port), Events(port, "channels=stats")

    with pytest.raises(InvalidStatus) as caught:
        Socket(port)
    third = Events(port, "channels=stats").reply

    assert caught.value.response.status_code == third.status == 503
    assert caught.value.response.headers["Retry-After"] and third.headers["Retry-After"]
    assert json.load(third)["type"] == "/problems/too-many-clients"
    one.ws.close()
    until(lambda: "client" in ended(site))
    assert Socket(port).hello["protocol"] == "eddy.v1"  # there is room again
    assert two.next("hello")


def test_a_client_that_does_not_keep_to_the_limits_is_let_go(site, port, monkeypatch):
    long = Socket(port)
    long.ws.send("x" * 5000)
    assert long.end() == 1009
    many = Socket(port)
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            many.ws.send("{}")
    assert caught.value.rcvd is None or caught.value.rcvd.code == 1008
    binary = Socket(port)
    binary.ws.send(b"\0")
    assert binary.end() == 1003
    monkeypatch.setattr(routes, "FIRST_SUBSCRIBE_S", 0.1)
    assert Socket(port).end() == 1008


def test_silence_is_filled_with_signs_of_life(site, port, monkeypatch):
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)

    beat = subscribed(site, port, channels=["changes"]).next("heartbeat")

    assert beat["t"] and beat["resume"]


def test_the_end_is_announced(site, port):
    client, events = subscribed(site, port, channels=["changes"]), Events(port, "channels=changes")
    events.next("hello")

    site.server.streams.drain()

    told = client.next("bye")
    assert 0 <= told["retry_after_ms"] <= clients.MAX_RETRY_MS
    assert client.end() == 1012
    assert events.next("bye") and events.next("hello") is None
    assert Events(port, "channels=changes").reply.status == 503
    assert ended(site) == ended(site, "sse") == {"shutdown": 1}


def test_strangers_stay_outside(guarded):
    with listening_at(guarded) as port:
        for headers, status in (({}, 401), ({"Origin": "https://elsewhere.example"}, 403)):
            with pytest.raises(InvalidStatus) as caught:
                Socket(port, **headers)
            assert caught.value.response.status_code == status
        assert Events(port, "channels=changes").reply.status == 401
        known = {"Authorization": f"Bearer {READER}"}
        assert Socket(port, **known).hello["client_id"]
        assert Events(port, "channels=changes", **known).reply.status == 200
