"""`vecstow serve` whose upkeep looks after the collections all the time, and which has graphs of few points.

So a record of seconds has the checkpoints and snapshots of hours. Everything else is as it is served.
"""

from __future__ import annotations

import functools

from tests.engine_process import end_with_parent
from vecstow_engine.cli.main import main
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.service import loader, upkeep

UPKEEP_SECONDS = 0.02
SNAPSHOT_ROWS_MIN = 10
FLAT_ROWS_MAX = 20

if __name__ == "__main__":
    end_with_parent()
    upkeep.UPKEEP_SECONDS = UPKEEP_SECONDS  # type: ignore[misc]
    upkeep.SNAPSHOT_ROWS_MIN = SNAPSHOT_ROWS_MIN  # type: ignore[misc]
    few_rows = functools.partial(VectorIndex, flat_rows_max=FLAT_ROWS_MAX)
    setattr(loader, "VectorIndex", few_rows)  # noqa: B010  # an assignment is no type
    main()
