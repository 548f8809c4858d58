"""The routes of collections as a whole: create, describe, drop, restore, import, maintain."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Response

from vecstow_engine.api.context import CollectionName, DecodedRoute, InContext, OwnName
from vecstow_engine.api.schemas import (
    BackedUp,
    CleanupBody,
    CollectionStats,
    CreateBody,
    Deleted,
    Description,
    Envelope,
    ImportBody,
    Named,
    PayloadIndexesBody,
    RepairBody,
    RestoreBody,
)
from vecstow_engine.model.manifest import (
    Manifest,
    parse_index_config,
    parse_metric,
    parse_payload_indexes,
    parse_vector_type,
)
from vecstow_engine.model.names import check_collection_name

router = APIRouter(prefix="/collections", tags=["collections"], route_class=DecodedRoute)


@router.post("", response_model=Envelope[Named], summary="Create a collection")
async def create(context: InContext, body: CreateBody, if_exists: Literal["ok"] | None = None) -> Response:
    """With `?if_exists=ok` an existing collection of the same shape is no error."""
    manifest = Manifest(
        name=body.name,
        dimension=body.dimension,
        distance_metric=parse_metric(body.distance_metric),
        vector_type=parse_vector_type(body.vector_type or "Float32"),
        index_config=parse_index_config(body.index_config),
        owner=body.owner,
        payload_indexes=parse_payload_indexes(body.payload_indexes),
    )
    alias = context.engine.registry.aliases.table.get(manifest.name)
    context.authorise(manifest.name if alias is None else alias.collection, manifest.name)
    made = await context.workers.waiting(
        manifest.name, context.engine.catalog.create, manifest, exist_ok=if_exists == "ok"
    )
    message = "created" if made else "exists already, with the same shape"
    return context.reply({"name": body.name, "message": message})


@router.get("", response_model=Envelope[list[str]], summary="List the collections")
async def names(context: InContext) -> Response:
    """Their names, sorted: those that the key is for."""
    found = await context.workers.quick(context.engine.collection_names)
    return context.reply([name for name in found if context.reaches(name)])


@router.get("/deleted", response_model=Envelope[list[Deleted]], summary="List what can be restored")
async def deleted(context: InContext) -> Response:
    """Dropped collections whose retention has not ended, of those that the key is for."""
    found = await context.workers.quick(context.engine.catalog.deleted)
    return context.reply([entry for entry in found if context.reaches(str(entry["name"]))])


@router.post("/restore", response_model=Envelope[Named], summary="Restore a dropped collection")
async def restore(context: InContext, body: RestoreBody) -> Response:
    """Everything that was acknowledged before the drop comes back; backups can be restored too."""
    if body.new_name is not None:
        check_collection_name(body.new_name, "new_name")
    name = await context.workers.long(
        body.new_name, context.engine.catalog.restore, body.backup_path, body.new_name
    )
    return context.reply({"name": name, "message": _with_remarks(context, name, "restored")})


@router.post("/cleanup", response_model=Envelope[list[str]], summary="Remove dropped collections for good")
async def cleanup(context: InContext, body: Annotated[CleanupBody | None, Body()] = None) -> Response:
    """Those dropped longer ago than `retention_hours`; the answer lists them."""
    hours = (body or CleanupBody()).retention_hours
    return context.reply(await context.workers.long(None, context.engine.catalog.cleanup, hours))


@router.post("/import", response_model=Envelope[Named], summary="Import a folder that d-vecDB wrote")
async def import_orphan(context: InContext, body: ImportBody) -> Response:
    """The path must lie under the data directory, or under a folder that the server allows imports from."""
    wanted = Manifest(
        name=check_collection_name(body.collection_name, "collection_name"),
        dimension=body.dimension,
        distance_metric=parse_metric(body.distance_metric),
        vector_type=parse_vector_type(body.vector_type),
    )
    call = context.engine.catalog.import_orphan
    await context.workers.long(body.collection_name, call, body.orphaned_path, wanted)
    name = body.collection_name
    return context.reply({"name": name, "message": _with_remarks(context, name, "imported")})


def _with_remarks(context: InContext, name: str, done: str) -> str:
    """Return a message that names the operation, and what the collection lacks."""
    remarks = context.engine.remarks_on(name)
    return done if remarks is None else f"{done}; {remarks}"


@router.get("/{collection}", response_model=Envelope[Description], summary="Describe a collection")
async def describe(context: InContext, name: CollectionName) -> Response:
    """Its manifest, how many vectors it has, how many of them the graph holds, its state and why."""
    return context.reply(await context.workers.quick(context.engine.describe, name))


@router.get("/{collection}/stats", response_model=Envelope[CollectionStats], summary="Size up a collection")
async def stats(context: InContext, name: CollectionName) -> Response:
    """Counts, and sizes in bytes."""
    return context.reply(await context.workers.quick(context.engine.stats, name))


@router.put(
    "/{collection}/payload-indexes",
    response_model=Envelope[Description],
    summary="Declare the payload indexes of a collection",
)
async def declare_payload_indexes(
    context: InContext, name: CollectionName, body: PayloadIndexesBody
) -> Response:
    """They take the place of the present ones, and are built in the background.

    A field that is declared already stays as it is. 409 for a collection that a resource or a file manages.
    """
    call = context.engine.declarations.declare_payload_indexes
    declared = parse_payload_indexes(body.payload_indexes)
    await context.workers.waiting(name, call, context.engine.collection(name), declared)
    return context.reply(await context.workers.quick(context.engine.describe, name))


@router.delete("/{collection}", response_model=Envelope[Named], summary="Drop a collection")
async def drop(context: InContext, name: OwnName) -> Response:
    """It rests in `.deleted/` until its retention ends; the name is free at once."""
    await context.workers.waiting(name, context.engine.drop, name)
    return context.reply({"name": name, "message": "dropped; POST /collections/restore brings it back"})


@router.delete(
    "/{collection}/hard-delete", response_model=Envelope[Named], summary="Delete a collection for good"
)
async def hard_delete(context: InContext, name: OwnName) -> Response:
    """Nothing of it can be restored."""
    await context.workers.waiting(name, context.engine.hard_delete, name)
    return context.reply({"name": name, "message": "deleted for good"})


@router.post("/{collection}/backup", response_model=Envelope[BackedUp], summary="Back up a collection")
async def backup(context: InContext, name: CollectionName) -> Response:
    """A copy on the same volume, with everything acknowledged before it began."""
    path = await context.workers.long(name, context.engine.backup, name)
    message = _with_remarks(context, name, "backed up")
    return context.reply({"collection": name, "backup_path": path, "message": message})


@router.post("/{collection}/compact", response_model=Envelope[dict[str, Any]], summary="Give space back")
async def compact(context: InContext, name: CollectionName) -> Response:
    """Rewrite the collection's files without the rows of deleted points."""
    return context.reply(await context.workers.long(name, context.engine.compact, name))


@router.post("/{collection}/check", response_model=Envelope[dict[str, Any]], summary="Check a collection")
async def check(context: InContext, name: CollectionName, recall: bool = False) -> Response:
    """Read every file and every row, and list what is wrong.

    With `?recall=true`, search for a sample of points by their own vectors as well: `recall` says how many
    are found.
    """
    return context.reply(await context.workers.long(name, context.engine.check, name, recall=recall))


@router.post("/{collection}/repair", response_model=Envelope[dict[str, Any]], summary="Repair a collection")
async def repair(
    context: InContext, name: CollectionName, body: Annotated[RepairBody | None, Body()] = None
) -> Response:
    """Set the damage aside in `.quarantine/` and build the collection again from what proves itself.

    It answers 503 meanwhile, its neighbours serve. `outcome` is `sound`, `planned` (with `dry_run`),
    `repaired` or `impossible`; `plan` has the steps, and the points and log records that are lost.
    """
    dry_run = (body or RepairBody()).dry_run
    return context.reply(await context.workers.long(name, context.engine.repair, name, dry_run=dry_run))
