"""What a scrape of running services holds: the metrics of the catalogue, and nothing else."""

from __future__ import annotations

import re
import urllib.error
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.telemetry.catalogue import CATALOGUE
from pipeline.telemetry.kinds import Service
from tests.kafka.site import LIMIT_S, site_at, until

pytestmark = pytest.mark.kafka

ONLY_SOMETIMES = {
    "eddy_device_memory_bytes",  # where there is a card
    "eddy_kafka_errors_total",  # once there was an error
    "eddy_group_lag_records",  # every 30 s
    "eddy_silhouette_simplified",  # of a fit that had two clusters at least, with members
}
SETTINGS = {
    "recluster.bootstrap_items": 50,
    "recluster.min_interval_s": 1,
    "centroids.min_updates": 1,
    "state.snapshot_interval_s": 1,
    "server.port": 0,
}
PHASES = {"load", "fit", "align", "judge", "publish"}


def scrape(process):
    """Metric -> its series, as Prometheus reads them."""
    (started,) = process.events("service_started")
    with urlopen(f"http://127.0.0.1:{started['metrics_port']}/metrics", timeout=LIMIT_S) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {family.name: family for family in families if family.samples}


def ask(server):
    """A question, a search, one for nothing, and a stream that has said hello."""
    (said,) = server.events("server_listening")
    url = f"http://127.0.0.1:{said['port']}/api/v1"
    for path in ("/stats", "/items/item-1/similar?limit=1"):
        urlopen(url + path, timeout=LIMIT_S).close()
    with pytest.raises(urllib.error.HTTPError):
        urlopen(f"{url}/clusters/c999", timeout=LIMIT_S)
    with urlopen(f"{url}/events?channels=stats", timeout=LIMIT_S) as stream:
        assert stream.readline()


def named(found):
    """Counters lose their ending when they are parsed."""
    known = {re.sub("_total$", "", name): name for name in CATALOGUE}
    return {known.get(name, name) for name in found}


def test_a_scrape_holds_the_whole_catalogue_and_nothing_else(kafka_cluster, tmp_path):
    settings = SETTINGS | {"state.directory": str(tmp_path / "state")}
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
        site.create_topics()
        rng = np.random.default_rng(0)
        assigner, reclusterer = site.start("assigner"), site.start("reclusterer")
        site.write([site.upsert(n, rng.normal(size=4).tolist()) for n in range(200)])
        reclusterer.says("recluster_finished", limit_s=180.0)
        assigner.says("sweep_finished")
        assigner.says("snapshot_written")
        site.write([site.upsert(n, rng.normal(size=4).tolist()) for n in range(100)])
        site.wait_until_applied()
        server = site.start("server")
        server.says("view_caught_up", limit_s=180.0)
        server.says("server_listening")
        ask(server)

        for service, process in (
            ("assigner", assigner), ("reclusterer", reclusterer), ("server", server)
        ):  # fmt: skip
            rows = {name for name, m in CATALOGUE.items() if Service(service) in m.services}
            seen = set()

            def is_whole(process=process, rows=rows, seen=seen):
                try:
                    found = named(scrape(process))
                except urllib.error.URLError:
                    return False
                seen.clear()
                seen.update(found)
                return rows - found <= ONLY_SOMETIMES

            try:
                until(is_whole, f"the {service} tells everything", limit_s=60.0)
            except AssertionError as error:
                missing = sorted(rows - seen - ONLY_SOMETIMES)
                raise AssertionError(f"the {service} does not tell {missing}") from error
            assert seen <= rows
            violations = scrape(process).get("eddy_invariant_violations")
            assert violations is None or {s.value for s in violations.samples} == {0.0}
        assert not assigner.events("invariant_violated")
        spent = scrape(reclusterer)["eddy_recluster_duration_seconds"]
        assert {sample.labels["phase"] for sample in spent.samples} == PHASES
        asked = scrape(server)["eddy_http_request_duration_seconds"].samples
        assert {s.labels["status"] for s in asked if s.labels["route"].startswith("/api/")} == {
            "2xx", "4xx",
        }  # fmt: skip
