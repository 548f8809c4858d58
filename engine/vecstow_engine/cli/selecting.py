"""`vecstow scroll`, `count`, `facet`, `delete` and `set-payload`: points by ids, or by a filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.input_files import lines
from vecstow_engine.cli.json_options import finite_json_option
from vecstow_engine.cli.options import URL_DEFAULT, Collection, Json, KeyFile, Url, address
from vecstow_engine.cli.output import print_answer, print_json, print_json_line, print_note, print_table
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.names import check_collection_name, check_point_id

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client

IDS_PER_REQUEST: Final = 1_000
"""As many ids as one `$in` of a filter has."""
PAGE_POINTS: Final = 1_000
PATIENCE_SECONDS: Final = 60.0

Filter = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help="Only points whose payload or id matches.")
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The points.", show_default=False)]
IdFile = Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="One id per line.")]


def scroll_command(
    name: Collection,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Points of a page.")] = 100,
    cursor: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where the page before ended, as printed there.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print the points of all pages, one JSON document a line.")
    ] = False,
    filter_json: Filter = None,
    order_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Order by this field, instead of by id.")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="With --order-by: largest first.")] = False,
    with_vectors: Annotated[bool, typer.Option("--with-vectors", help="Print the vectors too.")] = False,
    fields: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Print these fields of the payload, a,b.c for two.")
    ] = None,
    without_payload: Annotated[bool, typer.Option("--without-payload", help="Print no payload.")] = False,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """List points, by id or by a field of their payload.

    A point that is written meanwhile comes once, or not at all if it is new.

    \b
    Examples:
      vecstow scroll packages --order-by size --descending --limit 10
      vecstow scroll packages --all --with-vectors > packages.jsonl
    """
    check_collection_name(name)
    if fields is not None and without_payload:
        raise typer.BadParameter("--fields and --without-payload exclude each other")
    if descending and order_by is None:
        raise typer.BadParameter("--descending needs --order-by")
    body: dict[str, Any] = {
        "limit": PAGE_POINTS if every else limit,
        "with_vectors": with_vectors,
        "with_metadata": fields.split(",") if fields else not without_payload,
        "cursor": cursor,
    }
    if order_by is not None:
        body["order_by"] = {"field": order_by, "direction": "desc" if descending else "asc"}
    if filter_json is not None:
        body["filter"] = finite_json_option(filter_json, "--filter")
    with _client(url, key_file) as client:
        if every:
            for page in _pages(client, name, body):
                for point in page["points"]:
                    print_json_line(point)
            return
        page = client.post("collections", name, "points", "scroll", document=body)
    if as_json:
        print_json(page)
        return
    columns = ["id", *(["data"] if with_vectors else []), *([] if without_payload else ["metadata"])]
    print_table(
        ["payload" if column == "metadata" else column for column in columns],
        ([point[column] for column in columns] for point in page["points"]),
    )
    if page["next_cursor"] is not None:
        print_note(f"more: the same command with --cursor {page['next_cursor']}")


def count_command(
    name: Collection,
    filter_json: Filter = None,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Count points, exactly.

    \b
    Example:
      vecstow count packages --filter '{"section": "net"}'
    """
    check_collection_name(name)
    with _client(url, key_file) as client:
        answer = {"count": _count(client, name, _selected_by(filter_json))}
    print_answer(answer, str(answer["count"]), as_json=as_json)


def facet_command(
    name: Collection,
    field: Annotated[
        str, typer.Argument(metavar="FIELD", help="The field, a.b for a nested one.", show_default=False)
    ],
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1_000, help="How many values.")] = 10,
    filter_json: Filter = None,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Count the points of each value of a field, most frequent first.

    \b
    Example:
      vecstow facet packages section --limit 5
    """
    check_collection_name(name)
    body = {"field": field, "limit": limit} | _selected_by(filter_json)
    with _client(url, key_file) as client:
        answer = client.post("collections", name, "points", "facet", document=body)
    if as_json:
        print_json(answer)
    else:
        rows = (
            (value["count"], json.dumps(value["value"], ensure_ascii=False)) for value in answer["values"]
        )
        print_table(("points#", "value"), rows)


def delete_command(
    name: Collection,
    ids: Ids = None,
    id_file: IdFile = None,
    filter_json: Filter = None,
    every: Annotated[bool, typer.Option("--all", help="Delete every point.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the points, and delete nothing.")] = False,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Delete points by their ids, or those that match a filter.

    A busy engine is waited for. An interrupted deletion goes on when it is repeated. No copy is kept.

    \b
    Examples:
      vecstow delete packages --filter '{"section": "games"}' --dry-run
      vecstow delete packages aptitude apt-file
    """
    check_collection_name(name)
    if sum((bool(ids), id_file is not None, filter_json is not None, every)) != 1:
        raise typer.BadParameter("give one of ids, --ids, --filter and --all")
    number = 0
    with _client(url, key_file) as client:
        _be_patient(client, name)
        for selection in _selections(ids, id_file, filter_json):
            body = {"all": True} if every else selection
            if dry_run:
                number += _count(client, name, {} if every else selection)
            else:
                answer = client.post("collections", name, "points", "delete", document=body)
                number += answer["deleted"]
    key, words = ("count", "would be deleted") if dry_run else ("deleted", "deleted")
    print_answer({key: number}, f"{number} points {words}", as_json=as_json)


