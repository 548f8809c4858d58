"""A supply of a node is rebuilt when, and only when, one of its inputs has changed."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.e2e.archive import write_archive
from tests.e2e.images import INPUTS, ROOT, archive, input_digest
from tests.e2e.programs import ALL

UNCHECKED_HASH = (0b01).to_bytes(4, "little")
"""The flags of a compiled file (PEP 552)."""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for name in INPUTS:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    return tmp_path


def test_the_image_has_the_same_name_as_long_as_its_inputs_are_the_same(copied: Path) -> None:
    assert input_digest(copied) == input_digest(ROOT)
    (copied / "engine" / "vecstow_engine" / "__pycache__").mkdir()
    (copied / "engine" / "vecstow_engine" / "__pycache__" / "main.pyc").write_bytes(b"compiled")
    (copied / "CHANGELOG.md").write_text("no part of it")
    assert input_digest(copied) == input_digest(ROOT)


@pytest.mark.parametrize("name", ["Dockerfile", "requirements-image.lock", "engine/vecstow_engine/py.typed"])
def test_another_input_gives_the_image_another_name(copied: Path, name: str) -> None:
    (copied / name).write_text("changed")
    assert input_digest(copied) != input_digest(ROOT)


def test_every_copy_of_the_dockerfile_is_an_input() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted([*sent, ".dockerignore", "Dockerfile"]) == sorted(INPUTS)


def test_what_the_image_locks_is_locked_alike_for_development() -> None:
    image, development = (
        (ROOT / name).read_text().split("\n") for name in ("requirements-image.lock", "requirements.lock")
    )
    assert [line for line in image if "==" in line and line not in development] == []


def test_no_module_of_the_image_is_compiled_again() -> None:
    """Python takes each compiled file as it is, without a look at a time: the files' own are all alike, and a
    root that is read-only keeps nothing that a start compiles.
    """
    seen = set()
    with tarfile.open(archive()) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(name)) as layer:
                for member in layer:
                    if member.name.startswith("opt/") and member.name.endswith(".pyc"):
                        compiled = layer.extractfile(member)
                        assert compiled is not None
                        seen.add(compiled.read(8)[4:])
    assert seen == {UNCHECKED_HASH}


def test_an_image_of_one_program_has_it_at_its_root(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"a program")
    write_archive(tmp_path / "image.tar", "example.test/pause:1", program)
    with tarfile.open(tmp_path / "image.tar") as image:
        manifest, layer = image.extractfile("manifest.json"), image.extractfile("layer.tar")
        assert manifest is not None
        assert layer is not None
        assert json.load(manifest)[0]["RepoTags"] == ["example.test/pause:1"]
        with tarfile.open(fileobj=layer) as root:
            assert [(entry.name, entry.mode) for entry in root] == [("pause", 0o755)]


def test_every_go_module_is_at_the_version_that_it_requires() -> None:
    versions = {module.name: module.version for module in ALL}
    assert versions.pop("pause") == ""
    assert all(version.startswith("v") for version in versions.values()), versions
