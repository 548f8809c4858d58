"""`vecstow compact`, `hold`, `backup` and `restore`: what an engine is asked to do with its volume."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from vecstow_engine.cli.address import Address, address
from vecstow_engine.cli.options import URL_DEFAULT, Collection, Json, KeyFile, Url
from vecstow_engine.cli.output import print_facts, print_json, print_line
from vecstow_engine.model.names import check_collection_name

WRONG_PATH: Final = (400, 404)
RESTORE_HINT: Final = (
    "vecstow ls --deleted lists what was dropped; a relative path is taken from the data directory"
)


def compact_command(
    name: Collection, url: Url = URL_DEFAULT, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Give the space of deleted and replaced vectors back.

    \b
    Example:
      vecstow compact packages
    """
    answer = _ask(address(url, key_file), "POST", "collections", check_collection_name(name), "compact")
    if as_json:
        print_json(answer)
    else:
        print_facts(answer)


def backup_command(
    name: Collection, url: Url = URL_DEFAULT, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """Copy a collection to the volume's .backups folder.

    The copy has everything that was acknowledged before it began.

    \b
    Example:
      vecstow backup packages
    """
    answer = _ask(address(url, key_file), "POST", "collections", check_collection_name(name), "backup")
    if as_json:
        print_json(answer)
    else:
        print_line(f"{answer['collection']} is copied to {answer['backup_path']}")


def restore_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="As `vecstow ls --deleted` or `backup` print it.", show_default=False
        ),
    ],
    new_name: Annotated[
        str | None, typer.Option("--new-name", metavar="NAME", help="Bring it back under another name.")
    ] = None,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Bring a dropped collection or a backup back.

    \b
    Examples:
      vecstow ls --deleted
      vecstow restore .deleted/packages-20260101T120000Z-0123456789abcdef0123456789abcdef --new-name again
    """
    document = {"backup_path": path}
    if new_name is not None:
        document["new_name"] = check_collection_name(new_name)
    answer = _restore(address(url, key_file), document)
    if as_json:
        print_json(answer)
    else:
        print_line(f"{answer['name']}: {answer['message']}")


def _restore(engine: Address, document: dict[str, str]) -> dict[str, object]:
    from vecstow_engine.cli.client import RequestRefused

    try:
        return _ask(engine, "POST", "collections", "restore", document=document)
    except RequestRefused as refused:
        if refused.status in WRONG_PATH:
            refused.hint = refused.hint or RESTORE_HINT
        raise


def hold_command(
    seconds: Annotated[
        float | None, typer.Option(metavar="N", min=1, help="End the hold after this time.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold now.")] = False,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Hold the volume's files still, so that a copy is exact.

    Writes go on meanwhile; they go to the log alone. The hold ends by itself.

    \b
    Example:
      vecstow hold --seconds 600 && rsync -a ./data/ backup:/data/ && vecstow hold --release
    """
    if release and seconds is not None:
        raise typer.BadParameter("--release takes no --seconds")
    engine = address(url, key_file)
    if release:
        answer = _ask(engine, "DELETE", "hold")
    else:
        answer = _ask(engine, "POST", "hold", document={} if seconds is None else {"seconds": seconds})
    if as_json:
        print_json(answer)
    elif release:
        print_line("the hold is released")
    else:
        print_line(f"held until {answer['until']}")


def _ask(engine: Address, method: str, *segments: str, document: object = None) -> dict[str, object]:
    from vecstow_engine.cli.client import Client

    with Client(engine.url, key=engine.key) as client:
        answer = client.delete(*segments) if method == "DELETE" else client.post(*segments, document=document)
    return dict(answer or {})
