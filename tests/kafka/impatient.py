"""``eddy`` that waits for its broker for seconds, not for a minute."""

from __future__ import annotations

import sys

from pipeline.cli.main import main
from pipeline.services import lifecycle

if __name__ == "__main__":
    lifecycle.BROKER_LIMIT_S = 3.0
    sys.exit(main())
