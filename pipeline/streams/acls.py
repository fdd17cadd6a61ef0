"""Which permissions each role needs of a broker with access control: all of them, and no other.

The table below is what the documentation shows and what ``eddy topics acls`` prints. A test takes
every grant of a service away, one after the other, and the service has to notice: a grant that
nobody misses has no place here. Read and Write imply Describe, and no role needs any permission on
the cluster itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from pipeline.streams.contract import TopicSettings
from pipeline.streams.topics import TopicPolicy


class Role(StrEnum):
    """Who asks something of the broker."""

    ASSIGNER = "assigner"
    RECLUSTERER = "reclusterer"
    SERVER = "server"
    OPERATOR = "operator"
    PRODUCER = "producer"
    READER = "reader"
    ADMIN = "admin"


class Resource(StrEnum):
    """What a permission is about, as ``kafka-acls.sh`` calls it."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"


class Operation(StrEnum):
    """What is permitted, as ``kafka-acls.sh`` calls it."""

    READ = "Read"
    WRITE = "Write"
    CREATE = "Create"
    DESCRIBE = "Describe"
    DESCRIBE_CONFIGS = "DescribeConfigs"


class Grant(NamedTuple):
    """One permission."""

    resource: Resource
    name: str
    operation: Operation
    is_prefix: bool = False
    """Whether it is about every name that begins so."""


class Needs(NamedTuple):
    """What a role needs, with topics by their names in `TopicPolicy`."""

    about: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    checks: bool = False
    """Whether it looks at the settings of every topic, and so has to see them all."""
    creates: bool = False
    joins: str = ""
    """The service whose group it is a member of, with transactions."""
    watches_group: bool = False
    """Whether it asks how far the assigners are."""


TOPICS: Final = (
    "input", "changes", "assignments", "vectors", "statistics",
    "model", "drift", "lifecycle", "commands", "dead_letters",
)  # fmt: skip
"""All of them, in the order of `TopicPolicy.names`."""

NEEDS: Final[Mapping[Role, Needs]] = {
    Role.ASSIGNER: Needs(
        "eddy assigner",
        reads=("input", "assignments", "vectors", "statistics", "model"),
        writes=("changes", "assignments", "vectors", "statistics", "dead_letters"),
        checks=True,
        joins="assigner",
    ),
    Role.RECLUSTERER: Needs(
        "eddy reclusterer",
        reads=("input", "vectors", "statistics", "model", "lifecycle", "commands"),
        writes=("model", "drift", "lifecycle"),
        checks=True,
        joins="reclusterer",
        watches_group=True,
    ),
    Role.SERVER: Needs(
        "the server: reads everything, writes commands only",
        reads=TOPICS,
        writes=("commands",),
        checks=True,
        watches_group=True,
    ),
    Role.OPERATOR: Needs(
        "who looks after it: eddy verify, model, watch, recluster, split, merge, label, doctor",
        reads=TOPICS,
        writes=("commands",),
        checks=True,
        watches_group=True,
    ),
    Role.PRODUCER: Needs("who feeds it: eddy produce, or a program of yours", writes=("input",)),
    Role.READER: Needs(
        "who follows events: eddy watch, or a program of yours",
        reads=("changes", "drift", "lifecycle"),
    ),
    Role.ADMIN: Needs("the job that makes the topics: eddy topics", checks=True, creates=True),
}


def grants(
    role: Role, topics: TopicPolicy, *, assigner_group: str, reclusterer_group: str
) -> list[Grant]:
    """Every permission of a role, topics first.

    Parameters
    ----------
    assigner_group, reclusterer_group
        What the services' groups are called; their transactional ids begin so.
    """
    needs, found = NEEDS[role], []
    for attribute in TOPICS:
        name: str = getattr(topics, attribute)
        asked = {
            Operation.READ: attribute in needs.reads,
            Operation.WRITE: attribute in needs.writes,
            Operation.CREATE: needs.creates,
        }
        operations = [operation for operation, is_needed in asked.items() if is_needed]
        if needs.checks:
            # a topic that may not be described does not exist, and one of which it may not see
            # the settings could break a promise
            if not {Operation.READ, Operation.WRITE} & set(operations):
                operations.append(Operation.DESCRIBE)
            operations.append(Operation.DESCRIBE_CONFIGS)
        found += [Grant(Resource.TOPIC, name, operation) for operation in operations]
    if needs.joins == "assigner":
        found.append(Grant(Resource.GROUP, assigner_group, Operation.READ))
        # one per process: <group>.<instance>
        ids = f"{assigner_group}."
        found.append(Grant(Resource.TRANSACTIONAL_ID, ids, Operation.WRITE, is_prefix=True))
    elif needs.joins == "reclusterer":
        found.append(Grant(Resource.GROUP, reclusterer_group, Operation.READ))
        found.append(Grant(Resource.TRANSACTIONAL_ID, reclusterer_group, Operation.WRITE))
    if needs.watches_group:
        found.append(Grant(Resource.GROUP, assigner_group, Operation.DESCRIBE))
    return found


def lacking(role: Role, topics: TopicPolicy, found: Mapping[str, TopicSettings]) -> list[str]:
    """What a user may not do with topics although the role needs it, as sentences.

    A service asks at its start: the first alarm of drift may come after months, and would be the
    first thing that needs the permission to write it.
    """
    needed = grants(role, topics, assigner_group="", reclusterer_group="")
    sentences = []
    for grant in needed:
        settings = found.get(grant.name)
        if grant.resource is not Resource.TOPIC or settings is None or settings.operations is None:
            continue
        if grant.operation not in settings.operations:
            sentences.append(f"this user lacks the permission {grant.operation} on {grant.name}")
    return sentences


def table() -> str:
    """The permissions of every role as a table in Markdown; names as they are by default."""
    policy = TopicPolicy()
    lines = [
        "| role | who | on what | operations |",
        "|---|---|---|---|",
    ]
    for role, needs in NEEDS.items():
        by_operations: dict[tuple[str, str], list[str]] = {}
        for (resource, name, is_prefix), operations in merged(
            grants(
                role,
                policy,
                assigner_group=f"{policy.prefix}assigner",
                reclusterer_group=f"{policy.prefix}reclusterer",
            )
        ).items():
            said = f"`{name}*`" if is_prefix else f"`{name}`"
            by_operations.setdefault((resource, ", ".join(operations)), []).append(said)
        first = f"| {role} | {needs.about} "
        for (on_what, operations_said), names in by_operations.items():
            lines.append(f"{first}| {on_what} {', '.join(names)} | {operations_said} |")
            first = "| | "
    return "\n".join(lines) + "\n"


def merged(given: list[Grant]) -> Mapping[tuple[Resource, str, bool], list[Operation]]:
    """Resource, name and whether that is a prefix -> the operations, in the order given."""
    found: dict[tuple[Resource, str, bool], list[Operation]] = {}
    for grant in given:
        operations = found.setdefault((grant.resource, grant.name, grant.is_prefix), [])
        if grant.operation not in operations:
            operations.append(grant.operation)
    return found
