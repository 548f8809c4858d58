"""The options whose values are JSON."""

from __future__ import annotations

import json
from typing import Any

from vecstow_engine.model.errors import InvalidInput


def json_option(text: str, option: str) -> Any:
    """Return the value of an option; raise InvalidInput for text that is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidInput(f"{option} is nested too deeply") from None
    except ValueError as broken:
        raise InvalidInput(f"{option} is no valid JSON: {broken}") from broken


def finite_json_option(text: str, option: str) -> Any:
    """Return the value of an option; raise InvalidInput also for NaN and infinity, which JSON lacks."""
    value = json_option(text, option)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise InvalidInput(f"{option} holds a number that is not finite") from None
    except RecursionError:
        raise InvalidInput(f"{option} is nested too deeply") from None
    return value
