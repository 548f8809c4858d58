"""The API key in requests to engines. Each request reads the key again, since a mounted Secret changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.key_source import (
    KEY_FILE_BYTES_MAX,
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    find_key_source,
)

REFUSALS: Final = (401, 403)
"""Statuses of an engine that wants another key."""
HEADER: Final = "api-key"
"""Not Authorization: the API server's proxy of a pod takes that one for itself."""
KEY_SOURCE_VARIABLE: Final = "VECSTOW_KEY_SOURCE"
"""The place where a person changes the key: the chart names the Secret and the entry."""

KeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"The engines' API key. [env var: {KEY_FILE_VARIABLE}; or {KEY_VARIABLE}, the key itself]",
    ),
]


class NoKey(OSError):
    """Raised when a place of a key holds none; the message names the place, and never quotes its content."""


@dataclass(frozen=True, slots=True)
class EngineKey:
    """The place of the key: a file, or without one the environment."""

    file: Path | None = None

    @property
    def source(self) -> str:
        """The place of the key, for messages."""
        if named := os.environ.get(KEY_SOURCE_VARIABLE):
            return named
        source = find_key_source(self.file, os.environ)
        if source is None:
            return "none: there is no key"
        return KEY_VARIABLE if source.file is None else f"file {source.file}"

    def headers(self) -> dict[str, str]:
        """Return the header that carries the key; empty without a key. Raises NoKey."""
        source = find_key_source(self.file, os.environ)
        if source is None:
            return {}
        try:
            return {HEADER: source.key(_content)}
        except InvalidInput as error:
            raise NoKey(error.message) from None


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise NoKey(f"key file {file} cannot be read: {error.strerror or error}") from None
