"""`vecstow check --repair`: what is damaged is set aside, what proves itself is made a collection again.

Charter: observe, decide, act. `claims` says whose files these are, `table` reads what SQLite still reaches of
a `points.db`, `chain` follows a broken log, `evidence` keeps what they give, and `salvage` says what of it
counts. `plan` is shown before anything is written. `staging` and `swap` act, through `storage.files` and
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
