"""The options of commands: those that several commands share, and those made from settings.

Shared options name a volume, or an engine and the key to ask with.

Every field of a settings dataclass is one flag and one environment variable: `checkpoint_bytes: int = 4`
with a docstring below it becomes `--checkpoint-bytes` and VECSTOW_CHECKPOINT_BYTES with that default and that
help. A flag takes precedence over the environment. The dataclass is the only definition of a setting.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import typer

from vecstow_engine.cli.input_files import read_bytes
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.key_source import (
    KEY_FILE_BYTES_MAX,
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    find_key_source,
)

PREFIX: Final = "VECSTOW_"
_METAVARS: Final = {"keys": "FILE", "memory_limit": "SIZE"}
_TYPE_METAVARS: Final = {int: "N", float: "X", str: "TEXT", Path: "DIR", Path | None: "DIR"}
_T = TypeVar("_T")

URL_DEFAULT: Final = "http://127.0.0.1:3030"

Url = Annotated[
    str,
    typer.Option("--url", envvar="VECSTOW_URL", metavar="URL", help="The engine's address."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
UrlOrNone = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help=f"Ask this engine. [env var: VECSTOW_URL; default: {URL_DEFAULT}]"
    ),
]
DataOrNone = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Use this data directory, without an engine. [env var: VECSTOW_DATA]"
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help=f"The API key to ask with. [env var: {KEY_FILE_VARIABLE}; or {KEY_VARIABLE}, the key itself]",
    ),
]
Collection = Annotated[str, typer.Argument(metavar="NAME", help="The collection.", show_default=False)]


@dataclass(frozen=True, slots=True)
class Address:
    """An engine, as the user named it."""

    url: str
    key: str | None = field(default=None, repr=False)


def address(url: str, key_file: Path | None) -> Address:
    """Return the engine at `url`, with the key of `key_file` or of the environment; raise InvalidInput.

    Raises InvalidInput. A key is never an argument, because every user of the machine can read arguments.
    """
    source = find_key_source(key_file, os.environ)
    if source is None:
        return Address(url)
    return Address(url, source.key(lambda file: read_bytes(file, KEY_FILE_BYTES_MAX, source.name)))


def choose_place(data: Path | None, url: str | None, key_file: Path | None) -> Path | Address:
    """Return the data directory or the engine that a command uses.

    An option takes precedence over the environment, and VECSTOW_URL over VECSTOW_DATA: a running engine knows
    more than its volume shows. An empty variable counts as unset.

    Raises typer.BadParameter for both options, InvalidInput for a bad key.
    """
    if data is not None and url is not None:
        raise typer.BadParameter("--data and --url exclude each other")
    if data is not None:
        return data
    url = url or os.environ.get("VECSTOW_URL")
    if not url and (folder := os.environ.get("VECSTOW_DATA")):
        return Path(folder)
    return address(url or URL_DEFAULT, key_file)


def engine_hint(arguments: Sequence[str], lacks: str) -> str:
    """Return the hint that asks an engine for what a command wanted to do on the engine's volume.

    `arguments` are those of the command, and `lacks` is an argument that only an engine needs.
    """
    kept = list(arguments)
    for at in reversed(range(len(kept))):
        if kept[at] == "--data":
            del kept[at : at + 2]
        elif kept[at].startswith("--data="):
            del kept[at]
    if lacks:
        kept.insert(1, lacks)
    end = kept.index("--") if "--" in kept else len(kept)
    url = os.environ.get("VECSTOW_URL")
    kept[end:end] = ["--url", url or URL_DEFAULT]
    remark = "" if url else "  # or its own address: this is the default"
    return f"ask that engine: {shlex.join(['vecstow', *kept])}{remark}"


@dataclass(frozen=True, slots=True)
class Flag:
    """The flag of one setting."""

    field: str
    group: str
    """The title of the group: the first line of the settings class's docstring."""
    annotation: Any
    default: object
    """The default; dataclasses.MISSING when the flag is required or a factory makes the default."""
    required: bool
    help: str

    @property
    def option(self) -> str:
        """Return the option, for example `--checkpoint-bytes`."""
        return "--" + self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """Return the environment variable, for example `VECSTOW_CHECKPOINT_BYTES`."""
        return PREFIX + self.field.upper()

    def parameter(self) -> inspect.Parameter:
        """Return the command parameter from which typer makes this flag."""
        low = high = None
        if self.field == "port":
            low, high = 1, 65_535
        elif self.annotation in (int, float):
            # A limit of 0 would refuse every request.
            low = int(self.annotation is int and self.field.endswith(("_max", "_threads")))
        metavar = _METAVARS.get(self.field) or _TYPE_METAVARS.get(self.annotation)
        option = typer.Option(
            self.option, envvar=self.variable, help=self.help, min=low, max=high, metavar=metavar
        )
        default = None if self.default is dataclasses.MISSING else self.default
        if self.required:
            default = inspect.Parameter.empty
        annotation = self.annotation if default is not None else self.annotation | None
        return inspect.Parameter(
            self.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[annotation, option],
        )


def flags(*kinds: type) -> list[Flag]:
    """Return the flags of settings classes and of the groups in them, in the order of the fields."""
    found: list[Flag] = []
    for kind in kinds:
        hints, helps = get_type_hints(kind), _field_docstrings(kind)
        for each in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[each.name]):
                found += flags(hints[each.name])
                continue
            is_required = each.default is each.default_factory is dataclasses.MISSING
            found.append(
                Flag(
                    field=each.name,
                    group=(inspect.getdoc(kind) or "").partition("\n")[0],
                    annotation=hints[each.name],
                    default=each.default,
                    required=is_required,
                    help=helps.get(each.name, ""),
                )
            )
    return found


def takes_flags(wanted: Iterable[Flag]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator for a command that takes each flag's value under the name of the field."""
    parameters = [flag.parameter() for flag in wanted]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def gather(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Return an instance of a settings class from values by field; None keeps the field's default.

    Raises InvalidInput for a number that is infinite or NaN.
    """
    chosen: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[each.name]):
            chosen[each.name] = gather(hints[each.name], values)
        elif (value := values.get(each.name)) is not None:
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput(f"{each.name} is {value}; it must be a finite number")
            chosen[each.name] = value
    return kind(**chosen)


def _field_docstrings(kind: type) -> dict[str, str]:
    """Return the string below each field, read from the source: Python does not keep it elsewhere."""
    try:
        tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    except OSError:
        return {}
    body = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    found = {}
    for pair in pairwise(body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                found[name] = " ".join(str(text).split())
    return found
