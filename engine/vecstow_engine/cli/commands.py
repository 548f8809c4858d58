"""The commands of `vecstow`, and the one place where an error becomes an exit code.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any, Final

import typer

from vecstow_engine import __version__
from vecstow_engine.cli.aliases import aliases_app
from vecstow_engine.cli.applying import apply_command
from vecstow_engine.cli.checking import check_command
from vecstow_engine.cli.importing import import_command
from vecstow_engine.cli.keys import keys_app
from vecstow_engine.cli.listing import ls_command, show_command
from vecstow_engine.cli.options import Json, engine_hint
from vecstow_engine.cli.output import flush_stdout, open_streams, print_answer, print_error, print_line
from vecstow_engine.cli.searching import search_command
from vecstow_engine.cli.selecting import (
    count_command,
    delete_command,
    facet_command,
    scroll_command,
    set_payload_command,
)
from vecstow_engine.cli.serving import serve_command
from vecstow_engine.cli.upkeep import (
    backup_command,
    compact_command,
    hold_command,
    maintenance_command,
    restore_command,
)
from vecstow_engine.model.errors import VecstowError, VolumeServed

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="vecstow",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"vecstow {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep vector collections safe and searchable.

    \b
    Getting started:
      vecstow serve --data ./data                      serve a volume on port 3030
      vecstow apply -f collection.yaml --data ./data   declare a collection on it
      vecstow import NAME vectors.npy                  bring embeddings in
      vecstow search NAME --npy question.npy           ask

    Every command has --help with an example, and --json for programs.
    """


def version_command(as_json: Json = False) -> None:
    """Print the version.

    \b
    Example:
      vecstow version --json
    """
    print_answer({"version": __version__}, f"vecstow {__version__}", as_json=as_json)


app.command("serve")(serve_command)
app.command("apply")(apply_command)
app.command("ls")(ls_command)
app.command("show")(show_command)
app.command("import")(import_command)
app.command("search")(search_command)
app.command("scroll")(scroll_command)
app.command("count")(count_command)
app.command("facet")(facet_command)
app.command("set-payload")(set_payload_command)
app.command("delete")(delete_command)
app.command("check")(check_command)
app.command("compact")(compact_command)
app.command("hold")(hold_command)
app.command("backup")(backup_command)
app.command("restore")(restore_command)
app.command("maintenance")(maintenance_command)
app.add_typer(aliases_app, name="aliases")
app.add_typer(keys_app, name="keys")
app.command("version")(version_command)


def run(arguments: list[str] | None = None) -> None:
    """Run one command (default: the process's arguments), and raise SystemExit with its exit code."""
    open_streams()
    _forget_service_link()
    code = _run(arguments)
    try:
        flush_stdout()
    except BrokenPipeError:  # the reader, for example `| head`, has closed the pipe
        code = code or 1
    except OSError as error:
        print_error(VecstowError(f"stdout cannot be written: {error.strerror or error}"))
        code = code or 1
    raise SystemExit(code)


def _run(arguments: list[str] | None) -> int:
    """Run one command, print its error, and return the exit code."""
    try:
        app(args=arguments, prog_name="vecstow")
    except SystemExit as ended:
        return int(ended.code or 0)
    except VolumeServed as error:
        error.hint = engine_hint(sys.argv[1:] if arguments is None else arguments, error.lacks)
        print_error(error)
    except VecstowError as error:
        print_error(error)
    except OSError as error:
        print_error(VecstowError(f"{error.filename or 'system'}: {error.strerror or error}"))
    except Exception as error:  # noqa: BLE001  # The edge: people get a line, not a traceback.
        if os.environ.get("VECSTOW_DEBUG"):
            traceback.print_exc()
        print_error(
            VecstowError(
                f"unexpected {type(error).__name__}: {error}",
                hint="VECSTOW_DEBUG=1 shows where; please report it",
            )
        )
    return 1


def _forget_service_link() -> None:
    """Remove VECSTOW_PORT if Kubernetes set it to tcp://address:port, for a Service named `vecstow`."""
    if os.environ.get("VECSTOW_PORT", "").startswith("tcp://"):
        del os.environ["VECSTOW_PORT"]
