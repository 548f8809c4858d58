"""All rules together."""

from __future__ import annotations

from hypothesis.stateful import initialize

from tests.crash.model.collections import CollectionRules
from tests.crash.model.draws import KIND, MANY, METRIC
from tests.crash.model.selections import SelectionRules
from tests.crash.model.starts import StartRules
from tests.crash.model.upkeep import UpkeepRules
from tests.crash.model.world import NAMES
from vecstow_engine.model.metrics import DistanceMetric, VectorType


class EngineMachine(CollectionRules, SelectionRules, UpkeepRules, StartRules):
    """An engine, and dictionaries."""

    @initialize(metric=METRIC, kind=KIND, values=MANY)
    def begin(self, metric: DistanceMetric, kind: VectorType, values: dict[str, int]) -> None:
        """Most of what can be done needs points."""
        self.create(NAMES[0], metric, kind)
        self.put(0, values)
