"""The client of an event loop does what the other one does."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from pipeline import AsyncEddyClient, EddyClient
from pipeline.client.problems import NotAppliedError, NotFoundError
from tests.simulation.test_commands import CORNERS


def methods(kind):
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(one).parameters.values()]
        for name, one in vars(kind).items()
        if callable(one) and (name == "__init__" or not name.startswith("_"))
    }


def test_both_clients_have_the_same_methods():
    assert methods(AsyncEddyClient) == methods(EddyClient)
    assert len(methods(EddyClient)) > 25


@pytest.fixture
def asked(living):
    """Runs a coroutine with a client."""

    def run(work, **settings):
        async def main():
            given = {
                "broker": living.broker, "timeout_s": 60.0, "input_topic": living.topics.input,
                "topics_prefix": living.topics.prefix, **settings,
            }  # fmt: skip
            async with AsyncEddyClient(living.url, **given) as client:
                return await work(client)

        return asyncio.run(main())

    return run


def test_answers_are_the_same(asked, client):
    async def work(other):
        clusters = await other.clusters().to_list()
        items = {row.item async for row in other.items()}
        return clusters, items, await other.similar("item-0", limit=3), await other.stats()

    clusters, items, similar, stats = asked(work)

    assert [one.cluster for one in clusters] == [one.cluster for one in client.clusters()]
    assert items == {row.item for row in client.items()}
    assert similar == client.similar("item-0", limit=3)
    assert stats.items == len(items)


def test_records_are_put_removed_and_followed(asked):
    async def work(other):
        async with await other.subscribe(items=["as-a"], idle_s=0.0) as events:
            put = await other.put("as-a", CORNERS[1])
            assert (await other.after(put).item("as-a")).offset == put.offset
            gone = await other.delete("as-a")
            with pytest.raises(NotFoundError):
                await other.item("as-a")
            return put, gone, [event.type async for event in events], events.positions

    put, gone, types, positions = asked(work)

    assert (put.change.type, gone.change.type) == ("assigned", "removed")
    assert types == ["assigned", "removed"]
    assert sum(positions.values()) > 0


def test_many_are_put_at_a_time(asked):
    async def work(other):
        items = [f"many-{n}" for n in range(20)]
        puts = await asyncio.gather(*(other.put(item, CORNERS[0]) for item in items))
        return await asyncio.gather(*(other.delete(put.item) for put in puts)), puts

    gone, puts = asked(work)

    assert {put.change.type for put in puts} == {"assigned"}
    assert len({(put.partition, put.offset) for put in puts}) == 20
    assert {put.change.type for put in gone} == {"removed"}


def test_errors_are_the_same(asked):
    async def work(other):
        await other.put("as-b", CORNERS[0], sequence=3)
        with pytest.raises(NotAppliedError):
            await other.put("as-b", CORNERS[1], sequence=2)

    asked(work)


def test_a_command_is_waited_for(asked, client):
    cluster = client.item("item-0").cluster

    async def work(other):
        job = await other.label(cluster, "awaited")
        return await job.wait(), (await other.cluster(cluster)).label

    state, label = asked(work)

    assert (state.state, label) == ("succeeded", "awaited")
