"""`vecstow serve` whose upkeep looks after the collections all the time, and writes small snapshots too.

So a record of seconds has the checkpoints and snapshots of hours. Everything else is as it is served.
"""

from __future__ import annotations

from vecstow_engine.cli.main import main
from vecstow_engine.service import background

UPKEEP_SECONDS = 0.02
SNAPSHOT_ROWS_MIN = 40

if __name__ == "__main__":
    background.UPKEEP_SECONDS = UPKEEP_SECONDS  # type: ignore[misc]
    background.SNAPSHOT_ROWS_MIN = SNAPSHOT_ROWS_MIN  # type: ignore[misc]
    main()
