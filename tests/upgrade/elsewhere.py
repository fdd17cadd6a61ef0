"""``eddy`` out of another tree: ``python elsewhere.py TREE WORDS…``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    tree = Path(sys.argv.pop(1))
    sys.path[0] = str(tree)
    main = importlib.import_module("pipeline.cli.main")
    assert Path(main.__file__ or "").is_relative_to(tree), f"{main.__file__} is not of {tree}"
    sys.exit(main.main())
