"""A server that is started again on a real broker goes on from its snapshot."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kafka.site import QUICK_GROUPS, site_at, until
from tests.kafka.test_server import QUESTIONS, Replica

pytestmark = pytest.mark.kafka

N_ITEMS = 120


def test_a_server_that_is_started_again_reads_only_what_came_since(kafka_cluster, tmp_path):
    folder = tmp_path / "views"
    settings = {
        **QUICK_GROUPS,
        "server.port": 0,
        "server.snapshot_directory": str(folder),
    }
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
        site.create_topics()
        site.publish_model()
        random = np.random.default_rng(4)
        site.start("assigner")
        site.write([site.upsert(n, list(random.normal(size=4))) for n in range(N_ITEMS)])
        site.wait_until_applied(limit_s=180)
        one = Replica(site)
        until(lambda: one.items() == N_ITEMS, "it knows all items")
        assert one.process.terminate() == 0
        (written,) = one.process.events("snapshot_written")
        assert written["records"] == N_ITEMS
        site.write([site.upsert(n, [3.0, 0.0, 0.0, 0.0]) for n in range(0, N_ITEMS + 30, 3)])
        site.wait_until_applied(limit_s=180)

        resumed = Replica(site)
        (found,) = resumed.process.events("view_resumed")
        assert found["items"] == N_ITEMS
        for path in folder.iterdir():
            path.unlink()
        fresh = Replica(site)
        assert not fresh.process.events("view_resumed")
        until(lambda: resumed.items() == fresh.items() == N_ITEMS + 10, "both know all items")

        for question in QUESTIONS:
            told, truth = (one.get(question, token=None) for one in (resumed, fresh))
            assert told[0] == truth[0] == 200, (question, told, truth)
            assert told[2].get("items", told[2]) == truth[2].get("items", truth[2]), question
