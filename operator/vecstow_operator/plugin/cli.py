"""`kubectl vecstow …`: the commands put together."""

from __future__ import annotations

import typer

from vecstow_operator.edge import run
from vecstow_operator.plugin.copies import backup, cleanup, compact, deleted, hold, restore
from vecstow_operator.plugin.resources import accept_empty, adopt, release
from vecstow_operator.plugin.session import NoAnswer, Refused
from vecstow_operator.plugin.status import status
from vecstow_operator.plugin.verifying import check, repair

app = typer.Typer(
    name="kubectl vecstow",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Look at the vector collections of a namespace, and bring them back.

    \b
    Typed first at night:
      kubectl vecstow status           how each collection stands, and what to type next
    """


app.command()(status)
app.command()(adopt)
app.command()(accept_empty)
app.command()(release)
app.command()(check)
app.command()(repair)
app.command()(backup)
app.command()(restore)
app.command()(deleted)
app.command()(cleanup)
app.command()(compact)
app.command()(hold)


def main() -> None:
    """Run the console script."""
    run(app, Refused, NoAnswer)
