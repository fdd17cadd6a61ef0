"""Two servers as real processes on a real broker: the same answers, and one goes on alone."""

from __future__ import annotations

import hashlib
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from pipeline.messages.codec import decode_assignment
from tests.kafka.site import QUICK_GROUPS, site_at, until

pytestmark = pytest.mark.kafka

TOKEN = "eddy_of_a_test"
N_ITEMS = 300
QUESTIONS = [
    "/clusters", "/clusters/c1", "/clusters/c1/members?limit=100", "/items/item-7",
    "/items/item-7/related", "/items/item-7/similar?limit=50", "/changes?limit=100",
    "/lifecycle", "/model", "/models", "/drift",
]  # fmt: skip


class Replica:
    """A process of ``eddy server``."""

    def __init__(self, site):
        self.process = site.start("server")
        self.process.says("view_caught_up")
        self.process.says("server_listening")
        (said,) = self.process.events("server_listening")
        self.url = f"http://127.0.0.1:{said['port']}"
        (started,) = self.process.events("service_started")
        self.ops = f"http://127.0.0.1:{started['metrics_port']}"

    def get(self, path, token=TOKEN):
        """Status, headers, body."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            with urlopen(Request(f"{self.url}/api/v1{path}", headers=headers), timeout=30) as reply:
                return reply.status, reply.headers, json.load(reply)
        except HTTPError as error:
            return error.code, error.headers, json.load(error)

    def items(self):
        return self.get("/stats")[2]["items"]


@pytest.fixture
def site(kafka_cluster, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"test:read,write:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    settings = {
        **QUICK_GROUPS,
        "server.port": 0,
        "server.auth": {"mode": "bearer", "file": str(tokens)},
    }
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
        site.create_topics()
        site.publish_model()
        yield site


def test_two_replicas_answer_alike_and_one_that_dies_is_not_missed(site):
    random = np.random.default_rng(4)
    site.start("assigner")
    site.write([site.upsert(n, list(random.normal(size=4))) for n in range(N_ITEMS // 2)])
    site.wait_until_applied()
    one = Replica(site)
    site.write([site.upsert(n, list(random.normal(size=4))) for n in range(N_ITEMS // 2, N_ITEMS)])
    site.write([site.upsert(n, [3.0, 0.0, 0.0, 0.0]) for n in range(0, N_ITEMS, 3)])
    site.wait_until_applied()
    other = Replica(site)
    until(lambda: one.items() == other.items() == N_ITEMS, "both know all items")
    last = {p: log.high - 1 for p, log in site.broker.ranges(site.topics.input).items()}

    for question in QUESTIONS:
        told, again = one.get(question), other.get(question)
        assert told[0] == again[0] == 200, (question, told, again)
        left, right = (answer[2].get("items", answer[2]) for answer in (told, again))
        assert left == right, question
    truth = {
        record.key.decode(): decode_assignment(record.value).cluster
        for records in site.committed(site.topics.assignments)
        for record in records
    }
    for n in range(0, N_ITEMS, 29):
        status, headers, body = one.get(f"/items/item-{n}?min_offset=0:{last[0]}")
        assert (status, body["cluster"]) == (200, truth[f"item-{n}"])
        assert headers["Eddy-Model"] == "1.0"
    assert one.get("/clusters", token=None)[0] == 401

    one.process.kill()
    site.write([site.upsert(7, [-9.0, 0.0, 0.0, 0.0])])
    site.wait_until_applied()

    until(lambda: other.get("/items/item-7")[2]["cluster"] == "c2", "the change shows")
    assert urlopen(f"{other.ops}/readyz", timeout=5).status == 200
    assert other.process.terminate() == 0
