"""`eddy replay` on a real broker: the same events under one model, the same state across models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.messages.codec import decode_assignment, encode_vector
from pipeline.messages.model import N_QUANTILES, Manifest, Model, digest, model_records
from pipeline.messages.records import Outgoing
from pipeline.streams.topics import TopicPolicy
from tests.kafka.audit import audit_records
from tests.kafka.site import QUICK_GROUPS, site_at, until

pytestmark = pytest.mark.kafka

N_RECORDS, N_ITEMS = 1500, 60
CREATED_AT_MS = 1_772_366_400_000


@pytest.fixture
def site(kafka_cluster, tmp_path):
    """Topics, a model of two clusters, records, and an assigner that has done all of them."""
    with site_at(kafka_cluster.bootstrap_servers, tmp_path, QUICK_GROUPS) as site:
        site.create_topics()
        site.publish_model()
        site.write(records(site))
        site.start("--set", "batching.max_records=97", "assigner")
        site.wait_until_applied()
        yield site


def records(site):
    """Upserts, tombstones and what cannot be used, from one seed; a millisecond apart."""
    random = np.random.default_rng(6)
    for i in range(N_RECORDS):
        n = int(random.integers(N_ITEMS))
        value = encode_vector(random.standard_normal(4).astype(np.float32))
        value = None if i % 17 == 3 else value[:-2] if i % 29 == 5 else value
        yield Outgoing(site.topics.input, n % 2, f"item-{n}".encode(), value, (), CREATED_AT_MS + i)


def second(site, name="again."):
    return TopicPolicy(site.topics.input, site.topics.prefix + name, site.topics.partitions)


def replay(site, topics, *options):
    ended = site.run("replay", "--into", topics.prefix, "--json", *options)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def events(site, topics):
    found = site.committed(topics.changes)
    return [[(r.key, r.value, r.headers) for r in records] for records in found]


def assignments(site, topics):
    found = {}
    for part in site.committed(topics.assignments):
        for r in part:
            found[r.partition, r.key] = r.value and decode_assignment(r.value).cluster
    return {place: cluster for place, cluster in found.items() if cluster}


def publish_epoch(site, epoch, angle):
    """Two clusters on either side of a plane that is turned by ``angle``."""
    centroids = np.zeros((2, 4), np.float32)
    centroids[:, 0], centroids[:, 1] = np.cos(angle), np.sin(angle)
    centroids[1] *= -1
    manifest = Manifest(
        epoch=epoch, revision=0, metric=site.embedding.metric, dimensions=4,
        embedding_model=None, clusters=("c1", f"c{epoch + 1}"),
        max_component=site.embedding.largest_component, input_policy="compact",
        digest=digest(centroids), next_cluster_number=epoch + 2, fitted_items=2,
        fitted_inertia=1.0, fitted_offsets=(0, 0), created_at_ms=CREATED_AT_MS + epoch,
    )  # fmt: skip
    ones, quantiles = np.ones(2), np.ones((2, N_QUANTILES), np.float32)
    model = Model(manifest, centroids, np.ones(2, np.int64), ones, ones, quantiles, centroids)
    site.write(list(model_records(model, site.topics.model)))


def test_the_same_input_under_one_model_makes_the_same_bytes(site):
    letters = [len(part) for part in site.committed(site.topics.dead_letters)]

    told = replay(site, second(site), "--set", "batching.max_records=411")

    first = events(site, site.topics)
    assert events(site, second(site)) == first
    assert assignments(site, second(site)) == assignments(site, site.topics)
    assert (told["records"], told["events"]) == (N_RECORDS, sum(map(len, first)))
    assert told["dead"] == {"decode": sum(letters)}
    assert [len(part) for part in site.committed(site.topics.dead_letters)] == letters
    verified = site.run("--set", f"topics.prefix={second(site).prefix}", "verify")
    assert verified.returncode == 0, verified.stdout
    assert audit_records(site)


def test_a_replay_to_a_time_is_a_beginning_of_the_history(site):
    at_ms = CREATED_AT_MS + N_RECORDS // 2

    told = replay(site, second(site), "--at", str(at_ms))

    assert told["records"] == N_RECORDS // 2
    for had, has in zip(events(site, site.topics), events(site, second(site)), strict=True):
        assert 0 < len(has) < len(had)
        assert has == had[: len(has)]


def test_across_models_the_assignments_are_the_same_once_swept(site):
    for epoch, angle in ((2, 0.7), (3, 1.9)):
        publish_epoch(site, epoch, angle)
    until(lambda: swept_to(site, 3), "the sweep to epoch 3")

    told = replay(site, second(site))

    assert told["model"] == "3.0"
    assert assignments(site, second(site)) == assignments(site, site.topics)
    assert events(site, second(site)) != events(site, site.topics), "another way to the same end"


def swept_to(site, epoch):
    heads = {}
    for part in site.committed(site.topics.statistics):
        for record in part:
            if b"/" not in record.key and record.value:
                heads[record.key] = json.loads(record.value)["model"]
    return len(heads) == 2 and all(head and head["epoch"] == epoch for head in heads.values())


def test_a_letter_that_comes_back_is_read_by_the_assigner(site):
    first = next(r for part in site.committed(site.topics.dead_letters) for r in part)
    where = f"{first.partition}:{first.offset}"

    assert site.run("dlq", "show", where).returncode == 0
    ended = site.run("dlq", "redrive", where, "--even-if-newer", "--json")

    assert json.loads(ended.stdout)["redriven"] == 1, ended.stderr
    *_, back = site.committed(site.topics.input)[first.partition]
    assert (back.key, back.value) == (first.key, first.value)
    site.wait_until_applied()
    *_, last = site.committed(site.topics.dead_letters)[first.partition]
    came_from = f"{site.topics.dead_letters}/{first.partition}/{first.offset}"
    assert ("eddy-redriven", came_from.encode()) in last.headers
    again = site.run("dlq", "redrive", where, "--even-if-newer", "--json")
    assert json.loads(again.stdout)["skipped"]["redriven_before"] == 1
