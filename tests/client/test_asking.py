"""Questions and answers: typed, frozen, page by page."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.client import problems, results
from pipeline.client.pages import pages
from pipeline.client.problems import AnswerError, InvalidRequestError, NotFoundError
from pipeline.client.questions import page_of
from pipeline.client.reading import WIRE, read
from pipeline.errors import UsageError
from pipeline.services.server.problems import TITLES
from pipeline.services.server.routes.frames import take_frame
from tests.simulation.test_commands import CORNERS

SCHEMAS = json.loads((Path(__file__).parents[2] / "schemas" / "openapi.json").read_text())
SHAPES = {
    "Version": results.Version, "Signal": results.Signal, "Cluster": results.Cluster,
    "ClusterReply": results.ClusterDetail, "Member": results.Member,
    "NearCluster": results.NearCluster, "Change": results.Change, "ItemReply": results.Item,
    "NearItem": results.NearItem, "AssignReply": results.Assigned, "Trend": results.Trend,
    "FlowRow": results.Flow, "Bucket": results.Bucket, "LifecycleRow": results.LifecycleEvent,
    "DriftBoardReply": results.DriftBoard, "TimelineReply": results.Timeline,
    "ModelRow": results.ModelSummary, "ModelReply": results.Model,
    "MapRow": results.MapRow, "Frame": results.Frame,
    "PartitionRow": results.Partition, "StatsReply": results.Stats, "JobReply": results.JobState,
}  # fmt: skip
OURS = {("Change", "metadata")}


@pytest.mark.parametrize("name", SHAPES)
def test_results_have_the_fields_of_the_servers_schema(name):
    told = set(SCHEMAS["components"]["schemas"][name]["properties"])

    ours = {WIRE.get(one.name, one.name) for one in dataclasses.fields(SHAPES[name])}

    assert ours - {field for shape, field in OURS if shape == name} == told


def test_every_problem_of_the_server_has_a_class():
    assert set(TITLES) - set(problems._CLASSES) == {"internal"}


def test_clusters_come_typed_and_page_by_page(client):
    clusters = list(client.clusters(sort="size"))

    assert len(clusters) == 4
    assert all(isinstance(one, results.Cluster) for one in clusters)
    assert sum(one.size for one in clusters) == client.stats().items
    assert isinstance(clusters[0].born_at, datetime)
    assert clusters[0].born_at.tzinfo is UTC
    with pytest.raises(dataclasses.FrozenInstanceError):
        clusters[0].size = 1


def test_frames_of_the_map_come_typed(client, living):
    take_frame(living.site.server.desk)

    frames = client.frames(step_s=60)

    assert isinstance(frames[-1].t, datetime)
    assert isinstance(frames[-1].model, results.Version)
    assert {row.cluster for row in frames[-1].clusters} == {
        one.cluster for one in client.clusters()
    }
    assert client.frames(since=frames[-1].t, until=frames[-1].t)[0] == frames[-1]


def test_pages_are_walked_to_the_end(client, living):
    cluster = client.cluster(client.item("item-0").cluster)
    path = f"/clusters/{cluster.cluster}/members"

    by_three = pages(
        client._ask,
        lambda cursor, size: page_of(results.Member, path, cursor, min(size, 3), order="item_id"),
        None,
    )
    ids = [member.item for member in by_three]

    assert ids == [member.item for member in client.members(cluster.cluster, order="item_id")]
    assert ids == sorted(set(ids), key=str.encode)
    assert len(ids) == cluster.size > 3
    assert len(list(client.members(cluster.cluster, limit=5))) == 5
    assert list(client.members(cluster.cluster, limit=0)) == []


def test_items_are_all_of_them_with_their_clusters(client):
    placed = {row.item: row.cluster for row in client.items()}

    assert len(placed) == client.stats().items
    assert placed["item-5"] == client.item("item-5").cluster


def test_an_item_tells_of_its_changes(client):
    item = client.item("item-1")

    assert item.changes[-1].type == "assigned"
    assert item.changes[-1].to_cluster is not None
    assert item.changes[-1].from_cluster is None
    assert isinstance(item.model, results.Version)


def test_neighbours_of_items_and_of_vectors(client):
    own = client.item("item-2").cluster

    assert [near.cluster for near in client.related("item-2", limit=3)] == [own] * 3
    assert {near.cluster for near in client.similar("item-2", limit=3)} == {own}
    near = client.similar(CORNERS[2], limit=3)
    assert {one.cluster for one in near} == {own}
    assert near[0].distance <= near[1].distance <= near[2].distance
    assert client.similar(CORNERS[2], min_similarity=0.999999) == ()
    assert client.assign(CORNERS[2]).cluster == own
    assert client.near_clusters(own, limit=2)[0].cluster != own


def test_what_happens_is_told(client):
    model = client.model()
    assert client.models()[0].epoch == model.epoch
    assert model.dimensions == 3
    assert {trend.cluster for trend in client.trending(window="24h", by="gain")} <= set(
        model.clusters
    )
    assert [event.type for event in client.lifecycle(type="installed")]
    assert list(client.changes(item="item-3"))[-1].item == "item-3"
    assert list(client.changes(since=datetime(2100, 1, 1, tzinfo=UTC))) == []
    assert client.drift().signals == ()
    assert list(client.alarms()) == []
    assert client.timeline(model.clusters[0]).bucket_s > 0
    assert client.flows(window="24h") is not None
    assert list(client.jobs()) is not None


@pytest.mark.parametrize("item", ["nobody", "a/b", "..", "ä\n", "~b64:x", "100%", "?x=1"])
def test_an_item_that_nobody_knows_is_not_found(client, item):
    with pytest.raises(NotFoundError) as caught:
        client.item(item)

    assert caught.value.status == 404
    assert caught.value.request_id


def test_what_the_server_refuses_says_where(client):
    with pytest.raises(InvalidRequestError, match="must be") as caught:
        client.similar(CORNERS[0], limit=5000)

    assert caught.value.faults[0].pointer == "/body/limit"
    with pytest.raises(InvalidRequestError, match="2 dimensions, but expected 3") as other:
        client.assign([1.0, 2.0])
    assert other.value.name == "dimension-mismatch"


@pytest.mark.parametrize("vector", [[], [[1.0]], [float("nan")], "abc", [1, None]])
def test_what_is_no_vector_is_not_even_asked(client, vector):
    with pytest.raises(UsageError):
        client.assign(vector)


def test_names_that_lead_elsewhere_are_no_clusters(client):
    with pytest.raises(UsageError):
        client.cluster("../stats")


def test_an_answer_that_says_more_is_read_and_one_that_says_less_is_not():
    assert read(results.Version, {"epoch": 1, "revision": 2, "more": 3}) == results.Version(1, 2)
    with pytest.raises(AnswerError, match="Version lacks revision"):
        read(results.Version, {"epoch": 1})
    with pytest.raises(AnswerError, match="no object"):
        read(results.Version, [1])
