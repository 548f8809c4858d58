"""The options that several commands share, and the choice of a volume or an engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from vecstow_engine.cli.address import Address, address
from vecstow_engine.model.key_source import KEY_FILE_VARIABLE, KEY_VARIABLE

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
