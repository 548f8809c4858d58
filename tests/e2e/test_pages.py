"""The chart's README and what an install prints, typed as they stand, from an empty namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.images import DOCUMENTED_IMAGE, IMAGE, ROOT
from tests.e2e.node import Node
from tests.e2e.release import Release
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

README = (ROOT / "charts" / "vecstow" / "README.md").read_text()
FENCES = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WITH_KEYS, WITHOUT_KEYS, SECOND, UNINSTALL = FENCES.findall(README)
PROGRAMS = ("kubectl", "helm", "curl", "export", "sleep")
HEREDOC_END = "YAML"


def typed_lines(notes: str) -> Iterator[str]:
    """The commands of a release's notes, each with the document that it reads."""
    in_document = False
    for line in notes.splitlines():
        if in_document or line.strip().split(" ")[0] in PROGRAMS:
            yield line if in_document else line.strip()
        in_document = line.endswith(f"<<'{HEREDOC_END}'") or (in_document and line != HEREDOC_END)


def under(name: str, block: str) -> str:
    """The commands with another name for the release."""
    return re.sub(r"(helm (?:install|test|uninstall)) vecstow\b", rf"\1 {name}", block)


def names_of(here: Release, kind: str) -> list[str]:
    """Return the names of all objects of a kind in the release's namespace."""
    return [each["metadata"]["name"] for each in here.get(kind)["items"]]


@pytest.mark.parametrize(
    ("name", "install"),
    [
        pytest.param("vecstow", WITH_KEYS, id="keys made by hand"),
        pytest.param("search", WITHOUT_KEYS, id="keys made by the chart"),
    ],
)
def test_readme_and_notes_lead_to_an_answer_and_away_again(
    node: Node, namespace: str, tmp_path: Path, name: str, install: str
) -> None:
    node.tag_image(IMAGE, DOCUMENTED_IMAGE)
    for volume in (namespace, f"{namespace}-second"):
        node.add_volume(volume, "10Gi")
    for part in ("charts", ".venv"):
        (tmp_path / part).symlink_to(ROOT / part)
    here = Release(node, namespace, name)

    def type_in(block: str) -> str:
        return here.typed(f"cd {tmp_path} && set -e\n{block}")

    type_in(under(name, install))
    notes = node.helm("get", "notes", name, f"--namespace={namespace}")
    commands = "\n".join(typed_lines(notes)).replace("…", "$(cat keys/admin)")
    assert '"name":"app-first"' in type_in(f"{commands}\nkill $!")
    kept = []
    if install is WITH_KEYS:
        type_in(SECOND)
        kept = ["second-vecstow"]
    type_in(under(name, UNINSTALL))
    wait_for(lambda: names_of(here, "statefulset") == kept, "the end of the release")
