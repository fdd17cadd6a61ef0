"""Runs targets under atheris: ``python -m tests.fuzz [--seconds 600] [TARGET…]``.

One after the other, each in a process of its own with a limit of memory and of time per input.
What an input brings down is kept under ``tests/fuzz/found/<target>/``, and from then on a test
replays it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path(__file__).parent / "found"
INSTRUMENTED = [
    "pipeline.messages",
    "pipeline.config",
    "pipeline.state",
    "pipeline.cli.audit",
    "yaml",
]
RSS_LIMIT_MB, INPUT_LIMIT_S, MAX_INPUT_BYTES = 2048, 10, 8192


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (it has no wheel for this machine?): nothing was fuzzed;")
        print("the same targets run under hypothesis in `make test`")
        return 0
    if given.one:
        _fuzz(given.one, given.corpus, given.seconds)
    targets = importlib.import_module("tests.fuzz.targets").TARGETS
    unknown = set(given.targets) - targets.keys()
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    broken = []
    for name in given.targets or targets:
        if not _one(name, list(targets[name].seeds()), given.seconds):
            broken.append(name)
    print(f"found something: {', '.join(broken)}" if broken else "nothing found")
    return 1 if broken else 0


def _one(name: str, seeds: list[bytes], seconds: int) -> bool:
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--corpus", corpus]
        done = subprocess.run(
            [*command, "--seconds", str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
    if done.returncode:
        print(done.stdout[-8000:])
    told = [line for line in done.stdout.splitlines() if line.startswith("stat::")]
    numbers = dict(line.removeprefix("stat::").split(":") for line in told)
    n_runs = numbers.get("number_of_executed_units", "?").strip()
    peak = numbers.get("peak_rss_mb", "?").strip()
    outcome = "FOUND SOMETHING" if done.returncode else "fine"
    print(f"{name}: {outcome}, {n_runs} inputs, {peak} MB at most", flush=True)
    return done.returncode == 0


def _fuzz(name: str, corpus: str, seconds: int) -> None:
    """Does not come back: atheris ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = importlib.import_module("tests.fuzz.targets")
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = [
        f"-max_total_time={seconds}", f"-rss_limit_mb={RSS_LIMIT_MB}", f"-timeout={INPUT_LIMIT_S}",
        f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={folder}/", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([name, *settings, corpus], lambda data: targets.run(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
