"""The values that the rules take, and the conditions under which a rule may be chosen."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import precondition

from tests.crash.model.world import IDS, NAMES, VALUES
from vecstow_engine.model.metrics import DistanceMetric, VectorType

METRIC = st.sampled_from(list(DistanceMetric))
KIND = st.sampled_from(list(VectorType))
NAME = st.sampled_from(NAMES)
PICK = st.integers(0, 11)
"""One of those that there are."""
VALUE = st.integers(0, VALUES - 1)
POINTS = st.dictionaries(st.sampled_from(IDS), VALUE, min_size=1, max_size=16)
MANY = st.dictionaries(st.sampled_from(IDS), VALUE, min_size=6, max_size=20)
SOME_IDS = st.sets(st.sampled_from(IDS), min_size=1, max_size=6)
SHARE = st.floats(0, 1)

has_collections = precondition(lambda self: self.live)
is_free = precondition(lambda self: not self.held)
