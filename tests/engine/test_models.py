"""What a new model does to members, labels, statistics and heads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.engine.cluster_engine import Restored
from pipeline.errors import TopicError
from pipeline.messages.codec import decode_head
from pipeline.state.members import Members, Version
from tests.engine.house import TOPICS, engine, model, of_topic, record, write


def sweep(made, partition=0, max_rows=2):
    """Sweep to the end; everything that went out."""
    out = []
    while made.partitions[partition].to_sweep:
        changes = made.sweep(partition, max_rows=max_rows)
        made.install(changes)
        out += changes.outgoing
    return out


def heads(outgoing):
    return [decode_head(o.value) for o in of_topic(outgoing, TOPICS.statistics) if o.key == b"0"]


def test_a_sweep_moves_who_is_nearer_to_another_centroid_and_says_why():
    made = engine()
    write(made, [record(n, f"i{n}", [x, 0]) for n, x in enumerate([-3, -2, -1, 1, 2])])

    made.install_model(model([[-3, 0], [-0.5, 0]], epoch=2))
    changes = [json.loads(o.value) for o in of_topic(sweep(made), TOPICS.changes)]

    assert [(e["item"], e["from"], e["to"]) for e in changes] == [("i2", "c1", "c2")]
    assert changes[0]["id"] == "model/2.0/i2"
    assert changes[0]["cause"] == "model"
    assert changes[0]["source"]["offset"] == 2
    assert changes[0]["occurred_at"] == "1970-01-01T00:00:00.007Z"


def test_a_model_that_changes_nothing_makes_no_event():
    made = engine()
    write(made, [record(n, f"i{n}", [n - 2, 1]) for n in range(5)])

    made.install_model(model(epoch=2))

    assert sweep(made) == []
    assert made.partitions[0].swept_to == Version(2, 0)


def test_a_cluster_that_retired_gets_a_null_once_nobody_is_in_it():
    made = engine(first=model([[-1, 0], [0, 5], [1, 0]]))
    write(made, [record(0, "a", [0, 5]), record(1, "b", [1, 0])])
    sweep(made)
    made.install(made.publish_statistics(0))

    made.install_model(model([[-1, 0], [1, 0]], epoch=2, clusters=("c1", "c3")))
    early = made.publish_statistics(0)
    made.install(early)
    sweep(made)
    late = made.publish_statistics(0)
    made.install(late)

    assert [o.value is None for o in of_topic(early.outgoing, TOPICS.statistics)
            if o.key == b"0/c2"] == [False]  # fmt: skip
    assert [o.value is None for o in of_topic(late.outgoing, TOPICS.statistics)
            if o.key == b"0/c2"] == [True]  # fmt: skip
    assert made.table.ids == ["c1", "c3"]
    assert late.outgoing[-1].key == b"0"  # the head stands last
    assert heads(late.outgoing)[0].epoch == 2


def test_the_first_head_of_an_owner_names_no_model():
    (head,) = heads(engine().publish_head(0).outgoing)

    assert (head.epoch, head.revision, head.next_offset) == (None, None, 0)


def test_an_older_model_is_not_installed():
    made = engine(first=model(epoch=3))

    assert not made.install_model(model(epoch=2))
    assert made.version == Version(3, 0)


@pytest.mark.parametrize(
    "other",
    [{"metric": "cosine"}, {"max_component": 1.0}, {"embedding_model": "x"},
     {"input_policy": "delete"}],
)  # fmt: skip
def test_a_model_of_another_kind_is_refused(other):
    with pytest.raises(TopicError, match="set"):
        engine().install_model(model(epoch=2, **other))


def test_a_restored_partition_remembers_clusters_that_retired_meanwhile():
    made = engine(first=model([[-1, 0], [1, 0]], clusters=("c1", "c9")))
    members = Members(2)
    rows = members.put([b"a"])
    members.vectors[rows] = np.array([[1, 0]], np.float32)
    made.adopt(Restored(1, 5, members, ["c4"], {b"g": ("c2", 3, False)}, set(), 9))

    out = [json.loads(o.value) for o in of_topic(sweep(made, 1), TOPICS.changes)]
    gone = made.lose_ghosts(1)

    assert [(e["from"], e["to"]) for e in out] == [("c4", "c9")]
    (lost,) = [json.loads(o.value) for o in of_topic(gone.outgoing, TOPICS.changes)]
    assert (lost["id"], lost["from"], lost["cause"]) == ("lost/in/1/3", "c2", "lost")