def set_payload_command(
    name: Collection,
    ids: Ids = None,
    id_file: IdFile = None,
    filter_json: Filter = None,
    new: Annotated[
        str | None, typer.Option("--set", metavar="JSON", help="Replace the payload by this object.")
    ] = None,
    merge: Annotated[
        str | None, typer.Option(metavar="JSON", help="Replace these keys of the payload.")
    ] = None,
    unset: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Remove these fields, a,b.c for two.")
    ] = None,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Change payloads, without the vectors.

    The points are those of some ids, or those that match a filter. --merge comes before --unset. A busy
    engine is waited for. An interrupted change goes on when it is repeated.

    \b
    Examples:
      vecstow set-payload packages --filter '{"section": "net"}' --merge '{"checked": true}'
      vecstow set-payload packages aptitude --unset size
    """
    check_collection_name(name)
    if sum((bool(ids), id_file is not None, filter_json is not None)) != 1:
        raise typer.BadParameter("give one of ids, --ids and --filter")
    if new is None and merge is None and unset is None:
        raise typer.BadParameter("give --set, or --merge, --unset or both")
    change: dict[str, Any] = {}
    for option, text in (("set", new), ("merge", merge)):
        if text is not None:
            change[option] = finite_json_option(text, f"--{option}")
    if unset is not None:
        change["unset"] = unset.split(",")
    updated = 0
    with _client(url, key_file) as client:
        _be_patient(client, name)
        for selection in _selections(ids, id_file, filter_json):
            answer = client.post("collections", name, "points", "payload", document=selection | change)
            updated += answer["updated"]
    print_answer({"updated": updated}, f"{updated} points changed", as_json=as_json)


def _client(url: Url, key_file: KeyFile) -> Client:
    """Return a client that waits for the end of long work."""
    from vecstow_engine.cli.client import Client

    engine = address(url, key_file)
    return Client(engine.url, key=engine.key, answer_seconds=None)


def _be_patient(client: Client, name: str) -> None:
    """Let the client wait for a busy engine from now on; raise when there is no engine, or no collection."""
    client.get("collections", name)
    client.patience_seconds = PATIENCE_SECONDS


def _pages(client: Client, name: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while True:
        page = client.post("collections", name, "points", "scroll", document=body)
        yield page
        body["cursor"] = page["next_cursor"]
        if body["cursor"] is None:
            return


def _selected_by(filter_json: str | None) -> dict[str, Any]:
    return {} if filter_json is None else {"filter": finite_json_option(filter_json, "--filter")}


def _selections(
    ids: list[str] | None, id_file: Path | None, filter_json: str | None
) -> Iterator[dict[str, Any]]:
    """Yield the selection of each request."""
    if filter_json is not None:
        if finite_json_option(filter_json, "--filter") == {}:
            raise InvalidInput("--filter is empty, so it matches every point")
        yield _selected_by(filter_json)
    elif not ids and id_file is None:
        yield {}
    else:
        distinct = list(dict.fromkeys(ids or _ids_of(id_file)))
        for start in range(0, len(distinct), IDS_PER_REQUEST):
            yield {"ids": distinct[start : start + IDS_PER_REQUEST]}


def _ids_of(file: Path | None) -> list[str]:
    found = () if file is None else lines(file)
    return [check_point_id(line, f"{file} line {number}: id") for number, line in found]


def _count(client: Client, name: str, selection: dict[str, Any]) -> int:
    """Return the number of points of a selection."""
    if "ids" in selection:
        selection = {"filter": {"$id": {"$in": selection["ids"]}}}
    return int(client.post("collections", name, "points", "count", document=selection)["count"])
