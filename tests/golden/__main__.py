"""Writes golden files: ``python -m tests.golden [--version X]``.

Without a version it adds files of new forms to the present one and touches no other: a file that
would change is a change of the wire. ``--version`` writes a folder anew, whatever was there.
"""

from __future__ import annotations

import argparse
import sys

from tests.golden.files import FOLDER, files
from tests.golden.forms import VERSION, golden


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where a file stands in the way."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--version", metavar="X", help="write the files of this version anew")
    version = parser.parse_args(arguments).version
    folder = FOLDER / (version or VERSION)
    folder.mkdir(exist_ok=True)
    code = 0
    for name, text in files(golden()).items():
        path = folder / name
        if version is None and path.exists():
            if path.read_text("utf-8") != text:
                print(f"{path.name} of {VERSION} would change: --version X if it shall")
                code = 1
            continue
        path.write_text(text, encoding="utf-8")
        print(f"{folder.name}/{name}")
    return code


if __name__ == "__main__":
    sys.exit(main())
