"""The catalogue holds, and an instrument says what it was told."""

from __future__ import annotations

import re

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import Reason
from pipeline.telemetry import catalogue, catalogue_server
from pipeline.telemetry.catalogue import CATALOGUE, KERNELS, REASONS
from pipeline.telemetry.kinds import MAX_CODES, Kind, Open
from pipeline.telemetry.logs import LEVELS
from pipeline.telemetry.metrics import Metrics
from pipeline.telemetry.policy import Thresholds

NOW = 1_000_000.0


@pytest.fixture
def metrics():
    return Metrics("assigner", version="1.2.3", now=lambda: NOW)


def samples(metrics):
    """Every series by name and labels, as Prometheus reads it."""
    text = metrics.exposition()[0].decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# The catalogue


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=lambda metric: metric.name)
def test_a_metric_keeps_the_form_of_its_kind(metric):
    assert re.fullmatch(r"eddy_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    assert metric.services
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not {"le", "pod", "instance", "job", "service"} & set(metric.labels)


def test_no_name_stands_twice():
    assert len(CATALOGUE) == len(catalogue._ROWS) + len(catalogue_server.SERVER_ROWS)


def test_the_catalogue_agrees_with_what_it_may_not_import():
    assert {reason.value for reason in Reason} == set(REASONS)
    assert set(CATALOGUE["eddy_log_events_total"].labels["level"]) == set(LEVELS)
    assert set(CATALOGUE["eddy_threshold"].labels["name"]) == set(Thresholds.__slots__)


def test_a_release_stays_below_its_number_of_series():
    n = 0
    for service, n_pods in (("assigner", 4), ("reclusterer", 1)):
        one = Metrics(service)
        for metric in CATALOGUE.values():
            if service not in metric.services:
                continue
            closed = [v for v in metric.labels.values() if not isinstance(v, Open)]
            for labels in np.ndindex(*map(len, closed)):  # everything it could ever set
                given = {
                    name: 0 if isinstance(allowed, Open) else allowed[at]
                    for (name, allowed), at in zip(
                        metric.labels.items(),
                        [*labels, *[0] * (len(metric.labels) - len(closed))],
                        strict=True,
                    )
                }
                if metric.name == "eddy_assign_duration_seconds" and given["kernel"] != KERNELS[0]:
                    continue  # a process has one
                bound = getattr(one, metric.kind.value)(metric.name, **given)
                if metric.kind is Kind.GAUGE:
                    bound.set(1)
        n += n_pods * len(samples(one))
    n_partitions = 12
    n += 3 * n_partitions + 5 * MAX_CODES

    assert n < 2500


# What is not in it does not exist


@pytest.mark.parametrize(
    ("bind", "name", "labels"),
    [
        ("counter", "eddy_nothing_total", {}),
        ("gauge", "eddy_rebalances_total", {"kind": "lost"}),
        ("counter", "eddy_rebalances_total", {}),
        ("counter", "eddy_rebalances_total", {"kind": "gone"}),
        ("counter", "eddy_rebalances_total", {"kind": "lost", "partition": 1}),
        ("counter", "eddy_rebalances_total", {"sort": "lost"}),
        ("gauge", "eddy_consumer_lag_records", {"partition": "three"}),
        ("counter", "eddy_reclusters_total", {"reason": "age", "result": "failed"}),
    ],
)
def test_what_is_not_in_the_catalogue_cannot_be_bound(metrics, bind, name, labels):
    with pytest.raises(AssertionError):
        getattr(metrics, bind)(name, **labels)


def test_another_service_is_none():
    with pytest.raises(ValueError, match="gardener"):
        Metrics("gardener")


# Instruments


def test_a_counter_is_there_from_the_start_and_grows(metrics):
    key = ("eddy_dead_letters_total", ("reason", "dimension"))
    assert samples(metrics)[key] == 0

    counter = metrics.counter("eddy_dead_letters_total", reason="dimension")
    counter.inc()
    counter.inc(3)

    assert samples(metrics)[key] == 4
    with pytest.raises(AssertionError):
        counter.inc(-1)


def test_binding_twice_is_one_series(metrics):
    assert metrics.gauge("eddy_members") is metrics.gauge("eddy_members")


def test_a_gauge_nobody_set_is_left_out(metrics):
    gauge = metrics.gauge("eddy_last_progress_timestamp_seconds")
    assert ("eddy_last_progress_timestamp_seconds",) not in samples(metrics)

    gauge.set(12.5)

    assert samples(metrics)[("eddy_last_progress_timestamp_seconds",)] == 12.5


def test_a_process_says_what_it_is_and_what_alerts_compare_with():
    metrics = Metrics(
        "reclusterer", version="1.2.3", revision="abc", thresholds={"cluster_size_cv": 2}
    )

    found = samples(metrics)

    assert found[("eddy_build_info", ("revision", "abc"), ("version", "1.2.3"))] == 1
    assert found[("eddy_threshold", ("name", "cluster_size_cv"))] == 2


def test_a_histogram_counts_at_and_below_each_bound(metrics):
    one, many = metrics.histogram("eddy_micro_batch_records"), metrics.histogram("eddy_confidence")
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(0, 20_000, 500).tolist(), 1, 4, 16384]
    confidences = np.append(rng.random(500), [0.0, 0.1, 1.0])

    for size in sizes:
        one.observe(size)
    for part in np.array_split(confidences, 7):
        many.observe_many(part)
    many.observe_many(np.array([]))

    found = samples(metrics)
    for name, values, instrument in (
        ("eddy_micro_batch_records", np.array(sizes), one),
        ("eddy_confidence", confidences, many),
    ):
        for bound in instrument.bounds:
            key = (f"{name}_bucket", ("le", str(float(bound))))
            assert found[key] == (values <= bound).sum()
        assert found[(f"{name}_bucket", ("le", "+Inf"))] == len(values)
        assert found[(f"{name}_count",)] == len(values)
        assert found[(f"{name}_sum",)] == pytest.approx(values.sum(), rel=1e-12)


