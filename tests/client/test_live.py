"""What happens as the server tells it: every event once, or a word that some are missing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pipeline import AsyncEddyClient
from pipeline.client.live import Missed, _Course
from pipeline.client.problems import AnswerError, InvalidRequestError, UnauthorizedError
from pipeline.client.results import Change, LifecycleEvent
from pipeline.errors import UnreachableError
from tests.chaos.proxy import Network, Way
from tests.kafka.site import until
from tests.simulation.test_commands import CORNERS

IDLE_S = 1.0


def course(resume=None):
    found = _Course("http://eddy", {}, resume)
    found.connected()
    return found


def taken(course, text):
    return [frame for one in text.encode() for frame in course.take(bytes([one]))]


# --- against a server -----------------------------------------------------------------------------


def test_it_tells_what_comes_after_it_was_made(client):
    with client.live(items=["live-a"], channels=["changes"], idle_s=IDLE_S) as events:
        puts = [client.put("live-a", CORNERS[n]) for n in range(3)]
        told = list(events)
    assert [one.id for one in told] == [put.change.id for put in puts]
    assert all(isinstance(one, Change) for one in told)
    assert told[0].to_cluster == puts[0].cluster


def test_another_goes_on_where_it_ended(client):
    with client.live(items=["live-b"], idle_s=IDLE_S) as events:
        resume = events.resume
    assert resume
    put = client.put("live-b", CORNERS[0])
    with client.live(items=["live-b"], channels=["changes"], resume=resume, idle_s=IDLE_S) as later:
        told = list(later)
    assert [one.id for one in told] == [put.change.id]
    assert later.resume != resume
    with client.live(items=["live-b"], resume=later.resume, idle_s=IDLE_S) as rest:
        assert [one for one in rest if isinstance(one, Change)] == []


def test_what_becomes_of_clusters_is_told_with_its_type(client):
    with client.live(channels=["lifecycle"], idle_s=IDLE_S) as events:
        client.label("c1", "told live").wait()
        (told,) = events
    assert isinstance(told, LifecycleEvent)
    assert (told.type, told.cluster, told.label) == ("labelled", "c1", "told live")


def test_connections_that_break_are_made_anew_and_nothing_is_missing(living):
    with Network(1) as network:
        (proxy,) = network.proxies
        proxy.target = int(living.url.rpartition(":")[2])
        told = []
        with living.client() as direct, living.client() as client:
            client._transport._client.base_url = f"http://127.0.0.1:{proxy.port}"
            events = client.live(items=["live-c"], channels=["changes"])
            reader = threading.Thread(target=lambda: told.extend(events), daemon=True)
            reader.start()
            puts = []
            for n in range(4):
                proxy.drop()
                puts.append(direct.put("live-c", CORNERS[n % 4]))
            proxy.set(Way.CUT)
            puts.append(direct.put("live-c", CORNERS[1]))
            proxy.set(Way.OPEN)
            until(lambda: len(told) >= len(puts), "all of them are told")
            events.close()
            reader.join(30)
        assert not reader.is_alive()
    assert [one.id for one in told] == [put.change.id for put in puts]


def test_it_ends_when_it_is_closed_by_another(client):
    events = client.live()
    reader = threading.Thread(target=lambda: list(events), daemon=True)
    reader.start()
    events.close()
    reader.join(30)
    assert not reader.is_alive()
    events.close()


def test_what_the_server_refuses_is_raised_at_once(client, guarded):
    with pytest.raises(InvalidRequestError):
        client.live(types=["nonsense"])
    with pytest.raises(InvalidRequestError, match="resume"):
        client.live(resume="nonsense")
    with guarded.client() as stranger, pytest.raises(UnauthorizedError):
        stranger.live()


def test_the_client_of_an_event_loop_does_the_same(living):
    async def work():
        async with AsyncEddyClient(
            living.url, broker=living.broker, input_topic=living.topics.input, topics_prefix="t."
        ) as client:
            async with await client.live(
                items=["live-d"], channels=["changes"], idle_s=IDLE_S
            ) as events:
                put = await client.put("live-d", CORNERS[0])
                told = [one async for one in events]
            return put, told, events.resume

    put, told, resume = asyncio.run(work())
    assert [one.id for one in told] == [put.change.id]
    assert resume


# --- the course of it, byte by byte ---------------------------------------------------------------


def test_bytes_may_come_one_by_one():
    text = 'retry: 500\n\nid: t1\ndata: {"type":"events","events":[],"dropped":0}\n\n'
    ((events, token),) = taken(course(), text)
    assert (events, token) == ([], "t1")


def test_what_was_dropped_comes_before_what_was_not():
    change = (
        '{"id":"1","type":"removed","item":"a\u2028b","from":"c1","to":null,"cause":"record",'
        '"distance":null,"margin":null,"confidence":null,"typicality":null,'
        '"model":{"epoch":1,"revision":0},"source":{"topic":"t","partition":0,"offset":1},'
        '"occurred_at":null}'
    )
    text = f'id: t\ndata: {{"type":"events","events":[{change}],"dropped":7}}\n\n'
    ((events, _),) = taken(course(), text)
    assert events[0] == Missed(7, "dropped")
    assert events[1].item == "a\u2028b"


@pytest.mark.parametrize(("gap", "n"), [("12", 12), ("null", None)])
def test_a_gap_is_told(gap, n):
    ((events, _),) = taken(course("t"), f'data: {{"type":"resync","id":"","gap":{gap}}}\n\n')
    assert events == [Missed(n, "resync")]


def test_a_connection_without_a_token_says_that_nobody_knows_what_is_missing():
    one = course()
    one.connected()  # the one before gave no token
    ((events, _),) = taken(one, 'data: {"type":"hello"}\n\n')
    assert events == [Missed(None, "resync")]


def test_who_is_no_eddy_is_named():
    with pytest.raises(AnswerError, match="is it an Eddy"):
        taken(course(), 'data: ["cat"]\n\n')


def test_pauses_grow_with_jitter_and_the_servers_word_comes_first():
    one = course()
    pauses = [one.pause_s() for _ in range(50)]
    assert max(pauses[:1]) <= 0.5
    assert max(pauses) <= 15.0
    assert len({round(pause, 3) for pause in pauses}) > 10
    taken(one, 'data: {"type":"bye","reason":"shutdown","retry_after_ms":2500}\n\n')
    assert one.pause_s() == 2.5


def test_after_a_minute_without_a_word_it_is_said():
    one = course()
    one.lost(None)
    one._heard_at -= 61.0
    with pytest.raises(UnreachableError, match="for 60 s"):
        one.lost(None)
