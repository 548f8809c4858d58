"""`vecstow-operator`: both roles, and the commands of a chart's hooks. It reads every setting, once."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import structlog
import typer
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from vecstow_operator.edge import has_colours, run
from vecstow_operator.health import EVERY_ADDRESS, Metrics, serve_health
from vecstow_operator.keys import EngineKey, KeyFile
from vecstow_operator.kube import Away, Cluster, Undefined
from vecstow_operator.kubeconfig import load_configuration
from vecstow_operator.loop import Loop, Watcher
from vecstow_operator.round_trip import Failed, RoundTrip

SIDECAR_TICK_SECONDS: Final = 5.0
"""How often the volume is read: drift is reverted within twice that."""
MANAGER_TICK_SECONDS: Final = 2.0
"""How often the engines are asked."""
RELEASE_SECONDS: Final = 30
"""How long no manager may act after `release`: an uninstall ends the manager meanwhile."""
RELEASE_ATTEMPTS: Final = 5
RELEASE_AGAIN_SECONDS: Final = 1.0
"""The pause after an attempt that the API server refused in part."""
END_SECONDS: Final = 15.0
"""The time after SIGTERM to release the resources of an ending namespace: a pod has 30 s to end."""

app = typer.Typer(
    name="vecstow-operator",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Namespace = Annotated[
    str | None,
    typer.Option(envvar="VECSTOW_NAMESPACE", help="Namespace to work in; default: the pod's own."),
]
LeaseName = Annotated[str, typer.Option(help="Name of the Lease that guards against two.")]
HealthHost = Annotated[str, typer.Option(help="Address of /healthz and /metrics.")]
HealthPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of /healthz and /metrics; 0 takes a free one.")
]


def _checked_address(url: str) -> str:
    """Return an engine's address. Raise BadParameter for one that no request can reach."""
    try:
        parsed = parse_url(url)
    except LocationParseError:
        parsed = None
    if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host or parsed.auth:
        raise typer.BadParameter(f"{url[:200]!r} is no address; it must be like http://127.0.0.1:3030")
    return url


class LogFormat(StrEnum):
    """The form of log lines."""

    TEXT = "text"
    JSON = "json"


@app.callback()
def root() -> None:
    """Bring the resources of Kubernetes and the collections on the volumes to the same state."""


@app.command()
def sidecar(
    engine: Annotated[str, typer.Option(help="The engine's name, as resources name it in spec.engine.")],
    data: Annotated[Path, typer.Option(help="The engine's data directory.")],
    engine_url: Annotated[
        str, typer.Option(callback=_checked_address, help="The address of the engine in the same pod.")
    ] = "http://127.0.0.1:3030",
    namespace: Namespace = None,
    key_file: KeyFile = None,
    tick_seconds: Annotated[float, typer.Option(min=0.1, help="How often the volume is read.")] = (
        SIDECAR_TICK_SECONDS
    ),
    health_host: HealthHost = EVERY_ADDRESS,
    health_port: HealthPort = 3031,
    log_format: LogFormat = LogFormat.TEXT,
) -> None:
    """Write the manifests on the volume of one engine pod."""
    from vecstow_engine.storage.layout import Layout
    from vecstow_operator.sidecar.collection_folders import CollectionFolders
    from vecstow_operator.sidecar.reconciler import SidecarReconciler
    from vecstow_operator.sidecar.reports import EngineClient

    _configure_logging(log_format)
    cluster, metrics = _cluster(namespace), Metrics()
    client, volume = EngineClient(engine_url, EngineKey(key_file)), CollectionFolders(Layout(data))
    role = SidecarReconciler(cluster, engine, volume, client, metrics)
    loop = Loop(role.run_pass, tick_seconds, metrics.heartbeat)
    _serve(loop, cluster.namespace, lambda: role.knows_all, engine, health_host, health_port, metrics)