def test_observing_many_is_observing_each(metrics):
    each, many = (
        metrics.histogram("eddy_sweep_duration_seconds", kind=k) for k in ("epoch", "revision")
    )
    values = np.array([0.1, 0.25, 0.2, 5000.0, 0.0])

    for v in values.tolist():
        each.observe(v)
    many.observe_many(values)

    assert each.read()[0] == many.read()[0]
    assert values.tolist() == [0.1, 0.25, 0.2, 5000.0, 0.0]


def test_latencies_of_a_batch_are_judged_against_the_objective():
    metrics = Metrics("assigner", slo_freshness_s=0.5)

    metrics.committed(np.array([0.1, 0.5, 0.51, 3.0, -7.0]))  # a clock that is ahead is fresh
    metrics.committed(np.array([]))

    found = samples(metrics)
    assert found[("eddy_slo_freshness_records_total", ("outcome", "good"))] == 3
    assert found[("eddy_slo_freshness_records_total", ("outcome", "bad"))] == 2
    assert found[("eddy_end_to_end_latency_seconds_count",)] == 5
    assert found[("eddy_end_to_end_latency_seconds_sum",)] == pytest.approx(4.11)


def test_codes_of_errors_are_bounded(metrics):
    for number in range(MAX_CODES + 10):
        metrics.kafka_error(f"_CODE_{number}")
    metrics.kafka_error("_CODE_0")

    found = {k: v for k, v in samples(metrics).items() if k[0] == "eddy_kafka_errors_total"}
    assert len(found) == MAX_CODES + 1
    assert found[("eddy_kafka_errors_total", ("code", "_CODE_0"))] == 2
    assert found[("eddy_kafka_errors_total", ("code", "other"))] == 10


# Lag, and partitions that go


def seconds(metrics, partition):
    return samples(metrics)[("eddy_consumer_lag_seconds", ("partition", str(partition)))]


def test_lag_in_seconds_grows_while_nobody_says_anything():
    clock = [NOW]
    metrics = Metrics("assigner", now=lambda: clock[0])
    metrics.lag(3, records=7, committed_timestamp_s=NOW - 2)
    metrics.lag(4, records=0, committed_timestamp_s=NOW - 100)
    metrics.lag(5, records=7, committed_timestamp_s=None)
    metrics.lag(6, records=7, committed_timestamp_s=NOW + 50)

    clock[0] += 10

    assert seconds(metrics, 3) == 12
    assert seconds(metrics, 4) == 0
    assert seconds(metrics, 5) == 10
    assert seconds(metrics, 6) == 0
    assert samples(metrics)[("eddy_consumer_lag_records", ("partition", "3"))] == 7


def test_lag_without_a_committed_record_counts_from_when_it_was_first_seen():
    clock = [NOW]
    metrics = Metrics("assigner", now=lambda: clock[0])
    metrics.lag(0, records=0, committed_timestamp_s=None)
    clock[0] += 100
    metrics.lag(0, records=5, committed_timestamp_s=None)
    clock[0] += 10
    metrics.lag(0, records=9, committed_timestamp_s=None)

    assert seconds(metrics, 0) == 10


def test_the_series_of_a_partition_go_with_it():
    assigner, reclusterer = Metrics("assigner"), Metrics("reclusterer")
    for partition in (1, 11):
        assigner.lag(partition, records=1, committed_timestamp_s=0.0)
        reclusterer.gauge("eddy_group_lag_records", partition=partition).set(1)

    for metrics in (assigner, reclusterer):
        metrics.forget_partition(1)
        metrics.forget_partition(5)

        assert {key[-1] for key in samples(metrics) if "partition" in str(key)} == {
            ("partition", "11")
        }


# The text


def test_the_text_is_well_formed_in_both_forms(metrics):
    plain, plain_type = metrics.exposition()
    open_, open_type = metrics.exposition("application/openmetrics-text; version=1.0.0")

    assert plain_type.startswith("text/plain")
    assert open_type.startswith("application/openmetrics-text")
    assert open_.endswith(b"# EOF\n")
    assert b"_created" not in plain
    names = {f.name for f in text_string_to_metric_families(plain.decode())}
    assert names <= {name.removesuffix("_total") for name in CATALOGUE}
