"""Commands, what comes of them, and who may give them."""

from __future__ import annotations

import pytest

from pipeline.client import results
from pipeline.client.problems import (
    ClusterRetiredError,
    ConflictError,
    ForbiddenError,
    InvalidCursorError,
    InvalidRequestError,
    StillWaitingError,
    UnauthorizedError,
)
from pipeline.client.questions import page_of
from tests.services.server.conftest import READER, WRITER


def test_a_label_is_given_and_waited_for(client):
    cluster = client.item("item-0").cluster

    job = client.label(cluster, "corner", reason="a test")
    done = job.wait()

    assert (done.state, done.kind) == ("succeeded", "label")
    assert done.result[0].label == "corner"
    assert client.cluster(cluster).label == "corner"
    assert client.job(job.id).state.state == "succeeded"
    assert job.id in {one.id for one in client.jobs()}


def test_the_same_key_is_the_same_command(client):
    cluster = client.item("item-0").cluster

    one = client.label(cluster, "twice", key="k1")
    one.wait()

    assert client.label(cluster, "twice", key="k1").id == one.id
    assert client.label(cluster, "twice").id != one.id
    with pytest.raises(ConflictError):
        client.label(cluster, "another", key="k1")


def test_a_job_that_is_not_done_is_said_so(client, living):
    with living.paused():
        job = client.label(client.item("item-0").cluster, "later")
        with pytest.raises(StillWaitingError):
            job.wait(0.0)

    assert job.wait().state == "succeeded"


def test_what_cannot_be_is_refused_before_it_is_a_job(client):
    with pytest.raises(InvalidRequestError) as caught:
        client.rollback(999)
    assert caught.value.faults[0].pointer == "/body/epoch"
    with pytest.raises(InvalidRequestError):
        client.merge([client.item("item-0").cluster])


def test_models_change_and_pages_of_the_old_one_end(make_living):
    living = make_living()
    with living.client() as client:
        cluster = client.item("item-0").cluster
        assert client.split(cluster).wait().state == "succeeded"
        clusters = [one.cluster for one in client.clusters()]
        assert len(clusters) == 5
        merged = client.merge([cluster, next(c for c in clusters if c not in ("c1", cluster))])
        assert merged.wait().state == "succeeded"
        pages = client._ask(client_page(client))
        assert client.recluster(cold=True, force=True).wait().state == "succeeded"
        if pages.next_cursor is not None:
            with pytest.raises(InvalidCursorError):
                client._ask(client_page(client, pages.next_cursor))
        retired = [e.cluster for e in client.lifecycle(type="retired")]
        if retired:
            with pytest.raises(ClusterRetiredError):
                client.cluster(retired[0])
        epochs = [model.epoch for model in client.models()]
        assert client.rollback(epochs[-1]).wait().state == "succeeded"
        assert client.model().epoch > epochs[0]


def client_page(client, cursor=None):
    return page_of(results.Cluster, "/clusters", cursor, 1, sort="size")


def test_tokens_open_what_they_may(guarded):
    with guarded.client() as nobody, pytest.raises(UnauthorizedError):
        nobody.stats()
    with guarded.client(token=READER) as reader:
        assert reader.stats().items == 80
        with pytest.raises(ForbiddenError):
            reader.recluster()
    with guarded.client(token=WRITER) as writer:
        cluster = writer.item("item-0").cluster
        assert writer.label(cluster, "mine").wait().requested_by == "w"
