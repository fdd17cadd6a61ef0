"""Rolls from an old revision to this tree and back: ``python -m tests.upgrade [REVISION]``.

By default the newest tag; without one, the last commit whose tree is another than this one. The
old revision lies in a scratch worktree, which is gone at the end; nothing in it is changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.streams.broker import start_broker
from tests.conftest import FAST_GROUPS
from tests.kafka.site import site_at
from tests.upgrade.roll import SETTINGS, roll

ROOT = Path(__file__).parent.parent.parent


def git(*words: str, is_needed: bool = True) -> str:
    """What git says; nothing where it fails and may."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and is_needed:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return "" if done.returncode else done.stdout.strip()


def previous() -> str:
    """The newest tag, else the nearest first parent whose package differs from this tree's."""
    tag = git("describe", "--tags", "--abbrev=0", is_needed=False)
    if tag:
        return tag
    for revision in git("rev-list", "--first-parent", "HEAD").split():
        if git("diff", "--name-only", revision, "--", "pipeline"):
            return revision
    raise SystemExit("there is no revision with another package than this one")


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """The old tree, for so long."""
    tree = folder / "old"
    git("worktree", "add", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def main(arguments: list[str] | None = None) -> int:
    """An AssertionError says which promise was broken, and at which step."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    parser.add_argument("revision", nargs="?", default=None)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args(arguments)
    revision = git("rev-parse", "--short", given.revision or previous())
    print(f"from {revision}, seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="eddy-upgrade-") as name:
        folder = Path(name)
        with (
            worktree(revision, folder) as old,
            start_broker(folder / "broker", extra=FAST_GROUPS) as broker,
            site_at(broker.bootstrap_servers, folder, SETTINGS) as site,
        ):
            n_records, n_events = roll(site, old, given.seed)
            site.close()
            broker.kill()
    print(f"fine: {n_records} records, {n_events} events, none lost, none twice, none out of order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
