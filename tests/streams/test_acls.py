"""The table of permissions: the documentation shows it, and a service asks for what is in it."""

from __future__ import annotations

from pathlib import Path

from pipeline.streams.acls import NEEDS, TOPICS, Role, lacking, table
from pipeline.streams.contract import TopicSettings
from pipeline.streams.topics import TopicPolicy

PAGE = Path(__file__).parent.parent.parent / "docs/security.md"


def test_the_documentation_shows_the_table():
    assert table() in PAGE.read_text("utf-8")


def test_every_role_and_every_topic_is_in_it():
    policy = TopicPolicy()

    assert set(NEEDS) == set(Role)
    assert tuple(getattr(policy, name) for name in TOPICS) == policy.names


def test_a_permission_that_is_not_there_is_named_and_one_not_told_is_passed_over():
    policy = TopicPolicy()
    few = TopicSettings(policy.drift, 1, {}, frozenset({"Describe", "DescribeConfigs"}))
    untold = TopicSettings(policy.model, 1, {})

    said = lacking(Role.RECLUSTERER, policy, {policy.drift: few, policy.model: untold})

    assert said == ["this user lacks the permission Write on eddy.cluster-drift"]
