"""`kubectl vecstow …`: the commands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from vecstow_operator.keys import EngineKey, KeyFile
from vecstow_operator.kube import Away, Changed, client_of
from vecstow_operator.manager.asking import CONTAINER
from vecstow_operator.manager.engines import EngineView, orphans
from vecstow_operator.manager.verdict import judge
from vecstow_operator.observed import finalizers, observed
from vecstow_operator.plugin.adoption import resource_of
from vecstow_operator.plugin.proxy import EngineProxy, NoAnswer
from vecstow_operator.plugin.report import WHOLE, Line, repaired, report
from vecstow_operator.plugin.survey import Survey, survey
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION, Annotation, Reason

COLUMNS: Final = ("resource", "collection", "engine", "state", "reason", "vectors")
LOSSES: Final = (Reason.DATA_MISSING, Reason.VOLUME_REPLACED)

app = typer.Typer(
    name="kubectl vecstow",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Engine = Annotated[str | None, typer.Option("--engine", help="Which engine; not needed when there is one.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names; default: all.", show_default=False)]
Resources = Annotated[list[str] | None, typer.Argument(help="Names of resources.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


class Refused(Exception):
    """Raised when a command cannot do what it was asked; the message says why."""


@app.callback()
def root() -> None:
    """Look at the vector collections of a namespace, and bring them back.

    \b
    Typed first at night:
      kubectl vecstow status           how each collection stands, and what to type next
    """


@app.command()
def status(
    names: Names = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say how each collection stands, by what the engines answer now.

    Exit code 1 when one of them is not served whole, whether it has a resource, is paused, or neither.
    """
    _, namespace, found = _look(context, namespace, key_file)
    _refuse_unasked(found)
    lines = [
        line
        for line in report(found.resources, found.engines, namespace)
        if not names or line.resource in names or line.collection in names
    ]
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        _print_lines(lines)
    if any(line.reason not in WHOLE for line in lines):
        raise typer.Exit(1)


