"""`vecstow check --repair`: what is damaged is set aside, what proves itself is made a collection again.

Charter: observe, decide, act. `observation` says whose files these are, `table` reads what SQLite still
reaches of a `points.db`, `chain` follows a broken log, `evidence` keeps what they give, and `salvage` says
what of it counts. `plan` is shown before anything is written. `staging` acts, through `storage.files` and
`storage.points.writer` alone. Nothing that was found is deleted, and nothing is kept that does not prove
itself. A crash at any moment leaves the damaged collection with its evidence, or the repaired one.
"""

from vecstow_engine.doctor.check import Progress
from vecstow_engine.doctor.repair.collection import (
    CollectionRepair,
    RepairOutcome,
    repair_collection,
    repair_volume,
)
from vecstow_engine.doctor.repair.evidence import Loss
from vecstow_engine.doctor.repair.plan import RepairPlan

__all__ = [
    "CollectionRepair",
    "Loss",
    "Progress",
    "RepairOutcome",
    "RepairPlan",
    "repair_collection",
    "repair_volume",
]
