"""The client on a real broker: a put answers for exactly its record, events resume."""

from __future__ import annotations

import pytest

from pipeline import EddyClient
from pipeline.client.problems import NotFoundError
from tests.kafka.site import QUICK_GROUPS, site_at

pytestmark = pytest.mark.kafka

HERE, THERE = [1.0, 0.1, 0.0, 0.0], [-1.0, 0.1, 0.0, 0.0]
N_ITEMS = 12


@pytest.fixture
def site(kafka_cluster, tmp_path):
    settings = {**QUICK_GROUPS, "server.port": 0}
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
        site.create_topics()
        site.publish_model()
        yield site


def test_a_put_answers_for_exactly_its_record(site):
    site.start("assigner")
    server = site.start("server")
    server.says("view_caught_up")
    server.says("server_listening")
    (said,) = server.events("server_listening")
    kafka = {"bootstrap.servers": site.bootstrap}
    names = {"input_topic": site.topics.input, "topics_prefix": site.topics.prefix}

    with EddyClient(f"http://127.0.0.1:{said['port']}", kafka=kafka, timeout_s=60, **names) as eddy:
        with eddy.subscribe(idle_s=1.0) as events:
            puts = [
                eddy.put(f"item-{n}", vector)
                for n in range(N_ITEMS)
                for vector in (HERE, THERE, THERE, HERE)
            ]
            gone = [eddy.delete(f"item-{n}") for n in range(N_ITEMS)]
            with pytest.raises(NotFoundError):
                eddy.item("item-0")
            seen = [next(iter(events)).id]
            positions = events.positions
        with eddy.subscribe(start=positions, idle_s=1.0) as rest:
            seen += [event.id for event in rest]

    types = [None if put.change is None else put.change.type for put in puts]
    assert types == ["assigned", "reassigned", None, "reassigned"] * N_ITEMS
    assert [put.cluster for put in puts] == ["c1", "c2", "c2", "c1"] * N_ITEMS
    for put in [*puts, *gone]:
        if put.change is not None:
            assert (put.change.partition, put.change.offset) == (put.partition, put.offset)
    assert [put.change.type for put in gone] == ["removed"] * N_ITEMS
    assert {put.partition for put in puts} == {0, 1}
    told = [put.change.id for put in [*puts, *gone] if put.change is not None]
    assert sorted(seen) == sorted(told)
    assert server.terminate() == 0
