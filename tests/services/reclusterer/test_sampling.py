"""The reclusterer's sample while another embedding model is on its way."""

from __future__ import annotations

import numpy as np

from pipeline.messages.codec import encode_vector
from pipeline.messages.embedding import in_force, model_headers, offset_headers, successor_key
from pipeline.messages.policy import EmbeddingPolicy, LimitPolicy, NextEmbedding
from pipeline.services.reclusterer.migration import Migration, Progress
from pipeline.services.reclusterer.sampling import SampleReader
from pipeline.state.sample import Sample
from pipeline.streams.memory import MemoryBroker
from pipeline.streams.topics import TopicPolicy, expected_topics

TOPICS = TopicPolicy(input="in", prefix="t.", partitions=1)
BOTH = EmbeddingPolicy(dimensions=2, model="old", next=NextEmbedding("new", 3))
AFTER = in_force(BOTH, "new", 2)
NAMED = (("embedding-model", b"new"),)
OLD, OTHER_OLD = [1, 2], [3, 4]
NEW, OTHER_NEW = [1, 2, 3], [4, 5, 6]


def broker():
    made = MemoryBroker()
    made.create_topics(expected_topics(TOPICS, 1_048_576))
    return made


def put(made, item, vector, *, topic=TOPICS.input, headers=(), sequence=0):
    value = None if vector is None else encode_vector(np.array(vector, np.float32), sequence)
    key = item if isinstance(item, bytes) else item.encode()
    return made.append(topic, 0, key, value, headers, 7)


def reading(made, embedding=BOTH, max_items=1000):
    reader = SampleReader(made, TOPICS, embedding, LimitPolicy(), max_items, lambda: 0.0)
    follow(reader)
    return reader


def follow(reader):
    for _ in reader.begin():
        pass
    while not reader.has_caught_up:
        reader.read()


def held(sample):
    return {key.decode(): sample.vectors[row].tolist() for key, row in sample.items()}


def test_an_item_may_have_a_vector_of_each_model():
    made = broker()
    put(made, "a", OLD)
    put(made, "b", OLD)
    put(made, "a", NEW, headers=NAMED)
    put(made, "c", NEW, headers=NAMED)

    reader = reading(made)

    assert held(reader.sample) == {"a": OLD, "b": OLD}
    assert held(reader.next_sample) == {"a": NEW, "c": NEW}
    assert Progress.of(reader.sample, reader.next_sample) == Progress(1, 1, 1)


def test_a_newer_vector_of_the_old_model_makes_that_of_the_next_out_of_date():
    made = broker()
    for vector, headers in ((OLD, ()), (NEW, NAMED), (OTHER_OLD, ()), (OLD, ())):
        put(made, "a", vector, headers=headers)
    put(made, "b", OLD)
    put(made, "b", NEW, headers=NAMED)
    put(made, "b", OTHER_OLD)
    put(made, "b", OTHER_NEW, headers=NAMED)

    reader = reading(made)

    assert held(reader.sample) == {"a": OLD, "b": OTHER_OLD}
    assert held(reader.next_sample) == {"b": OTHER_NEW}


def test_a_stale_record_of_the_old_model_does_not():
    made = broker()
    put(made, "a", OLD, sequence=5)
    put(made, "a", NEW, headers=NAMED, sequence=1)
    put(made, "a", OTHER_OLD, sequence=4)

    assert held(reading(made).next_sample) == {"a": NEW}


def test_a_tombstone_removes_both():
    made = broker()
    put(made, "a", OLD)
    put(made, "a", NEW, headers=NAMED)
    put(made, "a", None)

    reader = reading(made)

    assert (held(reader.sample), held(reader.next_sample)) == ({}, {})


def test_copies_of_both_models_stand_side_by_side():
    made = broker()
    waiting = (*model_headers(AFTER), *offset_headers(3))
    put(made, "a", OLD, topic=TOPICS.vectors)
    put(made, successor_key(b"a"), NEW, topic=TOPICS.vectors, headers=waiting)
    put(made, "b", OLD, topic=TOPICS.vectors)
    put(made, successor_key(b"b"), NEW, topic=TOPICS.vectors, headers=waiting)
    put(made, successor_key(b"b"), None, topic=TOPICS.vectors)

    reader = reading(made)

    assert held(reader.sample) == {"a": OLD, "b": OLD}
    assert held(reader.next_sample) == {"a": NEW}


def test_both_samples_are_of_the_same_items():
    made = broker()
    for i in range(200):
        put(made, f"item-{i}", OLD)
    for i in range(0, 200, 2):
        put(made, f"item-{i}", NEW, headers=NAMED)

    reader = reading(made, max_items=60)

    assert reader.sample.hash_range == reader.next_sample.hash_range
    progress = Progress.of(reader.sample, reader.next_sample)
    assert progress.n_new_only == 0
    assert 0.3 < progress.share < 0.7


def test_the_share_is_not_told_before_the_input_was_read():
    made = broker()
    put(made, "a", OLD)
    reader = SampleReader(made, TOPICS, BOTH, LimitPolicy(), 1000, lambda: 0.0)
    for _ in reader.begin():
        pass

    assert not reader.has_caught_up
    reader.read()
    assert reader.has_caught_up


def test_the_next_sample_goes_on_as_the_sample_when_its_model_takes_over():
    made = broker()
    put(made, "a", OLD)
    put(made, "a", NEW, headers=NAMED)
    reader = reading(made)

    reader.stand_by(AFTER)
    put(made, "a", OTHER_OLD)
    put(made, "b", OTHER_NEW, headers=NAMED)
    reader.read()

    assert held(reader.sample) == {"a": NEW, "b": OTHER_NEW}
    assert reader.next_sample is None


def test_equal_dimensions_do_not_let_old_copies_in_after_the_change():
    embedding = in_force(EmbeddingPolicy(dimensions=2, model="new"), "new", 2)
    made = broker()
    put(made, "left", OLD, topic=TOPICS.vectors)
    put(made, "here", OTHER_OLD, topic=TOPICS.vectors, headers=model_headers(embedding))
    put(made, "left", OTHER_OLD)  # names nobody: it counts as one of the first model
    waiting = (*model_headers(embedding), *offset_headers(3))
    put(made, successor_key(b"late"), OTHER_OLD, topic=TOPICS.vectors, headers=waiting)

    reader = reading(made, embedding)

    assert held(reader.sample) == {"here": OTHER_OLD, "late": OTHER_OLD}


def filled(n_items, dims):
    sample = Sample(dims, max_items=1000)
    keys = [b"%d" % i for i in range(n_items)]
    sample.apply(
        keys, range(n_items), np.zeros((n_items, dims), np.float32), [0] * n_items, [0] * n_items
    )
    return sample


def test_it_takes_over_at_the_share_and_not_before():
    now = iter(range(100)).__next__
    migration = Migration(0.5, lambda: 10.0 * now())

    assert not migration.is_due(filled(10, 2), filled(4, 3))
    assert migration.is_due(filled(10, 2), filled(5, 3))
    assert not migration.is_due(filled(10, 2), filled(0, 3))
    assert migration.progress.share == 0.5


def test_items_that_only_the_next_model_knows_do_not_count():
    others = Sample(3, max_items=1000)
    keys = [b"other-%d" % i for i in range(10)]
    others.apply(keys, range(10), np.zeros((10, 3), np.float32), [0] * 10, [0] * 10)

    assert not Migration(0.5, lambda: 0.0).is_due(filled(10, 2), others)
