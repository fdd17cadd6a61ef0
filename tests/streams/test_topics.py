"""Names, settings and the check of topics."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import ConfigError
from pipeline.streams.contract import TopicSettings
from pipeline.streams.topics import (
    Problem,
    Severity,
    TopicPolicy,
    check_topics,
    cleanup_policy,
    expected_topics,
    keeps_vectors,
)

MAX_RECORD_BYTES = 1_048_576
DAY_MS = 86_400_000


def found(policy: TopicPolicy = TopicPolicy()) -> dict[str, TopicSettings]:  # noqa: B008 - frozen
    """What ``eddy topics create`` leaves behind."""
    return {topic.name: topic for topic in expected_topics(policy, MAX_RECORD_BYTES)}


def check(topics: dict[str, TopicSettings]) -> list[Problem]:
    return check_topics(topics, TopicPolicy(), MAX_RECORD_BYTES)


def changed(topic: str, **config: str) -> dict[str, TopicSettings]:
    topics = found()
    given = {key.replace("_", "."): value for key, value in config.items()}
    topics[topic] = replace(topics[topic], config=topics[topic].config | given)
    return topics


def test_derived_topics_carry_the_prefix_and_dead_letters_the_name_of_the_input():
    policy = TopicPolicy(input="in", prefix="p.")

    assert policy.names == (
        "in",
        "p.cluster-changes",
        "p.cluster-assignments",
        "p.item-vectors",
        "p.cluster-stats",
        "p.cluster-model",
        "p.cluster-drift",
        "p.cluster-lifecycle",
        "p.recluster-commands",
        "in.dlq",
    )


def test_topics_beside_the_input_have_its_partitions_and_the_others_one():
    counts = {name: t.n_partitions for name, t in found(TopicPolicy(partitions=12)).items()}

    single = {"eddy.cluster-model", "eddy.cluster-drift", "eddy.cluster-lifecycle"}
    single.add("eddy.recluster-commands")
    assert {name for name, n in counts.items() if n == 1} == single
    assert {n for name, n in counts.items() if name not in single} == {12}


@pytest.mark.parametrize(
    ("topic", "policy", "option", "value"),
    [
        ("embedding-changes", "compact", "delete.retention.ms", 7 * DAY_MS),
        ("eddy.cluster-assignments", "compact", "delete.retention.ms", 7 * DAY_MS),
        ("eddy.item-vectors", "compact", "delete.retention.ms", 7 * DAY_MS),
        ("eddy.cluster-stats", "compact", "delete.retention.ms", 7 * DAY_MS),
        ("eddy.cluster-model", "compact", "delete.retention.ms", 7 * DAY_MS),
        ("eddy.cluster-changes", "delete", "retention.ms", 7 * DAY_MS),
        ("eddy.recluster-commands", "delete", "retention.ms", 7 * DAY_MS),
        ("eddy.cluster-drift", "delete", "retention.ms", 30 * DAY_MS),
        ("eddy.cluster-lifecycle", "delete", "retention.ms", -1),
        ("embedding-changes.dlq", "delete", "retention.ms", 30 * DAY_MS),
        ("embedding-changes.dlq", "delete", "max.message.bytes", MAX_RECORD_BYTES + 65_536),
    ],
)
def test_a_topic_is_made_with_the_settings_of_the_wire(topic, policy, option, value):
    config = found()[topic].config

    assert config["cleanup.policy"] == policy
    assert config[option] == str(value)


def test_what_create_makes_has_no_problem():
    assert check(found()) == []


@pytest.mark.parametrize("topic", list(TopicPolicy().names))
def test_a_missing_topic_is_an_error(topic):
    topics = found()
    del topics[topic]

    (problem,) = check(topics)

    assert (problem.severity, problem.topic) == (Severity.ERROR, topic)
    assert "eddy topics create" in problem.message


@pytest.mark.parametrize("topic", list(TopicPolicy().names))
def test_another_number_of_partitions_is_an_error_that_says_why(topic):
    topics = found()
    topics[topic] = replace(topics[topic], n_partitions=7)

    (problem,) = check(topics)

    assert (problem.severity, problem.topic) == (Severity.ERROR, topic)
    assert "7 partitions" in problem.message
    assert "an item would live twice" in problem.message


@pytest.mark.parametrize("topic", list(TopicPolicy().names)[1:])
@pytest.mark.parametrize("policy", ["compact", "delete", "compact,delete", None])
def test_another_cleanup_policy_of_a_derived_topic_is_an_error(topic, policy):
    topics = found()
    right = topics[topic].config["cleanup.policy"]
    config = dict(topics[topic].config)
    del config["cleanup.policy"]
    if policy is not None:
        config["cleanup.policy"] = policy
    topics[topic] = replace(topics[topic], config=config)

    problems = check(topics)

    assert [p.severity for p in problems] == ([] if policy == right else [Severity.ERROR])


def test_an_operator_may_keep_what_is_deleted_for_longer_or_shorter():
    assert check(changed("eddy.cluster-changes", retention_ms="1000")) == []


@pytest.mark.parametrize("policy", ["delete", "compact,delete", "compact"])
def test_the_input_may_have_any_policy(policy):
    assert check(changed("embedding-changes", cleanup_policy=policy)) == []


def test_an_input_whose_policy_is_not_told_is_an_error():
    problems = check(changed("embedding-changes", cleanup_policy=""))

    assert [p.severity for p in problems] == [Severity.ERROR]


@pytest.mark.parametrize("option", ["delete.retention.ms", "min.compaction.lag.ms"])
def test_a_compacted_input_that_forgets_within_a_day_is_a_warning(option):
    topics = changed("embedding-changes", **{option.replace(".", "_"): str(DAY_MS - 1)})

    (problem,) = check(topics)

    assert (problem.severity, problem.topic) == (Severity.WARNING, "embedding-changes")
    assert option in problem.message


def test_an_input_that_is_not_compacted_forgets_no_tombstone():
    topics = changed(
        "embedding-changes", cleanup_policy="delete", delete_retention_ms="0", retention_ms="1"
    )

    assert check(topics) == []


def test_dead_letters_must_hold_the_largest_record():
    problems = check(changed("embedding-changes.dlq", max_message_bytes=str(MAX_RECORD_BYTES)))

    assert [(p.severity, p.topic) for p in problems] == [(Severity.ERROR, "embedding-changes.dlq")]


def test_a_service_looks_at_the_topics_that_it_uses():
    policy = TopicPolicy()

    problems = check_topics({}, policy, MAX_RECORD_BYTES, only=[policy.model])

    assert [p.topic for p in problems] == [policy.model]


@pytest.mark.parametrize(
    ("given", "spelled", "keeps"),
    [
        ("compact", "compact", True),
        ("delete", "delete", False),
        ("delete, compact", "compact,delete", False),
        ("compact,delete", "compact,delete", False),
    ],
)
def test_only_an_input_that_is_exactly_compact_keeps_the_vectors(given, spelled, keeps):
    settings = TopicSettings("in", 1, {"cleanup.policy": given})

    assert cleanup_policy(settings) == spelled
    assert keeps_vectors(settings) is keeps


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("partitions", 0),
        ("replication_factor", 0),
        ("input", ""),
        ("input", "no spaces"),
        ("prefix", "ed/dy."),
        ("input", "x" * 250),
        ("input", "eddy.cluster-model"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_name_of_the_option(option, value):
    with pytest.raises(ConfigError, match=f"topics.{option}"):
        TopicPolicy(**{option: value})
