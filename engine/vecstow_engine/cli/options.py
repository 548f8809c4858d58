"""The options that several commands share: they name a volume, or an engine and the key to ask with."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from vecstow_engine.cli.input_files import read_bytes
from vecstow_engine.model.key_source import (
    KEY_FILE_BYTES_MAX,
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    find_key_source,
)

URL_DEFAULT: Final = "http://127.0.0.1:3030"

Url = Annotated[
    str,
    typer.Option("--url", envvar="VECSTOW_URL", metavar="URL", help="The engine's address."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
UrlOrNone = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help=f"Ask this engine. [env var: VECSTOW_URL; default: {URL_DEFAULT}]"
    ),
]
DataOrNone = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Use this data directory, without an engine. [env var: VECSTOW_DATA]"
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help=f"The API key to ask with. [env var: {KEY_FILE_VARIABLE}; or {KEY_VARIABLE}, the key itself]",
    ),
]
Collection = Annotated[str, typer.Argument(metavar="NAME", help="The collection.", show_default=False)]


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


def choose_place(data: Path | None, url: str | None, key_file: Path | None) -> Path | Address:
    """Return the data directory or the engine that a command uses.

    An option takes precedence over the environment, and VECSTOW_URL over VECSTOW_DATA: a running engine knows
    more than its volume shows. Raises typer.BadParameter for both options, InvalidInput for a bad key.
    """
    if data is not None and url is not None:
        raise typer.BadParameter("--data and --url exclude each other")
    if data is not None:
        return data
    url = url or os.environ.get("VECSTOW_URL")
    if url is None and (folder := os.environ.get("VECSTOW_DATA")):
        return Path(folder)
    return address(url or URL_DEFAULT, key_file)
