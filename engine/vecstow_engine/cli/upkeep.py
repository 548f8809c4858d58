"""`vecstow compact`, `hold`, `backup`, `restore` and `maintenance`: the upkeep of a volume.

An engine does the work, with two exceptions. `restore --data` works on a stopped volume. `maintenance` keeps
the pod of a stopped volume while a person repairs the volume.
"""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Annotated, Final

import typer

from vecstow_engine.cli.options import (
    URL_DEFAULT,
    Address,
    Collection,
    DataOrNone,
    Json,
    KeyFile,
    Url,
    UrlOrNone,
    address,
    choose_place,
)
from vecstow_engine.cli.output import print_answer, print_facts, print_json, print_line, print_note
from vecstow_engine.model.errors import InvalidInput, NotFound, VecstowError
from vecstow_engine.model.names import check_collection_name

WRONG_PATH: Final = (400, 404)


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
        _, _, lack = str(answer["message"]).partition("; ")
        if lack:
            print_note(f"warning: {lack}")


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
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Bring a dropped collection or a backup back.

    With --data on a stopped volume: the next start serves it.

    \b
    Examples:
      vecstow ls --deleted
      vecstow restore .deleted/packages-20260101T120000Z-0123456789abcdef0123456789abcdef --new-name again
    """
    if new_name is not None:
        check_collection_name(new_name)
    place = choose_place(data, url, key_file)
    try:
        if isinstance(place, Path):
            from vecstow_engine.storage.backup import restore_on_volume

            restored = restore_on_volume(place, path, new_name)
            message = "; ".join(["restored", *restored.remarks])
            answer: dict[str, object] = {"name": restored.manifest.name, "message": message}
        else:
            document = {"backup_path": path} | ({"new_name": new_name} if new_name else {})
            answer = _ask(place, "POST", "collections", "restore", document=document)
    except VecstowError as error:
        if getattr(error, "status", None) in WRONG_PATH or isinstance(error, InvalidInput | NotFound):
            error.hint = error.hint or _restore_hint(place)
        raise
    print_answer(answer, f"{answer['name']}: {answer['message']}", as_json=as_json)


def _restore_hint(place: Path | Address) -> str:
    """Return a hint where the paths that can be restored are."""
    is_volume = isinstance(place, Path)
    option = f" --data {shlex.quote(str(place))}" if is_volume else ""
    backups = f"{place}/.backups" if is_volume else ".backups of the data directory"
    return (
        f"vecstow ls --deleted{option} lists what was dropped; backups lie in {backups}; "
        f"a relative path is taken from {place if is_volume else 'the data directory'}"
    )


def maintenance_command(
    data: Annotated[
        Path, typer.Option("--data", envvar="VECSTOW_DATA", metavar="DIR", help="The data directory.")
    ],
) -> None:
    """Stay, load nothing and serve nothing, until a signal comes.

    It keeps a pod and its volume for work on its files: `vecstow check`, `ls` and `restore` need no engine.

    \b
    Example:
      vecstow maintenance --data ./data
    """
    from vecstow_engine.storage.volume import refuse_no_folder

    state = "does not exist yet"  # A pod on a new volume stays, so that a copy can be put there.
    if data.exists():
        refuse_no_folder(data)
        state = "is not served"
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print_line(f"maintenance: {data} {state}. In another shell:")
    print_line(f"  vecstow check --data {data}")
    print_line(f"  vecstow check --data {data} --repair --dry-run")
    signal.sigwait(signals)


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
        print_answer(_ask(engine, "DELETE", "hold"), "the hold is released", as_json=as_json)
    else:
        answer = _ask(engine, "POST", "hold", document={} if seconds is None else {"seconds": seconds})
        print_answer(answer, f"held until {answer['until']}", as_json=as_json)


def _ask(engine: Address, method: str, *segments: str, document: object = None) -> dict[str, object]:
    from vecstow_engine.cli.client import Client

    with Client(engine.url, key=engine.key) as client:
        answer = client.delete(*segments) if method == "DELETE" else client.post(*segments, document=document)
    return dict(answer or {})
