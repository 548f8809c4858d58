"""docs/quickstart-kubernetes.md, typed as it stands: all but how an image comes into a cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.images import DOCUMENTED_IMAGE, IMAGE, ROOT
from tests.e2e.node import Node
from tests.e2e.release import Release

pytestmark = pytest.mark.timeout(600)

PAGE = ROOT / "docs" / "quickstart-kubernetes.md"


def test_the_page_leads_from_nothing_to_a_hit(node: Node, namespace: str, tmp_path: Path) -> None:
    node.tag_image(IMAGE, DOCUMENTED_IMAGE)
    node.add_volume(namespace, "10Gi")
    for name in ("charts", "examples", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    here = Release(node, namespace)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    printed = [here.typed(f"cd {tmp_path} && set -e\n{block}") for block in blocks]
    assert len(printed) == 5
    assert "app-notes   True    Served" in printed[1]
    told = re.search(r"^at what hour.*?^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert told is not None
    assert printed[2].endswith(told[0].removesuffix("```"))
    assert '"id":"note-0"' in printed[3]
    assert re.search(r"app-notes +True +Served +False +false +\S+ +256 +Cosine +4 ", printed[4])
