"""``eddy topics acls``: the permissions that a user of the broker needs, ready to be granted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from pipeline.cli.context import invocation
from pipeline.cli.options import flag
from pipeline.cli.output import print_json
from pipeline.config import Config, assigner_group, reclusterer_group
from pipeline.errors import UsageError
from pipeline.streams.acls import NEEDS, Grant, Role, grants, merged

_TOOL: Final = (
    'kafka-acls.sh --bootstrap-server "$BOOTSTRAP_SERVER" --command-config "$ADMIN_PROPERTIES"'
)


def acls(
    ctx: typer.Context,
    principal: Annotated[
        str, typer.Option("--principal", metavar="USER", help="Who gets them, as User:alice.")
    ],
    roles: Annotated[
        list[Role] | None,
        typer.Option(
            "--role", metavar="ROLE", help=f"One of {', '.join(Role)}; repeatable, else all."
        ),
    ] = None,
    as_json: Annotated[bool, flag("--json", help="One line of JSON.")] = False,
) -> None:
    """Print the permissions that a user of the broker needs, as lines of kafka-acls.sh.

    Every grant is needed and no other is. The lines read two variables: BOOTSTRAP_SERVER, and
    ADMIN_PROPERTIES, the file with an administrator's settings. Asks no broker.
    """
    kind, colon, name = principal.partition(":")
    if not (kind and colon and name) or not principal.isprintable():
        raise UsageError(f"--principal is {principal!r}, but must be like User:alice")
    config = invocation(ctx).config
    wanted = list(dict.fromkeys(roles or Role))
    if as_json:
        print_json(
            [
                {
                    "role": role,
                    "principal": principal,
                    "resource": grant.resource,
                    "name": grant.name,
                    "pattern": "prefixed" if grant.is_prefix else "literal",
                    "operation": grant.operation,
                }
                for role in wanted
                for grant in granted(config, role)
            ]
        )
        return
    for role in wanted:
        print(f"# {role}: {NEEDS[role].about}")
        for line in _lines(principal, granted(config, role)):
            print(line)


def granted(config: Config, role: Role) -> list[Grant]:
    """The permissions of a role, with the names of this configuration."""
    return grants(
        role,
        config.topics,
        assigner_group=assigner_group(config),
        reclusterer_group=reclusterer_group(config),
    )


def _lines(principal: str, given: Sequence[Grant]) -> list[str]:
    lines = []
    for (resource, name, is_prefix), operations in merged(list(given)).items():
        words = ["--add", "--force", "--allow-principal", principal]
        for operation in operations:
            words += ["--operation", operation]
        words += [f"--{resource}", name]
        words += ["--resource-pattern-type", "prefixed"] if is_prefix else []
        lines.append(f"{_TOOL} {shlex.join(words)}")
    return lines
