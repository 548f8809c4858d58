"""The address of an engine, and the API key for it."""

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
    """The URL of an engine, and the API key; None: no key is sent."""

    url: str
    key: str | None = field(default=None, repr=False)


def address(url: str, key_file: Path | None) -> Address:
    """Return the engine at `url`, with the key of `key_file`, or else of the environment.

    Raises InvalidInput. A key is never an argument, because every user of the machine can read arguments.
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
    # Not decoded strictly: the error would quote bytes that may be part of the key.
    return _sendable(read_bytes(path, FILE_BYTES_MAX, name).decode("utf-8-sig", "replace").strip(), name)


def _sendable(key: str, place: str) -> str:
    """Return `key` if a header can hold it; raise InvalidInput. httpx's own error would quote the key."""
    if _SENDABLE.fullmatch(key) is None:
        raise InvalidInput(f"{place} must hold one key: printable ASCII characters without spaces")
    return key
