"""Where an engine is, and the key that it is asked with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vecstow_engine.cli.input_files import read_bytes
from vecstow_engine.model.errors import InvalidInput

KEY_VARIABLE: Final = "VECSTOW_API_KEY"
KEY_FILE_VARIABLE: Final = "VECSTOW_KEY_FILE"
FILE_BYTES_MAX: Final = 4096
_SENDABLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Address:
    """An engine, as a command was told of it."""

    url: str
    key: str | None = field(default=None, repr=False)


def address(url: str, key_file: Path | None) -> Address:
    """The engine at `url`, with the key of `key_file`, or else of the environment; raises InvalidInput.

    A key is never an argument: everybody on the machine could read it there.
    """
    return Address(url, _key(key_file))


def _key(key_file: Path | None) -> str | None:
    if key_file is not None:
        return _from_file(key_file)
    if key := os.environ.get(KEY_VARIABLE):
        return _sendable(key, KEY_VARIABLE)
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return _from_file(Path(named))
    return None


def _from_file(path: Path) -> str:
    name = f"key file {path}"
    # Not decoded strictly: an error would quote what may be a part of the key.
    return _sendable(read_bytes(path, FILE_BYTES_MAX, name).decode("utf-8-sig", "replace").strip(), name)


def _sendable(key: str, place: str) -> str:
    """`key` when a header can carry it: what httpx says of one that it cannot holds the key."""
    if _SENDABLE.fullmatch(key) is None:
        raise InvalidInput(f"{place} must hold one key: printable ASCII characters without spaces")
    return key
