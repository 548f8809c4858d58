"""`vecstow search`: the points nearest to a vector, a row of a file, or a stored point."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vecstow_engine.cli.input_files import STDIN, read_text
from vecstow_engine.cli.json_options import finite_json_option, json_option
from vecstow_engine.cli.options import URL_DEFAULT, Collection, Json, KeyFile, Url, address
from vecstow_engine.cli.output import print_json, print_table
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.names import check_collection_name

VECTOR_BYTES_MAX: Final = 4 * 1024 * 1024
"""More than the longest vector takes as JSON."""


def search_command(
    name: Collection,
    vector: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="The vector as a JSON list, or - to read it from stdin."),
    ] = None,
    npy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the vector from this .npy file.")
    ] = None,
    row: Annotated[int, typer.Option(metavar="N", min=0, help="Which row of the .npy file.")] = 0,
    point_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The points near this one, without it.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="WORDS", help="The points with these words; fused with a vector.")
    ] = None,
    fusion_json: Annotated[
        str | None,
        typer.Option("--fusion", metavar="JSON", help="Weights of vector and text, and k."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many hits.")] = 10,
    offset: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many of the nearest hits to leave out.")
    ] = 0,
    ef: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Candidates of this query; more find better, and take longer."),
    ] = None,
    filter_json: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Only points whose payload matches.")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option(metavar="X", help="Only points that are at most so far away.")
    ] = None,
    diversity: Annotated[
        float,
        typer.Option(metavar="X", min=0, max=1, help="How much hits shall differ; 0 for the nearest points."),
    ] = 0.0,
    with_vectors: Annotated[bool, typer.Option("--with-vectors", help="Print stored vectors too.")] = False,
    fields: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Print these fields of the payload, a,b.c for two.")
    ] = None,
    without_payload: Annotated[bool, typer.Option("--without-payload", help="Print no payload.")] = False,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Find the points nearest to a vector, nearest first, or those with some words, best first.

    The vector comes from one of --vector, --npy and --id, and may be left out with --text. A filter maps
    payload fields to values, or to operators such as $gt and $in.

    \b
    Examples:
      vecstow search packages --id rrep --limit 5 --fields section,size
      vecstow search packages --npy questions.npy --row 7 --filter '{"section": "net"}'
      vecstow search packages --npy questions.npy --row 7 --text 'image viewer' --fusion '{"text": 2}'
    """
    check_collection_name(name)
    sources = sum(source is not None for source in (vector, npy, point_id))
    if sources > 1 or (not sources and text is None):
        raise typer.BadParameter("give exactly one of --vector, --npy and --id, or --text")
    if fields is not None and without_payload:
        raise typer.BadParameter("--fields and --without-payload exclude each other")
    from vecstow_engine.cli.client import Client

    query: dict[str, Any] = {"limit": limit, "offset": offset, "diversity": diversity}
    query |= {"ef_search": ef, "max_distance": _finite_number(max_distance, "--max-distance")}
    query |= {
        "with_vectors": with_vectors,
        "with_metadata": fields.split(",") if fields else not without_payload,
    }
    if filter_json is not None:
        query["filter"] = finite_json_option(filter_json, "--filter")
    if fusion_json is not None:
        query["fusion"] = finite_json_option(fusion_json, "--fusion")
    query["text"] = text
    if point_id is not None:
        query["id"] = point_id
    elif sources:
        query["vector"] = _vector(vector, npy, row)
    engine = address(url, key_file)
    with Client(engine.url, key=engine.key) as client:
        hits = client.post("collections", name, "search", document=query)
    if as_json:
        print_json(hits)
    else:
        columns = ["id", *(["data"] if with_vectors else []), *([] if without_payload else ["metadata"])]
        print_table(
            ("distance#", *("payload" if column == "metadata" else column for column in columns)),
            ((f"{hit['distance']:.4f}", *(hit[column] for column in columns)) for hit in hits),
        )


def _vector(text: str | None, npy: Path | None, row: int) -> list[float]:
    if npy is None:
        assert text is not None
        values = json_option(read_text(STDIN, VECTOR_BYTES_MAX) if text == "-" else text, "--vector")
        if not isinstance(values, list):
            raise InvalidInput("--vector must be a JSON list of numbers")
        return _finite(values, "--vector")
    from vecstow_engine.cli.rows import as_float32, open_vectors

    rows = open_vectors(npy)
    if row >= len(rows):
        raise InvalidInput(f"--row is {row}; {npy} has rows 0 to {len(rows) - 1}")
    return _finite([float(value) for value in as_float32(rows[row])], f"row {row} of {npy}")


def _finite(values: list[Any], what: str) -> list[Any]:
    """Return `values`; raise InvalidInput for an infinite number or NaN, which JSON does not have.

    The engine refuses values that are not numbers.
    """
    for position, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"{what}[{position}] is {value}; values must be finite")
    return values


def _finite_number(value: float | None, option: str) -> float | None:
    """Return `value`; raise InvalidInput for an infinite number or NaN."""
    if value is not None and not math.isfinite(value):
        raise InvalidInput(f"{option} is {value}; it must be a finite number")
    return value
