"""`eddy model migrate --status`: before, on the way, and after."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.cli.context import Twins
from pipeline.cli.main import main
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.messages.codec import encode_head, encode_vector, head_key
from pipeline.messages.events import Head
from pipeline.streams.contract import TopicSettings
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import expected_topics
from tests.cli.console import TOPICS, Console, write_model

BOTH = ("--set", "embedding.model=old", "--set", "embedding.next.model=new",
        "--set", "embedding.next.dimensions=2")  # fmt: skip


def put(eddy: Console, item: str, *, is_new: bool = False) -> None:
    headers = (("embedding-model", b"new"),) if is_new else ()
    vector = np.ones(2 if is_new else 3, np.float32)
    eddy.broker.append(TOPICS.input, 0, item.encode(), encode_vector(vector), headers)


def write_head(eddy: Console, partition: int, since: int | None) -> None:
    value = encode_head(Head(7, 0, 0, 0, 0, 0, 0, since))
    eddy.broker.append(TOPICS.statistics, partition, head_key(partition), value)


@pytest.fixture
def standing(eddy_with_topics: Console) -> Console:
    write_model(eddy_with_topics.broker, ["c1"], [3], embedding_model="old")
    return eddy_with_topics


def test_on_the_way_it_counts_items_by_their_models(standing: Console):
    eddy = standing
    for item in ("a", "b", "c", "d"):
        put(eddy, item)
    for item in ("a", "b", "c", "x"):
        put(eddy, item, is_new=True)

    assert eddy("model", "migrate", "--status", "--json", *BOTH) == 0

    (told,) = eddy.lines
    assert told["items"] == {"both": 3, "old_only": 1, "new_only": 1, "share": 0.75}
    assert (told["embedding_model"], told["next"], told["since_epoch"]) == ("old", "new", None)
    assert told["wanted_share"] == 0.95


def test_people_read_how_far_it_is(standing: Console):
    eddy = standing
    put(eddy, "a")
    put(eddy, "a", is_new=True)

    assert eddy("model", "migrate", "--status", *BOTH) == 0

    assert "old stands" in eddy.out
    assert "new is on its way" in eddy.out
    assert "100.00% of the items that stand have both; it takes over at 95.00%" in eddy.out


def test_after_the_change_it_says_since_when(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1"], [3], embedding_model="new", embedding_since=7)
    for partition in range(TOPICS.partitions):
        write_head(eddy, partition, None if partition == 0 else 7)
    named = ("--set", "embedding.model=new")

    eddy("model", "migrate", "--status", "--json", *named)
    (told,) = eddy.lines
    assert (told["embedding_model"], told["since_epoch"], told["items"]) == ("new", 7, None)
    assert told["partitions"] == {"all": 6, "arrived": 5}

    eddy("model", "migrate", "--status", *named)
    assert "new stands, since epoch 7" in eddy.out
    assert "items of 5 of 6 partitions have arrived so far" in eddy.out


def test_the_old_configuration_still_tells_after_the_change(eddy_with_topics: Console):
    eddy = eddy_with_topics
    write_model(eddy.broker, ["c1"], [3], embedding_model="new", embedding_since=7)

    equal = [*BOTH[:4], "--set", "embedding.next.dimensions=3"]
    assert eddy("model", "migrate", "--status", "--json", *equal) == 0

    (told,) = eddy.lines
    assert (told["embedding_model"], told["next"]) == ("new", None)


def test_without_another_model_it_says_that_none_is_on_its_way(standing: Console):
    eddy = standing
    assert eddy("model", "migrate", "--status", "--set", "embedding.model=old") == 0

    assert "no other is on its way" in eddy.out


def test_it_does_not_begin_anything_by_itself(standing: Console):
    eddy = standing
    assert eddy("model", "migrate", *BOTH) == 2

    assert "embedding.next.model" in eddy.err


def test_an_input_that_does_not_store_vectors_cannot_change_models(
    capsys: pytest.CaptureFixture[str],
):
    broker = MemoryBroker()
    head, *others = expected_topics(TOPICS, 1_048_576)
    config = {**head.config, "cleanup.policy": "delete"}
    broker.create_topics([TopicSettings(head.name, head.n_partitions, config), *others])
    twins = Twins(broker=lambda config, on_error: broker, kernels=lambda config: CpuKernels())
    flags = ["--set", "embedding.dimensions=3", *BOTH, "--set", "telemetry.metrics_port=0"]

    assert main([*flags, "assigner"], twins=twins) == 3

    assert "embedding.next.model is 'new', but the cleanup policy" in capsys.readouterr().err
