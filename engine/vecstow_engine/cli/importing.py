"""`vecstow import`: embeddings and payloads into a running engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vecstow_engine.cli.options import URL_DEFAULT, Collection, Json, KeyFile, Url, address
from vecstow_engine.cli.output import print_answer
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import check_collection_name


def import_command(
    name: Collection,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.npy", help="Rows of float16, float32 or float64.", show_default=False),
    ] = None,
    payload: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="One JSON object per row, in the same order (.jsonl, .jsonl.gz)."),
    ] = None,
    id_field: Annotated[
        str, typer.Option(metavar="FIELD", help="The field of the payload file that is the id.")
    ] = "id",
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One id per line, instead of the payload's field.")
    ] = None,
    number_rows: Annotated[
        bool, typer.Option("--number-rows", help="The row's number is its id, whatever the payload has.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip the rows that an interrupted import brought.")
    ] = False,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="Rows in one request.")] = 1000,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for a busy or restarting engine."),
    ] = 60.0,
    orphan: Annotated[
        str | None, typer.Option(metavar="PATH", help="Import this d-vecDB folder, on the engine's side.")
    ] = None,
    dimension: Annotated[int | None, typer.Option(metavar="N", min=1, help="Of the d-vecDB folder.")] = None,
    metric: Annotated[DistanceMetric | None, typer.Option(help="Of the d-vecDB folder.")] = None,
    vector_type: Annotated[
        VectorType, typer.Option("--type", help="What the d-vecDB folder becomes.")
    ] = VectorType.FLOAT32,
    url: Url = URL_DEFAULT,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Bring embeddings into a collection.

    Every row gets an id, so a row that is sent twice is stored once: by the payload's field "id", by --ids,
    or else by its number. Of rows with one id the last is stored, and the end says how many ids that were. A
    busy engine is waited for; after an interruption, --resume goes on.

    With --orphan the engine itself reads a folder that d-vecDB wrote, and makes the collection.

    \b
    Examples:
      vecstow import packages packages.npy --payload packages.jsonl.gz
      vecstow import incidents --orphan /data/old-incidents --dimension 384 --metric Cosine
    """
    check_collection_name(name)
    engine = address(url, key_file)
    if orphan is not None and file is None:
        if dimension is None or metric is None:
            raise typer.BadParameter("--orphan needs --dimension and --metric")
        wanted = {
            "orphaned_path": orphan,
            "collection_name": name,
            "dimension": dimension,
            "distance_metric": metric.value,
            "vector_type": vector_type.value,
        }
        from vecstow_engine.cli.client import Client

        with Client(engine.url, key=engine.key) as client:
            answer = client.post("collections", "import", document=wanted)
        summary = f"{answer['name']}: {answer['message']}"
    elif file is not None and orphan is None:
        from vecstow_engine.cli.client import Client
        from vecstow_engine.cli.ingest import send_rows
        from vecstow_engine.cli.rows import open_source

        source = open_source(file, payload, ids, None if number_rows else id_field)
        with Client(engine.url, key=engine.key, patience_seconds=patience) as client:
            report = send_rows(client, name, source, rows=batch, resume=resume)
        answer, summary = report.document(), report.summary()
    else:
        raise typer.BadParameter("give either FILE.npy or --orphan PATH")
    print_answer(answer, summary, as_json=as_json)
