"""`vecstow check --repair`: what is damaged is set aside, what proves itself is made a collection again.

Charter: observe, decide, act. `pages`, `cells` and `survey` read a `points.db` that SQLite may refuse;
`chain` reads a broken log; `evidence` keeps what was met, `witnesses` and `saved` say what of it counts;
`plan` is shown before anything is written. `staging` and `swap` act, through `storage.files` and
`storage.points.writer` alone. Nothing that was found is deleted, and nothing is kept that does not prove
itself. A crash at any moment leaves the damaged collection with its evidence, or the repaired one.
"""

from vecstow_engine.doctor.repair.collection import repair_collection
from vecstow_engine.doctor.repair.plan import (
    CollectionRepair,
    Loss,
    Progress,
    RepairOutcome,
    RepairPlan,
    RepairReport,
)
from vecstow_engine.doctor.repair.whole_volume import repair_volume

__all__ = [
    "CollectionRepair",
    "Loss",
    "Progress",
    "RepairOutcome",
    "RepairPlan",
    "RepairReport",
    "repair_collection",
    "repair_volume",
]
