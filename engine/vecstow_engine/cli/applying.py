"""`vecstow apply`: declare collections from YAML, on a volume or over REST, as kubectl does in a cluster."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.options import Address, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import print_json, print_line, print_note
from vecstow_engine.model.errors import Conflict, InvalidInput, VecstowError
from vecstow_engine.model.manifest import ManagedBy, Manifest, manifest_document, parse_manifest
from vecstow_engine.model.resource import CollectionResource, manifest_from_resource, parse_resource

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client
    from vecstow_engine.cli.documents import Document
    from vecstow_engine.model.aliases import AliasTable
    from vecstow_engine.storage.layout import Layout

PAYLOAD_INDEXES: Final = "payload_indexes"
SETTINGS: Final = {"index_config": "index", "owner": "owner", PAYLOAD_INDEXES: "payloadIndexes"}
"""The settings of a manifest, and their names in the spec of a resource."""
NAME_CHARACTERS_SHOWN: Final = 80
Declare = Callable[[CollectionResource], "Outcome"]
"""A function that declares the collection of one valid resource."""


class Outcome(StrEnum):
    """The outcome of one resource."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    CONFIGURED = "configured"
    PAUSED = "paused"
    REFUSED = "refused"


def apply_command(
    files: Annotated[
        list[Path],
        typer.Option(
            "--filename", "-f", metavar="FILE|DIR", help="YAML or JSON; a folder's files; - for stdin."
        ),
    ],
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Declare collections from VectorCollection files.

    They are the resources that kubectl applies in a cluster.

    With --data the manifests are written on the volume, whether an engine runs there or not. With --url the
    engine is asked to create collections, and to change payload indexes and aliases. Applying the same again
    changes nothing. A shape (dimension, metric, type) never changes.
    An alias that another collection has moves to the one that declares it now; none is ever removed.

    \b
    Examples:
      vecstow apply -f collection.yaml --data ./data
      vecstow apply -f declarations/ --url http://127.0.0.1:3030
    """
    from vecstow_engine.cli.documents import read_documents

    place = choose_place(data, url, key_file)
    documents = list(read_documents(files))
    if not documents:
        raise InvalidInput("nothing to apply: no document in " + ", ".join(str(file) for file in files))
    results = []
    with _declaring(place) as declare:
        for result in _apply_each(documents, declare):
            results.append(result)
            if not as_json:
                _print_result(result)
    if as_json:
        print_json(results)
    if any(result["outcome"] is Outcome.REFUSED for result in results):
        raise typer.Exit(1)


def _apply_each(documents: list[Document], declare: Declare) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each resource, with the message and the hint of a refusal."""
    seen: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for document in documents:
        name = _name(document.content)
        try:
            resource = parse_resource(document.content)
            name = resource.collection_name
            if name in seen:
                raise Conflict(f"collection {name!r} is declared in {seen[name]} already")
            seen[name] = document.source
            for alias in resource.aliases:
                if alias in aliases:
                    raise Conflict(f"alias {alias!r} is declared in {aliases[alias]} already")
                aliases[alias] = document.source
            outcome = Outcome.PAUSED if resource.paused else declare(resource)
            refusal: dict[str, str | None] = {"message": None, "hint": None}
        except VecstowError as error:
            outcome, refusal = Outcome.REFUSED, {"message": error.message, "hint": error.hint}
        yield {"source": document.source, "name": name, "outcome": outcome} | refusal


def _name(content: Any) -> str:
    """Return a name for a resource that may be invalid; `-` without one."""
    metadata = content.get("metadata") if isinstance(content, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name[:NAME_CHARACTERS_SHOWN] if isinstance(name, str) else "-"


def _print_result(result: dict[str, Any]) -> None:
    line = f"vectorcollection/{result['name']} {result['outcome']}"
    if result["outcome"] is not Outcome.REFUSED:
        print_line(line)
        return
    print_note(f"{line}: {result['source']}: {result['message']}")
    if result["hint"]:
        print_note(f"hint: {result['hint']}")


@contextmanager
def _declaring(place: Path | Address) -> Iterator[Declare]:
    """Yield the function that declares a collection on a volume, which is made, or over REST."""
    if isinstance(place, Path):
        from vecstow_engine.storage import files
        from vecstow_engine.storage.volume import stopped_volume

        if not place.exists():
            for folder in reversed((place, *place.parents)):
                files.make_folder(folder)
        layout = stopped_volume(place)
        yield lambda resource: _declare_on_volume(layout, resource)
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            yield lambda resource: _declare_over_rest(client, resource)


def _declare_on_volume(layout: Layout, resource: CollectionResource) -> Outcome:
    from vecstow_engine.storage.alias_changes import set_alias
    from vecstow_engine.storage.aliases import change_aliases
    from vecstow_engine.storage.manifests import update_manifest

    def set_all(table: AliasTable) -> AliasTable:
        for alias in resource.aliases:
            table = set_alias(layout, table, alias, resource.collection_name)
        return table

    before, after = update_manifest(
        layout,
        resource.collection_name,
        lambda existing: manifest_from_resource(resource, ManagedBy.FILE, existing),
    )
    aliases = change_aliases(layout, set_all) if resource.aliases else None
    if before is None:
        return Outcome.CREATED
    is_same = before == after and (aliases is None or aliases.before == aliases.after)
    return Outcome.UNCHANGED if is_same else Outcome.CONFIGURED


def _declare_over_rest(client: Client, resource: CollectionResource) -> Outcome:
    name = resource.collection_name
    existing = _described(client, name)
    wanted = manifest_from_resource(resource, ManagedBy.API, existing)
    if existing is None:
        declared = manifest_document(wanted)
        fields = ("name", "dimension", "distance_metric", "vector_type", *SETTINGS)
        created = {field: declared[field] for field in fields if declared[field] not in (None, [])}
        client.post("collections", document=created)
        _set_aliases_over_rest(client, resource)
        return Outcome.CREATED
    changed = {key for key in SETTINGS if getattr(wanted, key) != getattr(existing, key)}
    for key in sorted(changed - {PAYLOAD_INDEXES}):
        raise Conflict(
            f"spec.{SETTINGS[key]} differs from what collection {name!r} has, and REST cannot change it",
            hint="apply it on the volume, which an engine may be serving: vecstow apply -f FILE --data DIR",
        )
    if changed:
        document = {PAYLOAD_INDEXES: manifest_document(wanted)[PAYLOAD_INDEXES]}
        client.put("collections", name, "payload-indexes", document=document)
    is_changed = _set_aliases_over_rest(client, resource) or bool(changed)
    return Outcome.CONFIGURED if is_changed else Outcome.UNCHANGED


def _set_aliases_over_rest(client: Client, resource: CollectionResource) -> bool:
    """Set the aliases that the collection lacks; return whether there are any."""
    if not resource.aliases:
        return False
    name = resource.collection_name
    missing = set(resource.aliases) - set(client.get("collections", name)["aliases"])
    for alias in sorted(missing):
        client.put("aliases", alias, document={"collection": name})
    return bool(missing)


def _described(client: Client, name: str) -> Manifest | None:
    from vecstow_engine.cli.client import RequestRefused

    try:
        description = client.get("collections", name)
    except RequestRefused as refused:
        if refused.status == 404:
            return None
        raise
    if description["name"] != name:
        message = (
            f"{name!r} is an alias of collection {description['name']!r}: no collection can have the name"
        )
        raise Conflict(message, collection=name, hint=f"vecstow aliases rm {name}")
    keys = {field.name for field in dataclasses.fields(Manifest)}
    declared = {key: value for key, value in description.items() if key in keys}
    return parse_manifest(json.dumps(declared).encode(), f"{client.url}'s description of {name!r}")
