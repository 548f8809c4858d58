"""The address of an engine, and the key that requests to it carry."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vecstow_engine.cli.input_files import read_bytes
from vecstow_engine.model.key_source import KEY_FILE_BYTES_MAX, find_key_source


@dataclass(frozen=True, slots=True)
class Address:
    """An engine, as the user named it."""

    url: str
    key: str | None = field(default=None, repr=False)


def address(url: str, key_file: Path | None) -> Address:
    """Return the engine at `url`, with the key of `key_file` or of the environment; raise InvalidInput.

    Raises InvalidInput. A key is never an argument, because every user of the machine can read arguments.
    """
    source = find_key_source(key_file, os.environ)
    if source is None:
        return Address(url)
    return Address(url, source.key(lambda file: read_bytes(file, KEY_FILE_BYTES_MAX, source.name)))
