"""The command `vecstow` with an hnswlib that fails now and then, as it does when memory is short."""

from __future__ import annotations

import random
from typing import Any

import hnswlib

from vecstow_engine.cli.main import main

FAILURES_SHARE = 0.02
CALLS = ("add_items", "resize_index", "init_index", "load_index")
_real = hnswlib.Index


class FaultyIndex:
    """hnswlib's index, some of whose calls raise."""

    def __init__(self, space: str, dim: int) -> None:
        self._index = _real(space, dim)

    def __getattr__(self, name: str) -> Any:
        if name in CALLS and random.random() < FAILURES_SHARE:
            raise RuntimeError("Not enough memory: injected")
        return getattr(self._index, name)


if __name__ == "__main__":
    hnswlib.Index = FaultyIndex
    main()
