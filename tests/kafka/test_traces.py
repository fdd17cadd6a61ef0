"""Traces of real processes on a real broker, as a collector receives them."""

from __future__ import annotations

from urllib.request import Request, urlopen

import pytest

from tests.kafka.site import LIMIT_S, site_at, until
from tests.telemetry.collector import collecting

pytestmark = pytest.mark.kafka

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SETTINGS = {
    "recluster.bootstrap_items": 20,
    "telemetry.log_format": "json",
    "server.port": 0,
}


def test_records_reclusters_and_requests_are_traced_from_end_to_end(kafka_cluster, tmp_path):
    with collecting() as collector:
        tracing = {"endpoint": collector.endpoint, "sample_ratio": 0.0}
        settings = SETTINGS | {"telemetry.tracing": tracing}
        with site_at(kafka_cluster.bootstrap_servers, tmp_path, settings) as site:
            site.create_topics()
            assigner, reclusterer = site.start("assigner"), site.start("reclusterer")
            site.write([site.upsert(n, [n % 2 or -1, 0.1 * n, 0, 0]) for n in range(40)])
            assigner.says("sweep_finished", limit_s=180.0)
            traced = site.upsert(1000, [1.0, 0, 0, 0])
            headers = (("traceparent", CALLER.encode()), ("tracestate", b"vendor=1"))
            site.write([traced._replace(headers=headers), site.upsert(1002, [1.0, 0, 0, 0])])
            site.wait_until_applied()
            server = site.start("server")
            server.says("server_listening", limit_s=180.0)
            server.says("view_caught_up", limit_s=180.0)
            (said,) = server.events("server_listening")
            url = f"http://127.0.0.1:{said['port']}/api/v1/items/item-1000"
            urlopen(Request(url, headers={"traceparent": CALLER}), timeout=LIMIT_S).close()
            assert [p.terminate() for p in (server, assigner, reclusterer)] == [0, 0, 0]
            until(lambda: collector.named("GET"), "the last spans are there")
            events = [r for rows in site.committed(site.topics.changes) for r in rows]

        (batch,) = collector.named(f"process {site.topics.input}")
        assert batch.links == [(CALLER.split("-")[1], CALLER.split("-")[2])]
        assert batch.resource["service.name"] == "eddy-assigner"
        inside = {span.name.replace(site.topics.prefix, "") for span in collector.children(batch)}
        assert inside == {
            "decode", "assign", "apply", "commit", "install",
            "send cluster-assignments", "send cluster-changes",
        }  # fmt: skip
        came = {event.key: event.headers for event in events if event.headers}
        assert came == {b"item-1000": headers}
        (fit,) = collector.named("recluster")
        names = {span.name for span in collector.children(fit)}
        assert names == {"load", "fit", "align", "judge", "publish"}
        assert fit.resource["service.name"] == "eddy-reclusterer"
        (request,) = collector.named("GET")
        assert request.trace_id == CALLER.split("-")[1]
        (line,) = server.events("request_finished")
        assert (line["trace_id"], line["span_id"]) == (request.trace_id, request.span_id)
