"""Lists the benchmarks, or runs one: ``python -m benchmarks [NAME [OPTIONS]]``.

A benchmark is a script of this folder, whose docstring opens with what it measures. ``peers`` runs
those that hold Eddy's arithmetic against other libraries, each in a process of its own, and makes
the page of results anew, as ``results`` does alone.
"""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path

from benchmarks._results import write_page

HERE = Path(__file__).parent
PEERS = ("assign", "fit", "silhouette", "small_models")


def scripts() -> dict[str, str]:
    """What each script of this folder measures, by its name."""
    found = {}
    for path in sorted(HERE.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring is not None:
            found[path.stem] = docstring.splitlines()[0]
    return found


def main(arguments: list[str]) -> int:
    """List without arguments; else run the script named first, with the rest as its own."""
    known = scripts()
    if not arguments or arguments[0] in ("list", "--list"):
        for name, measures in known.items():
            print(f"{name:<16} {measures}")
        print('\nRun one with: make bench RUN=NAME ARGS="--help"')
        return 0
    name = arguments[0]
    if name == "peers":
        return against_peers(arguments[1:])
    if name == "results":
        print(f"written: {write_page()}")
        return 0
    if name not in known:
        print(f"There is no benchmark {name!r}, but: {', '.join(known) or 'none'}", file=sys.stderr)
        return 2
    sys.argv = arguments
    sys.path.insert(0, str(HERE.parent))
    runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    return 0


def against_peers(arguments: list[str]) -> int:
    """All of `PEERS`, with the options that all of them take."""
    worst = 0
    for name in PEERS:
        print(f"\n{'-' * 8} python -m benchmarks {' '.join([name, *arguments])}", flush=True)
        command = [sys.executable, "-m", "benchmarks", name, *arguments]
        worst = max(worst, subprocess.run(command, cwd=HERE.parent, check=False).returncode)
    if "--scratch" not in arguments:
        print(f"written: {write_page()}")
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
