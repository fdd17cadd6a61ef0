"""Lists the benchmarks, or runs one: ``python -m benchmarks [NAME [OPTIONS]]``.

A benchmark is a script of this folder, whose docstring opens with what it measures.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


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
    if not arguments:
        for name, measures in known.items():
            print(f"{name:<16} {measures}")
        print('\nRun one with: make bench RUN=NAME ARGS="--help"')
        return 0
    name = arguments[0]
    if name not in known:
        print(f"There is no benchmark {name!r}, but: {', '.join(known) or 'none'}", file=sys.stderr)
        return 2
    sys.argv = arguments
    sys.path.insert(0, str(HERE.parent))
    runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
