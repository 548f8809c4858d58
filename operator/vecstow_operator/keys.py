"""The API key that an engine is asked with: read anew for each request, since a mounted Secret changes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

REFUSALS: Final = (401, 403)
"""Statuses of an engine that wants another key."""
HEADER: Final = "api-key"
"""Not Authorization: on the way through the API server's proxy of a pod that one is the API server's."""
KEY_VARIABLE: Final = "VECSTOW_API_KEY"
KEY_FILE_VARIABLE: Final = "VECSTOW_KEY_FILE"
KEY_SOURCE_VARIABLE: Final = "VECSTOW_KEY_SOURCE"
"""Says where a person changes the key: the chart names the Secret and the entry."""
FILE_BYTES_MAX: Final = 4096
_SENDABLE: Final = re.compile(r"[!-~]+")

KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"The engines' API key. [env var: {KEY_FILE_VARIABLE}; or {KEY_VARIABLE}, the key itself]",
    ),
]


class NoKey(OSError):
    """Raised when there is no key where one should be; the message says where, and never what."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Where the key is. Without a file it is the environment's, if that has one."""

    file: Path | None = None

    @property
    def source(self) -> str:
        """Where the key comes from, for messages."""
        if source := os.environ.get(KEY_SOURCE_VARIABLE):
            return source
        if self.file is not None:
            return f"file {self.file}"
        if os.environ.get(KEY_VARIABLE):
            return KEY_VARIABLE
        named = os.environ.get(KEY_FILE_VARIABLE)
        return f"file {named}" if named else "none: there is no key"

    def headers(self) -> dict[str, str]:
        """The header that carries the key, or none; raises NoKey."""
        if self.file is not None:
            return _from_file(self.file)
        if key := os.environ.get(KEY_VARIABLE):
            return _header(key, KEY_VARIABLE)
        if named := os.environ.get(KEY_FILE_VARIABLE):
            return _from_file(Path(named))
        return {}


def _from_file(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise NoKey(f"key file {path} cannot be read: {error.strerror or error}") from None
    return _header(raw.decode("utf-8", "replace").strip(), f"key file {path}")


def _header(key: str, place: str) -> dict[str, str]:
    if _SENDABLE.fullmatch(key) is None:
        raise NoKey(f"{place} must hold one key: printable ASCII characters without spaces")
    return {HEADER: key}
