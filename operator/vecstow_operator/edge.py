"""The edge of both programs: an error becomes one line on stderr and an exit code.

The codes are 0: done; 1: refused or failed; 2: wrong usage; 130: interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback

import typer
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from vecstow_operator.keys import NoKey
from vecstow_operator.kube import Away, refusal


def run(app: typer.Typer, *known: type[Exception]) -> None:
    """Run a program's command; `known` are errors whose text is the message. Ends in SystemExit."""
    expected: tuple[type[Exception], ...] = (Away, ConfigException, NoKey, *known)
    try:
        app()
    except expected as error:
        print_error(str(error))
    except ApiException as error:
        print_error(refusal(error))
    except HTTPError as error:
        print_error(f"no answer: {error}")
    except OSError as error:
        print_error(f"{error.filename or 'system'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001  # The edge: people get a line, and no traceback.
        if os.environ.get("VECSTOW_DEBUG"):
            traceback.print_exc()
        name = type(error).__name__
        print_error(f"unexpected {name}: {error}; VECSTOW_DEBUG=1 shows where; please report it")
    raise SystemExit(1)


def print_error(message: str) -> None:
    """Write one line to stderr."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)


def has_colours() -> bool:
    """Whether stderr is a terminal that shows colours, and NO_COLOR is not set."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
