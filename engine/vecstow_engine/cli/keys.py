"""`vecstow keys`: make the API keys of an engine, replace one, and print the Secret that the chart takes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vecstow_engine.cli.options import Json
from vecstow_engine.cli.output import print_json, print_line, print_note, print_table

if TYPE_CHECKING:
    from vecstow_engine.cli.key_folder import KeyFolder

FOLDER: Final = Path("keys")
SECRET: Final = "vecstow-keys"
USER: Final = "NAME=ROLE[:PATTERN,…]"


class Output(StrEnum):
    """The format that replaces lines for people."""

    YAML = "yaml"


keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Folder = Annotated[Path, typer.Option(metavar="DIR", help="The folder of the keys.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]
AsYaml = Annotated[
    Output | None, typer.Option("--output", "-o", help="Print the Secret that the chart takes.")
]
SecretName = Annotated[str, typer.Option("--name", metavar="NAME", help="Of the Secret.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Of the Secret; default: kubectl's.")
]


@keys_app.callback()
def keys_root() -> None:
    """Make the API keys of an engine, and replace them one by one.

    \b
    Example:
      vecstow keys init && vecstow serve --data ./data --keys keys/keys.yaml
    """


@keys_app.command("init")
def init_command(
    user: Annotated[
        list[str] | None,
        typer.Option(metavar=USER, help="One more key, where wanted for some collections alone."),
    ] = None,
    folder: Folder = FOLDER,
    output: AsYaml = None,
    name: SecretName = SECRET,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Make a folder with a key for each program, and the list of them for the engine.

    The keys are called sidecar, manager and test, for the chart's programs, and admin, for people. No file is
    ever overwritten; `vecstow keys add` makes more keys later.

    \b
    Examples:
      vecstow keys init --user 'app=write:app-*' --user search=read
      vecstow keys init -o yaml | kubectl apply --server-side -f -
    """
    from vecstow_engine.cli.key_folder import DEFAULTS, KeyFolder, Wanted

    keys = KeyFolder(folder)
    keys.add([*DEFAULTS, *map(Wanted.parse, user or [])], new=True)
    notes = [
        f"{keys.keys_file} lists the keys for the engine; each key is in the file of its name",
        f"on this machine: vecstow serve --data ./data --keys {keys.keys_file}",
        f"                 export VECSTOW_KEY_FILE={folder}/admin",
        f"on Kubernetes:   vecstow keys ls --folder {folder} -o yaml | kubectl apply --server-side -f -",
        f"one more key:    vecstow keys add NAME=ROLE --folder {folder}",
    ]
    _report(keys, notes, output, name, namespace, as_json=as_json)


@keys_app.command("add")
def add_command(
    user: Annotated[
        list[str],
        typer.Argument(
            metavar=USER, help="A key, where wanted for some collections alone.", show_default=False
        ),
    ],
    folder: Folder = FOLDER,
    output: AsYaml = None,
    name: SecretName = SECRET,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Make one more key, or several, in the folder that `vecstow keys init` made.

    No file is ever overwritten: a name that is there is refused.

    \b
    Examples:
      vecstow keys add 'app=write:app-*'
      vecstow keys add search=read -o yaml | kubectl apply --server-side -f -
    """
    from vecstow_engine.cli.key_folder import KeyFolder, Wanted

    keys = KeyFolder(folder)
    wanted = [Wanted.parse(text) for text in user]
    keys.add(wanted)
    notes = [f"{folder / each.name} has the key of {each.name}" for each in wanted]
    notes.append(f"next: give the engine {keys.keys_file}")
    _report(keys, notes, output, name, namespace, as_json=as_json)


@keys_app.command("rotate")
def rotate_command(
    key: Name,
    folder: Folder = FOLDER,
    output: AsYaml = None,
    name: SecretName = SECRET,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Make a new key for NAME; the one before is let in, too, until `vecstow keys retire`.

    \b
    Example:
      vecstow keys rotate app && vecstow keys ls
    """
    from vecstow_engine.cli.key_folder import KeyFolder

    keys = KeyFolder(folder)
    keys.rotate(key)
    notes = [
        f"{folder / key} has a new key; the one before is let in until: vecstow keys retire {key}",
        f"next: give the engine {keys.keys_file}, then {key} the new key",
    ]
    _report(keys, notes, output, name, namespace, as_json=as_json)


@keys_app.command("retire")
def retire_command(
    key: Name,
    folder: Folder = FOLDER,
    output: AsYaml = None,
    name: SecretName = SECRET,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """Let the key that `vecstow keys rotate NAME` replaced in no longer.

    \b
    Example:
      vecstow keys retire app
    """
    from vecstow_engine.cli.key_folder import KeyFolder

    keys = KeyFolder(folder)
    keys.retire(key)
    notes = [f"the key of {key} from before is in {keys.keys_file} no longer"]
    _report(keys, notes, output, name, namespace, as_json=as_json)


@keys_app.command("ls")
def list_command(
    folder: Folder = FOLDER,
    output: AsYaml = None,
    name: SecretName = SECRET,
    namespace: Namespace = None,
    as_json: Json = False,
) -> None:
    """List the keys: names, roles and collections, never a key.

    \b
    Examples:
      vecstow keys ls
      vecstow keys ls -o yaml --namespace search | kubectl apply --server-side -f -
    """
    from vecstow_engine.cli.key_folder import KeyFolder

    keys = KeyFolder(folder)
    if output is None and not as_json:
        rows = ((e["name"], e["role"], ", ".join(e.get("collections", [])) or "all") for e in keys.entries())
        print_table(("name", "role", "collections"), rows)
    else:
        _report(keys, [], output, name, namespace, as_json=as_json)


def _report(
    keys: KeyFolder,
    notes: list[str],
    output: Output | None,
    name: str,
    namespace: str | None,
    *,
    as_json: bool,
) -> None:
    """Print notes, and the Secret or one JSON document if requested; notes go to stderr then."""
    import yaml

    for note in notes:
        (print_line if output is None and not as_json else print_note)(note)
    if output is Output.YAML:
        for line in yaml.safe_dump(keys.secret(name, namespace), sort_keys=False).splitlines():
            print_line(line)
    elif as_json:
        shown = ("name", "role", "collections")
        print_json([{field: entry[field] for field in shown if field in entry} for entry in keys.entries()])
