"""Writes docs/cli.md and docs/settings.md from the code; a test compares them.

.venv/bin/python scripts/make_reference.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import Enum
from itertools import groupby
from pathlib import Path

import typer

from vecstow_engine.cli.commands import CONTEXT, app
from vecstow_engine.cli.options import Flag
from vecstow_engine.cli.serving import FLAGS

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 100

CLI_HEAD = """\
# The command line

`vecstow` serves a volume, and asks and keeps in order what is served. Made by `scripts/make_reference.py`.

- Output is for people; `--json` prints one JSON document on stdout instead, for programs. Errors are one line
  on stderr, where there is more to say followed by a hint.
- Exit codes: 0 done; 1 refused, failed or, for `check`, damage found; 2 wrong usage; 130 interrupted;
  143 terminated.
- `--url` (or `VECSTOW_URL`) names an engine, `--data` (or `VECSTOW_DATA`) a data directory. An option wins
  over the environment, and there `VECSTOW_URL` over `VECSTOW_DATA`.
- `VECSTOW_API_KEY`, or the file that `--key-file` or `VECSTOW_KEY_FILE` names, has the API key that an engine
  is asked with; `--key-file` wins. No option takes the key itself: others on the machine could read it.
- Text files are UTF-8; a byte order mark is skipped. gzip is recognised by the content, not by the name. An
  error names the file and the line.
- `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` count for addresses that are not loopback.
  `NO_PROXY` has hosts, domains, addresses and ranges of addresses. `SSL_CERT_FILE` names the trusted
  authorities.
- `VECSTOW_DEBUG=1` adds the traceback of an unexpected error.
"""

SETTINGS_HEAD = """\
# Settings

Every setting of `vecstow serve`: a flag, an environment variable, a default. A flag wins over the
environment. Made by `scripts/make_reference.py` from the settings classes.
"""

TABLE_HEAD = "| flag | environment | default | meaning |\n|---|---|---|---|\n"


def cli_page() -> str:
    """The help of every command, as the terminal shows it."""
    root = typer.main.get_command(app)
    parts = [CLI_HEAD, _help_block("vecstow", root)]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if name == "serve":
            block = "Its settings are in [settings.md](settings.md).\n\n" + _help_block(
                "vecstow serve", command, 9
            )
        else:
            block = _help_block(f"vecstow {name}", command)
        parts.append(f"## vecstow {name}\n\n{block}")
        for below, subcommand in getattr(command, "commands", {}).items():
            title = f"vecstow {name} {below}"
            parts.append(f"### {title}\n\n{_help_block(title, subcommand)}")
    return "\n".join(parts)


def settings_page() -> str:
    """One table per group of settings."""
    parts = [SETTINGS_HEAD]
    for group, members in groupby(FLAGS, key=lambda flag: flag.group):
        rows = "\n".join(_row(flag) for flag in members)
        parts.append(f"## {group.rstrip('.')}\n\n{TABLE_HEAD}{rows}\n")
    return "\n".join(parts)


PAGES = {"cli.md": cli_page, "settings.md": settings_page}


def _help_block(name: str, command: object, lines: int | None = None) -> str:
    context = typer.Context(command, info_name=name, terminal_width=WIDTH, **CONTEXT)  # type: ignore[arg-type]
    text = command.get_help(context).rstrip().splitlines()  # type: ignore[attr-defined]
    if lines is not None:
        text = text[: text.index("Options:")]
    return "```\n" + "\n".join(text).rstrip() + "\n```\n"


def _row(flag: Flag) -> str:
    return f"| `{flag.option}` | `{flag.variable}` | {_default(flag)} | {flag.help} |"


def _default(flag: Flag) -> str:
    if flag.required:
        return "required"
    if flag.default is dataclasses.MISSING:
        return "see meaning"
    value = flag.default.value if isinstance(flag.default, Enum) else flag.default
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and value >= 65_536 and value % 1024 == 0:
        return f"{value} ({_binary(value)})"
    return str(value)


def _binary(value: int) -> str:
    units: Iterator[str] = iter(("KiB", "MiB", "GiB"))
    unit = ""
    while value % 1024 == 0 and value:
        value, unit = value // 1024, next(units)
    return f"{value} {unit}"


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
