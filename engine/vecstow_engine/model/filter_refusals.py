"""The errors of filters: each names the path, the value there, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NoReturn

from vecstow_engine.model.errors import InvalidInput, by_kind, refused

VALUE_CHARACTERS_SHOWN: Final = 80
"""The number of characters of a refused value that a message repeats."""


def refuse(path: str, value: object, reason: str, hint: str, limit: object = None) -> NoReturn:
    """Raise InvalidInput for the value at a path. `limit` is a bound or the legal values, or None."""
    raise InvalidInput(f"{path} is {shown(value)}: {reason}", hint=hint, details=_details(path, value, limit))


def refuse_operator(name: str, path: str, among: tuple[str, ...], hint: str) -> NoReturn:
    """Raise InvalidInput for an operator that is not one of `among`, which are known at its path."""
    raise InvalidInput(
        f"{path}: unknown operator {shown(name)}", hint=hint, details=_details(path, name, list(among))
    )


def shown(value: object) -> str:
    """Return the value as a short text; name a large value by its kind only."""
    if isinstance(value, str):
        cut = value[:VALUE_CHARACTERS_SHOWN]
        return repr(cut) + ("…" if len(value) > len(cut) else "")
    if isinstance(value, Mapping | list):
        return str(by_kind(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else type(value).__name__


def _details(path: str, value: object, limit: object) -> dict[str, object]:
    # Earlier releases named the field of a filter `path`.
    return {"path": path} | refused(path, value, limit)