@app.command()
def adopt(
    names: Names = None,
    engine: Engine = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the resources.")] = False,
    output: Annotated[str | None, typer.Option("--output", "-o", help="yaml: print what is made.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
) -> None:
    """Make resources for collections that have none: after a restore, or for what was made over REST.

    Exit code 1 when one of them could not be described or made; the others are.

    \b
    Example, for git:
      kubectl vecstow adopt --dry-run -o yaml > collections.yaml
    """
    api, namespace, found = _look(context, namespace, key_file)
    _refuse_unasked(found)
    wanted = [
        (on, name)
        for on, name in orphans(found.engines, found.resources)
        if engine in (None, on) and (not names or name in names)
    ]
    _refuse_missing(names, {name for _, name in wanted}, "no collection without a resource")
    resources = _described(found, wanted, namespace)
    if output == "yaml":
        typer.echo(yaml.safe_dump_all(resources, sort_keys=False), nl=False)
    count = 0
    for resource in resources:
        if not dry_run and not _made(api, resource, namespace):
            continue
        count += 1
        if output is None:
            said = "would be made" if dry_run else "made"
            typer.echo(f"vectorcollection/{resource['metadata']['name']} {said}")
    if count < len(wanted):
        raise typer.Exit(1)


@app.command("accept-empty")
def accept_empty(
    name: str, namespace: Namespace = None, context: Context = None, key_file: KeyFile = None
) -> None:
    """Let a collection whose data is gone begin anew, without its vectors.

    Only the loss that is there now is accepted: a later one is told again.
    """
    _, _, found = _look(context, namespace, key_file)
    document = _document(found, name)
    resource = observed(document)
    verdict = judge(resource, found.engines.get(resource.engine, EngineView(resource.engine)))
    lost = verdict.known.collection_uid
    if lost is None:
        raise Refused(f"vectorcollection/{name} never had vectors: there is no loss to accept")
    if verdict.reason not in LOSSES:
        raise Refused(f"vectorcollection/{name} has no loss to accept: {verdict.reason}: {verdict.message}")
    _patch(found, document, {"annotations": {Annotation.ACCEPT_EMPTY.value: lost}})
    typer.echo(f"vectorcollection/{name}: the loss of {lost} is accepted")


@app.command()
def release(
    names: Resources = None,
    everything: Annotated[bool, typer.Option("--all", help="Every resource of the namespace.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
) -> None:
    """Take Vecstow's finalizer from resources, so that they can go without a manager.

    Their collections stay on the volume.
    """
    if not names and not everything:
        raise Refused("name the resources, or say --all")
    _, _, found = _look(context, namespace, key_file)
    there = {document["metadata"]["name"]: document for document in found.documents}
    _refuse_missing(names, set(there), "no resource")
    for name in names or sorted(there):
        if observed(there[name]).has_finalizer:
            others = finalizers(there[name]["metadata"]["finalizers"], held=False)
            _patch(found, there[name], {"finalizers": others})
            typer.echo(f"vectorcollection/{name} released")


@app.command()
def check(
    name: str,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Verify every file and row of one collection; it goes on serving. Exit code 1: damage was found."""
    _, namespace, found = _look(context, namespace, key_file)
    on, collection = _collection(found, name, engine)
    document = _proxy(found, on).call("POST", "collections", collection, "check")
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        for finding in document["findings"]:
            where = "" if finding.get("offset") is None else f" at {finding['offset']}"
            typer.echo(f"{finding['severity']}: {finding['file']}{where}: {finding['message']}")
        count = len(document["findings"])
        typer.echo(f"{collection}: {count} finding{'' if count == 1 else 's'}")
    if any(finding["severity"] == "error" for finding in document["findings"]):
        if not as_json:
            typer.echo(f"  next: kubectl vecstow repair -n {namespace} {name}")
        raise typer.Exit(1)


@app.command()
def repair(
    name: str,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a collection's damaged files aside, and make it anew of all that proves itself.

    It answers 503 meanwhile; the others are served. Exit code 1: something is left to do.
    """
    _, namespace, found = _look(context, namespace, key_file)
    on, collection = _collection(found, name, engine)
    proxy = _proxy(found, on)
    answer = proxy.call("POST", "collections", collection, "repair", body={"dry_run": dry_run})
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        for line in repaired(collection, answer, f"-n {namespace} {proxy.pod} -c {CONTAINER}"):
            typer.echo(line)
    if answer["outcome"] in ("planned", "impossible"):
        raise typer.Exit(1)


@app.command()
def hold(
    seconds: Annotated[float, typer.Option(help="How long, at most.")] = 600.0,
    release_it: Annotated[bool, typer.Option("--release", help="End it.")] = False,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
) -> None:
    """Hold an engine's files still, so that a copy of its volume is exact. Writes go on meanwhile."""
    _, namespace, found = _look(context, namespace, key_file)
    proxy = _proxy(found, engine)
    answer = (
        proxy.call("DELETE", "hold") if release_it else proxy.call("POST", "hold", body={"seconds": seconds})
    )
    typer.echo(f"{answer['message']}{'' if answer['until'] is None else ' until ' + answer['until']}")


def main() -> None:
    """The console script."""
    try:
        app()
    except (Refused, Away, NoAnswer, ConfigException) as error:
        _fail(str(error))
    except ApiException as error:
        _fail(_told(error))
    except (HTTPError, OSError) as error:
        _fail(f"the API server does not answer: {error}")


def _fail(message: str) -> None:
    _say(message)
    raise SystemExit(1)


def _say(message: str) -> None:
    typer.echo(f"error: {message}", err=True)


def _told(error: ApiException) -> str:
    try:
        message = str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        message = ""
    return f"the API server says {error.status} {error.reason}: {message}"


def _look(
    context: str | None, namespace: str | None, key_file: Path | None
) -> tuple[client.ApiClient, str, Survey]:
    contexts, active = config.list_kube_config_contexts()
    chosen = next((c for c in contexts if c["name"] == context), active)
    namespace = namespace or chosen["context"].get("namespace") or "default"
    api = client_of(context)
    return api, namespace, survey(api, namespace, EngineKey(key_file))


def _described(found: Survey, wanted: list[tuple[str, str]], namespace: str) -> list[dict[str, Any]]:
    """Resources for all whose engine can describe them; of the others it tells why not."""
    taken = {resource.name for resource in found.resources}
    resources = []
    for on, name in wanted:
        try:
            description = found.proxies[on].call("GET", "collections", name)
        except NoAnswer as error:
            _say(f"collection {name!r} of engine {on!r} is not adopted: {error}")
            continue
        resource = resource_of(description, on, namespace, taken)
        taken.add(resource["metadata"]["name"])
        resources.append(resource)
    return resources


def _made(api: client.ApiClient, resource: dict[str, Any], namespace: str) -> bool:
    objects = client.CustomObjectsApi(api)
    try:
        objects.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, resource)
    except ApiException as error:
        _say(f"vectorcollection/{resource['metadata']['name']} is not made: {_told(error)}")
        return False
    return True


def _document(found: Survey, name: str) -> dict[str, Any]:
    for document in found.documents:
        if document["metadata"]["name"] == name:
            return document
    raise Refused(f"vectorcollection/{name} does not exist")


def _collection(found: Survey, name: str, engine: str | None) -> tuple[str | None, str]:
    """Engine and collection of a resource of that name, or of a collection that has none."""
    for resource in found.resources:
        if resource.name == name:
            return resource.engine, resource.collection_name
    return engine, name


def _proxy(found: Survey, engine: str | None) -> EngineProxy:
    if engine is None and len(found.proxies) == 1:
        [proxy] = found.proxies.values()
        return proxy
    if not found.proxies:
        raise Refused("no engine of this namespace has a pod")
    if engine is None:
        raise Refused(f"there are {len(found.proxies)} engines with pods; say --engine NAME")
    if engine not in found.proxies:
        raise Refused(f"engine {engine!r} has no pod")
    return found.proxies[engine]


def _refuse_unasked(found: Survey) -> None:
    """What nobody was allowed to ask is no outage."""
    if found.refusals:
        raise Refused(found.refusals[0])


def _refuse_missing(names: Iterable[str] | None, there: set[str], what: str) -> None:
    missing = sorted(set(names or ()) - there)
    if missing:
        raise Refused(f"{what} is called {missing[0]!r}")


def _patch(found: Survey, document: dict[str, Any], changed: dict[str, Any]) -> None:
    """Of exactly the object that was looked at."""
    metadata = document["metadata"]
    try:
        found.cluster.patch_metadata(metadata["name"], metadata["uid"], metadata["resourceVersion"], changed)
    except Changed as error:
        raise Refused(
            f"vectorcollection/{metadata['name']} changed meanwhile ({error}): try again"
        ) from error


def _print_lines(lines: list[Line]) -> None:
    rows = [COLUMNS, *(tuple(str(getattr(line, column)) for column in COLUMNS) for line in lines)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    for row in rows:
        cells = [cell.upper() if row is COLUMNS else cell for cell in row]
        typer.echo("   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    for line in lines:
        if line.reason != "Served":
            typer.echo(f"\n{line.resource if line.resource != '-' else line.collection}: {line.message}")
            if line.next_command is not None:
                typer.echo(f"  next: {line.next_command}")
