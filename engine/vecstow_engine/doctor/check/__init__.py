"""`vecstow check`: every file and every row of a volume or a collection, read and verified, nothing written.

Charter: what recovery reads is read by the same functions, so that a check finds what a start would find;
what recovery reads only on request (every row, every point) is read here too. A module here
writes nothing on the volume, and raises only for what is no finding: a volume in use, an unknown name.
"""

from vecstow_engine.doctor.check.collection import check_collection
from vecstow_engine.doctor.check.findings import CheckReport, Finding, Progress, Severity
from vecstow_engine.doctor.check.whole_volume import check_folder, check_volume

__all__ = [
    "CheckReport",
    "Finding",
    "Progress",
    "Severity",
    "check_collection",
    "check_folder",
    "check_volume",
]
