"""The parts that kill real servers at chosen calls, and let calls of theirs fail."""

from __future__ import annotations

from tests.crash.faults.errors import ERRORS
from tests.crash.faults.kill_points import KILL_POINTS
from tests.crash.faults.recovery_kills import RECOVERY_KILLS

PARTS = (KILL_POINTS, RECOVERY_KILLS, ERRORS)
