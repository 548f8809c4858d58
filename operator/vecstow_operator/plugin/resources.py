"""`kubectl vecstow adopt`, `accept-empty` and `release`: changes of resources."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Container, Iterator, Mapping
from typing import Annotated, Any, Final

import typer
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from vecstow_engine.model.aliases import ALIASES_OF_RESOURCE_MAX
from vecstow_engine.model.resource import API_VERSION, INDEX_FIELDS, KIND
from vecstow_operator.edge import print_error
from vecstow_operator.keys import KeyFile
from vecstow_operator.kube import refusal
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.engines import EngineView, orphans
from vecstow_operator.observed import finalizers, observed
from vecstow_operator.plugin.command import Context, Engine, Names, Namespace, in_session
from vecstow_operator.plugin.session import NoAnswer, Refused, Session, refuse_missing
from vecstow_operator.vocabulary import GROUP, PLUGIN_FIELDS, PLURAL, VERSION, Annotation, Reason

LOSSES: Final = (Reason.DATA_MISSING, Reason.VOLUME_REPLACED)
HASH_CHARACTERS: Final = 6
_LEGAL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@in_session
def adopt(
    names: Names = None,
    *,
    engine: Engine = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the resources.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="yaml: print what is made.")] = None,
    session: Session,
) -> None:
    """Make resources for collections that have none: after a restore, or a creation over REST.

    Exit code 1 when one of them could not be described or made; the others are.

    \b
    Example, for git:
      kubectl vecstow adopt --dry-run -o yaml > collections.yaml
    """
    session.refuse_incomplete()
    wanted = [
        (on, name)
        for on, name in orphans(session.engines, session.resources)
        if engine in (None, on) and (not names or name in names)
    ]
    refuse_missing(names, {name for _, name in wanted}, "no collection without a resource")
    resources = _described(session, wanted)
    if output == "yaml":
        typer.echo(yaml.safe_dump_all(resources, sort_keys=False), nl=False)
    count = 0
    for resource in resources:
        if not dry_run and not _made(session, resource):
            continue
        count += 1
        if output is None:
            said = "would be made" if dry_run else "made"
            typer.echo(f"vectorcollection/{resource['metadata']['name']} {said}")
    if count < len(wanted):
        raise typer.Exit(1)


@in_session
def accept_empty(name: str, *, session: Session) -> None:
    """Let a collection whose data is gone start again, without its vectors.

    Only the present loss is accepted: a later one is reported again.
    """
    document = session.document(name)
    resource = observed(document)
    assessment = assess(resource, session.engines.get(resource.engine, EngineView(resource.engine)))
    lost = assessment.known.collection_uid
    if lost is None:
        raise Refused(f"vectorcollection/{name} never had vectors: there is no loss to accept")
    if assessment.reason not in LOSSES:
        raise Refused(
            f"vectorcollection/{name} has no loss to accept: {assessment.reason}: {assessment.message}"
        )
    session.patch(document, {"annotations": {Annotation.ACCEPT_EMPTY.value: lost}})
    typer.echo(f"vectorcollection/{name}: the loss of {lost} is accepted")


def release(
    names: Annotated[list[str] | None, typer.Argument(help="Names of resources.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every resource of the namespace.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
) -> None:
    """Remove Vecstow's finalizer from resources, so that they can go without a manager.

    Their collections stay on the volume.
    """
    if not names and not everything:
        raise Refused("name the resources, or say --all")
    session = Session.open(context, namespace, key_file)
    there = {document["metadata"]["name"]: document for document in session.documents}
    refuse_missing(names, set(there), "no resource")
    for name in names or sorted(there):
        if observed(there[name]).has_finalizer:
            others = finalizers(there[name]["metadata"]["finalizers"], held=False)
            session.patch(there[name], {"finalizers": others})
            typer.echo(f"vectorcollection/{name} released")


def _described(session: Session, wanted: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return resources for all collections that their engines describe; print an error for each other."""
    taken = {resource.name for resource in session.resources}
    resources = []
    for on, name in wanted:
        try:
            description = session.proxies[on].call("GET", "collections", name)
        except NoAnswer as error:
            print_error(f"collection {name!r} of engine {on!r} is not adopted: {error}")
            continue
        resource = resource_of(description, on, session.namespace, taken)
        taken.add(resource["metadata"]["name"])
        resources.append(resource)
    return resources


def _made(session: Session, resource: dict[str, Any]) -> bool:
    objects = client.CustomObjectsApi(session.api)
    try:
        objects.create_namespaced_custom_object(
            GROUP, VERSION, session.namespace, PLURAL, resource, field_manager=PLUGIN_FIELDS
        )
    except ApiException as error:
        print_error(f"vectorcollection/{resource['metadata']['name']} is not made: {refusal(error)}")
        return False
    return True


def resource_name(collection: str, taken: Container[str] = ()) -> str:
    """Return the collection's name where Kubernetes allows it; otherwise a lower-case form with a short hash.

    Several engines may have collections of one name: each gets a name that is not `taken`.
    """
    if _LEGAL.fullmatch(collection) and collection not in taken:
        return collection
    return next(name for name in _hashed(collection) if name not in taken)


def _hashed(collection: str) -> Iterator[str]:
    plain = re.sub(r"[^a-z0-9-]", "-", collection.lower())[: 62 - HASH_CHARACTERS].strip("-") or "collection"
    for number in itertools.count():
        digest = hashlib.sha256(f"{collection}{number or ''}".encode()).hexdigest()[:HASH_CHARACTERS]
        yield f"{plain}-{digest}"


def resource_of(
    description: Mapping[str, Any], engine: str, namespace: str, taken: Container[str] = ()
) -> dict[str, Any]:
    """Return the resource that declares a collection, from the answer of `GET /collections/{c}`."""
    collection = description["name"]
    name = resource_name(collection, taken)
    spec: dict[str, Any] = {
        "dimension": description["dimension"],
        "distanceMetric": description["distance_metric"],
        "vectorType": description["vector_type"],
        "index": {field: description["index_config"][key] for field, key in INDEX_FIELDS.items()},
        "engine": engine,
        "deletionPolicy": "Retain",
    }
    if description.get("payload_indexes"):
        spec["payloadIndexes"] = description["payload_indexes"]
    if description.get("aliases"):
        spec["aliases"] = description["aliases"][:ALIASES_OF_RESOURCE_MAX]
    if description.get("owner"):
        spec["owner"] = description["owner"]
    if name != collection:
        spec["collectionName"] = collection
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
