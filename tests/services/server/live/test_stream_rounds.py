"""Rounds: by whichever way a frame goes, every event comes once and in order."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages.codec import decode_change
from pipeline.messages.records import Record
from pipeline.services.server.live import rounds as live_rounds
from pipeline.services.server.live import streams
from pipeline.services.server.live.clients import Client, Direct
from pipeline.services.server.live.reports import StreamReports
from pipeline.services.server.live.rounds import AT_ONCE, Rounds
from pipeline.services.server.live.streams import Streams
from pipeline.services.server.live.wanted import Wanted
from pipeline.state.view.fold import News
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import Metrics
from tests.services.server.live.test_streams import CHANGE

LIMIT_S = 30


class Reader:
    """A client in this process: what it was sent, and which way."""

    def __init__(self, hub: Streams) -> None:
        self.is_free = True
        self.by_task, self.by_round = [], []
        self.offsets = []
        way = Direct(lambda: self.is_free, lambda data: self._take(data, self.by_round))
        self.client = hub.join("ws", "127.0.0.1", self._send, way)
        hub.subscribe(self.client, "a", Wanted(frozenset({"changes"})), "", "/resume")
        self.attending = asyncio.create_task(hub.attend(self.client, asyncio.Event().wait()))

    async def _send(self, out) -> None:
        self._take(out.data, self.by_task)

    def _take(self, data, kept) -> None:
        told = json.loads(data)
        kept.append(told["type"])
        self.offsets += [event["source"]["offset"] for event in told.get("events", ())]


def change(offset):
    value = CHANGE % (offset, offset, b"")
    return News([decode_change(value)], records=[Record(0, offset, b"i", value)])


async def until(holds):
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0)


async def played(site, plan):
    """A reader, after events came as planned: whether it takes them, and how much later."""
    hub = Streams(site.server.desk, StreamReports(get_logger(), Metrics("server")), b"12345678")
    reader = Reader(hub)
    await until(lambda: reader.client.is_resting)
    for offset, (is_free, n_turns) in enumerate(plan):
        reader.is_free = is_free
        hub.hear(change(offset))
        for _ in range(n_turns):
            await asyncio.sleep(0)
    await until(lambda: len(reader.offsets) >= len(plan))
    reader.attending.cancel()
    return reader


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(streams, "GATHER_S", 0.0)
    monkeypatch.setattr(live_rounds, "GATHER_S", 0.0)


def test_who_takes_everything_is_told_in_rounds(corners, hurry):
    reader = asyncio.run(played(corners, [(True, 20)] * 5))

    assert reader.offsets == list(range(5))
    assert reader.by_task == ["hello"] and set(reader.by_round) == {"events"}


def test_control_who_takes_nothing_now_is_left_to_his_task(corners, hurry):
    reader = asyncio.run(played(corners, [(False, 20)] * 5))

    assert reader.offsets == list(range(5))
    assert reader.by_round == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_whichever_way_it_goes_nothing_is_lost_or_told_twice_or_out_of_order(corners, plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "GATHER_S", 0.0)
        patch.setattr(live_rounds, "GATHER_S", 0.0)
        reader = asyncio.run(played(corners, plan))

    assert reader.offsets == list(range(len(plan)))


def test_what_comes_in_a_round_goes_with_the_next_one(monkeypatch):
    monkeypatch.setattr(live_rounds, "GATHER_S", 0.0)
    rounds_of, lock = [], threading.Lock()

    def tell(clients):
        rounds_of.append(len(clients))
        if len(rounds_of) == 1:
            rounds.add(crowd(5), asyncio.get_running_loop())

    rounds = Rounds(lock, tell)

    async def play():
        rounds.add(crowd(AT_ONCE + 1), asyncio.get_running_loop())
        await until(lambda: sum(rounds_of) == AT_ONCE + 6)

    asyncio.run(play())
    assert rounds_of == [AT_ONCE, 1, 5]


def test_a_round_that_fails_leaves_everybody_to_his_own_task(monkeypatch):
    monkeypatch.setattr(live_rounds, "GATHER_S", 0.0)
    seen = []

    def tell(clients):
        seen.extend(clients)
        if len(seen) == AT_ONCE:
            rounds.add(late, asyncio.get_running_loop())
            raise ValueError("a defect")

    rounds, clients, late = Rounds(threading.Lock(), tell), crowd(2 * AT_ONCE), crowd(1)

    async def play():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        rounds.add(clients, asyncio.get_running_loop())
        await until(lambda: all(client.wake.is_set() for client in clients + late))
        rounds.add(clients, asyncio.get_running_loop())
        await until(lambda: len(seen) == 3 * AT_ONCE)  # and the next is as any other

    asyncio.run(play())


def crowd(n):
    async def nowhere(_):
        raise AssertionError

    return [Client(str(i), "ws", "127.0.0.1", nowhere, 0.0) for i in range(n)]
