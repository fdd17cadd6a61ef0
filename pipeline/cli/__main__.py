"""``python -m pipeline.cli`` is ``eddy``."""

from __future__ import annotations

import sys

from pipeline.cli.main import main

sys.exit(main())