@app.command()
def manager(
    namespace: Namespace = None,
    key_file: KeyFile = None,
    tick_seconds: Annotated[float, typer.Option(min=0.1, help="How often the engines are asked.")] = (
        MANAGER_TICK_SECONDS
    ),
    lease: LeaseName = "vecstow-manager",
    pod_name: Annotated[
        str | None,
        typer.Option(envvar="VECSTOW_POD_NAME", help="The manager's own pod, which owns the Lease."),
    ] = None,
    pod_uid: Annotated[
        str | None, typer.Option(envvar="VECSTOW_POD_UID", help="The uid of that pod.")
    ] = None,
    health_host: HealthHost = EVERY_ADDRESS,
    health_port: HealthPort = 3032,
    log_format: LogFormat = LogFormat.TEXT,
) -> None:
    """Keep status, events and finalizers of all resources of a namespace."""
    from vecstow_operator.manager.lease import Lease, owner_of
    from vecstow_operator.manager.reconciler import ManagerReconciler
    from vecstow_operator.manager.state_poller import StatePoller

    _configure_logging(log_format)
    cluster, metrics = _cluster(namespace), Metrics()
    stopped = threading.Event()
    poller = StatePoller(EngineKey(key_file))
    role = ManagerReconciler(cluster, poller, metrics, tick_seconds, stopped)
    guard = Lease(lease, cluster.namespace, owner_of(pod_name, pod_uid))

    def run_pass(*, is_woken: bool) -> None:
        if guard.is_held():
            role.run_pass(is_woken=is_woken)

    loop = Loop(run_pass, tick_seconds, metrics.heartbeat, stopped)
    _serve(loop, cluster.namespace, lambda: role.knows_all, None, health_host, health_port, metrics)
    role.writer.release_ending_namespace(END_SECONDS)
    role.close()
    guard.release()


@app.command()
def release(
    namespace: Namespace = None,
    lease: LeaseName = "vecstow-manager",
    log_format: LogFormat = LogFormat.TEXT,
) -> None:
    """Remove Vecstow's finalizer from every resource, in the manager's place: before an uninstall.

    The collections stay on the volume. No manager of the namespace acts for half a minute.
    """
    from vecstow_operator.manager.lease import Lease
    from vecstow_operator.manager.writer import ResourceWriter

    _configure_logging(log_format)
    cluster = _cluster(namespace)
    writer = ResourceWriter(cluster, Metrics(), threading.Event())
    try:
        Lease(lease, cluster.namespace).seize(RELEASE_SECONDS)
        for _ in range(RELEASE_ATTEMPTS):
            try:
                if not (held := writer.release_all()):
                    return
                typer.echo(f"{held} resources are let go")
                hindrance = Away("resources are held again and again: another manager is at work")
            except Undefined:
                typer.echo("there is no definition of VectorCollection here, and no resource")
                return
            except Away as away:
                hindrance = away
                time.sleep(RELEASE_AGAIN_SECONDS)
        raise hindrance
    finally:
        writer.close()


@app.command("round-trip")
def round_trip(
    engine: Annotated[str, typer.Option(help="The engine's name, as resources name it in spec.engine.")],
    engine_url: Annotated[str, typer.Option(callback=_checked_address, help="The address that clients use.")],
    namespace: Namespace = None,
    key_file: KeyFile = None,
    log_format: LogFormat = LogFormat.TEXT,
) -> None:
    """Declare a collection, fill it, search it and drop it: `helm test` runs this."""
    _configure_logging(log_format)
    RoundTrip(_cluster(namespace).namespace, engine, engine_url, EngineKey(key_file)).run()


def main() -> None:
    """Run the console script."""
    run(app, Failed)


def _cluster(namespace: str | None) -> Cluster:
    found = load_configuration()
    return Cluster(namespace or found)


def _serve(
    loop: Loop,
    namespace: str,
    may_watch: Callable[[], bool],
    engine: str | None,
    health_host: str,
    health_port: int,
    metrics: Metrics,
) -> None:
    """Run the loop, the watch and the health server until a signal comes."""
    loop.stop_on_signals()
    try:
        health = serve_health(health_host, health_port, metrics)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{health_host} port {health_port}") from error
    watcher = Watcher(namespace, loop.wake, may_watch, engine)
    watcher.start()
    try:
        loop.run()
    finally:
        watcher.stop()
        health.shutdown()


def _configure_logging(log_format: LogFormat) -> None:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(
            colors=has_colours(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if os.environ.get("VECSTOW_DEBUG") else logging.INFO
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("kopf").setLevel(logging.ERROR)
