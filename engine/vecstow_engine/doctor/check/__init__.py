"""`vecstow check`: every file and every row of a volume or a collection, read and verified, nothing written.

Charter: a check reads what recovery reads by the same functions, so it finds what a start would find. It also
reads what recovery puts off until a request: every row, every point. A module here writes nothing on the
volume, and raises only for what is no finding: a volume in use, an unknown name.
"""

from vecstow_engine.doctor.check.collection import check_folder, check_volume
from vecstow_engine.doctor.check.findings import CheckReport, Finding, Progress, Severity

__all__ = ["CheckReport", "Finding", "Progress", "Severity", "check_folder", "check_volume"]
