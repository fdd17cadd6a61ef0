"""Two servers behind readers that take turns, one killed: no wrong answer, and no event lost.

What is asked and judged here is what the runs of faults ask and judge (``tests/chaos``).
"""

from __future__ import annotations

import pytest

from tests.chaos.asking import Address, Asker
from tests.chaos.onlooker import Onlooker
from tests.chaos.proxy import free_port
from tests.chaos.showing import (
    judge_answers,
    judge_stream,
    truth_of,
    wait_until_shown,
)
from tests.chaos.writer import N_DIMS
from tests.kafka.site import QUICK_GROUPS, site_at, until

pytestmark = pytest.mark.kafka

SEED = 3
N_ANSWERS = 30
START_LIMIT_S = 240.0
"""The first process on a machine compiles its kernels."""


@pytest.fixture
def site(kafka_cluster, tmp_path):
    settings = {**QUICK_GROUPS, "embedding.dimensions": N_DIMS}
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
        site.create_topics()
        site.publish_model()
        yield site


def server(site, address):
    flags = [f"server.port={address.port}", f"telemetry.metrics_port={address.ops_port}"]
    # of a word given twice the last one counts
    process = site.start(*(word for flag in flags for word in ("--set", flag)), "server")
    process.says("view_caught_up", START_LIMIT_S)
    return process


def test_two_replicas_one_killed_give_no_wrong_answer(site):
    addresses = tuple(Address(f"server-{n}", free_port(), free_port()) for n in (1, 2))
    site.start("assigner")
    servers = {address.name: server(site, address) for address in addresses}

    def pids():
        return {name: s.process.pid for name, s in servers.items() if not s.has_ended}

    onlooker = Onlooker(addresses)
    onlooker.start()
    until(onlooker.is_there.is_set, "the stream begins")
    asker = Asker(site.broker, site.topics, addresses, pids, SEED)
    asker.start()
    asked = asker.asked
    until(lambda: min(asked.n_held, asked.n_ready) >= N_ANSWERS // 2, "both answer", START_LIMIT_S)

    first, other = addresses
    servers[first.name].kill()
    before = asked.n_held
    until(lambda: asked.n_held >= before + N_ANSWERS, "the other one goes on", START_LIMIT_S)
    servers[first.name] = server(site, first)
    before = asked.n_ready
    until(lambda: asked.n_ready >= before + N_ANSWERS // 2, "both answer again", START_LIMIT_S)
    asker.finish()
    site.wait_until_applied()

    truth = truth_of(site)
    assert wait_until_shown(truth, other, SEED) == []
    assert wait_until_shown(truth, first, SEED) == []
    until(lambda: judge_stream(truth, onlooker.followed) == (0, []), "the stream told it all")
    for process in servers.values():
        process.kill()
    followed = onlooker.finish()

    assert judge_answers(truth, asked) == []
    assert judge_stream(truth, followed) == (0, [])
    assert followed.n_gone == 0
    assert asked.n_behind > 0, "nobody was asked who was not there"
