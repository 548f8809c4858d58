"""No answer shows a limited key anything of another tenant, in whatever state the volume is."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.unit.asgi_client import AsgiClient, Reply
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.access import ACCESS
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.server import create_app

ROLES = ("admin", "write", "read")
OURS = ("ours-docs", "ours-twin", "ours-copy", "ours-broken", "ours-gone", "ours-none")
THEIRS = ("zebra-docs", "zebra-empty", "zebra-broken", "zebra-dropped", "zebra-none")
ALIASES = ("ours-second", "ours-lent", "second", "none")
"""Aliases of our collection, and of another tenant's under a name of ours and of no tenant; and none."""
SECRET = b"zebra"
BODIES: dict[str, Any] = {
    "/collections": {"name": "ours-docs", "dimension": 4, "distance_metric": "Cosine"},
    "/collections/restore": {"backup_path": ".deleted"},
    "/collections/import": {
        "orphaned_path": "zebra", "collection_name": "ours-new", "dimension": 4, "distance_metric": "Cosine"
    },
    "/aliases/{alias}": {"collection": "ours-docs"},
    "/state/refresh": {},
    "/search": {"vector": [1, 2, 3, 4]},
    "/search/batch": {"searches": [{"id": "a"}, {"id": "b"}]},
    "/search/groups": {"vector": [1, 2, 3, 4], "group_by": "v"},
    "/recommend": {"positive": ["a", [1, 2, 3, 4]]},
    "/vectors": {"data": [1, 2, 3, 4]},
    "/vectors/batch": {"vectors": [{"data": [1, 2, 3, 4]}]},
    "/vectors/get": {"ids": ["a"]},
    "/vectors/delete": {"ids": ["none"]},
    "/vectors/{id}": {"data": [1, 2, 3, 4]},
    "/repair": {"dry_run": True},
}  # fmt: skip


@pytest.fixture
def keys(tmp_path) -> KeyFile:
    entries = [f"- {{name: {r}, role: {r}, collections: [ours-*], key: {key_of(r)}}}\n" for r in ROLES]
    (tmp_path / "keys.yaml").write_text("keys:\n" + "".join(entries))
    return KeyFile(tmp_path / "keys.yaml")


def key_of(role: str) -> str:
    return f"our-key-of-{role}-0000"


@pytest.fixture
async def engine(tmp_path):
    """Collections of two tenants: served, broken, dropped, and folders that were copied from the other."""
    data = tmp_path / "data"
    with RunningEngine(data) as engine:
        for name in ("ours-docs", "ours-gone", "zebra-docs", "zebra-empty", "zebra-dropped"):
            engine.declare(name)
        for name in ("ours-docs", "zebra-docs", "zebra-dropped"):
            await engine.put(name, a=1)
        for name in ("ours-gone", "zebra-dropped"):
            engine.drop(name)
    for name, named in (("ours-twin", "ours-twin"), ("ours-copy", "zebra-docs")):
        shutil.copytree(data / "zebra-docs", data / name)
        manifest = data / name / "metadata.json"
        manifest.write_text(manifest.read_text().replace('"zebra-docs"', f'"{named}"'))
    for name in ("ours-broken", "zebra-broken"):
        (data / name).mkdir()
        (data / name / "metadata.json").write_text("{zebra")
    with RunningEngine(data) as engine:
        engine.refresh({"resources": [{"collection": "zebra-docs"}]})
        for alias, collection in (("ours-second", "ours-docs"), ("ours-lent", "zebra-docs")):
            engine.aliases.set(alias, collection)
        engine.aliases.set("second", "zebra-docs")
        engine.aliases.set("zebra-second", "zebra-docs")
        yield engine


def body_of(method: str, template: str) -> Any:
    if method in ("GET", "DELETE", "HEAD", "OPTIONS"):
        return None
    return BODIES.get(template, BODIES.get(template.removeprefix("/collections/{collection}")))


def shown(reply: Reply) -> bytes:
    return repr((reply.status, reply.headers)).encode() + reply.body


async def asked(client: AsgiClient, method: str, template: str, name: str, role: str) -> Reply:
    path = template.replace("{collection}", name).replace("{alias}", name).replace("{id}", "a")
    headers = {"Authorization": f"Bearer {key_of(role)}"}
    return await client.call(method, path, body_of(method, template), headers=headers)


def is_safe(method: str, template: str) -> bool:
    """Whether the route leaves the collections that the others ask for as they are."""
    return not template.endswith(("/hard-delete", "/compact")) and (method, template) != (
        "DELETE", "/collections/{collection}"
    )  # fmt: skip


@pytest.mark.parametrize("state", ["sound", "held", "names unknown", "other's sync failed", "leaving"])
async def test_no_answer_shows_a_limited_key_another_tenants_collection(engine, keys, state):
    client = AsgiClient(create_app(engine, keys=keys))
    if state == "held":
        engine.hold.begin(60)
    elif state == "names unknown":
        engine.catalog.changes.failure = "a sync failed during drop of zebra-docs: /data/zebra-docs"
    elif state == "other's sync failed":
        engine.collection("zebra-docs").fail("a sync of zebra-docs failed")
    engine.leaving = state == "leaving"
    routes = [(method, template) for method, template in ACCESS if is_safe(method, template)]
    templates = {template for _, template in routes}
    tried = routes + [(method, template) for method in ("HEAD", "OPTIONS") for template in sorted(templates)]
    for method, template in tried:
        for role in ROLES:
            names = ALIASES if "{alias}" in template else OURS + ALIASES
            for name in names if "{" in template else ("",):
                reply = await asked(client, method, template, name, role)
                assert reply.status != 401
                assert SECRET not in shown(reply), (method, template, name, role)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
async def test_what_exists_of_another_tenant_looks_like_what_does_not(engine, keys, method, role):
    client = AsgiClient(create_app(engine, keys=keys))
    for template in sorted({template for _, template in ACCESS if "{collection}" in template}):
        answers = set()
        for name in THEIRS:
            reply = await asked(client, method, template, name, role)
            assert reply.status == 403, (template, name, reply.body)
            answers.add((reply.body.replace(name.encode(), b"*"), len(reply.headers)))
        assert len(answers) == 1, answers


@pytest.mark.parametrize("role", ROLES)
async def test_an_alias_of_another_tenant_looks_like_what_does_not_exist(engine, keys, role):
    client = AsgiClient(create_app(engine, keys=keys))
    for method, template in sorted(route for route in ACCESS if "{" in route[1]):
        answers = set()
        for name in ("second", "zebra-second", "none"):
            reply = await asked(client, method, template, name, role)
            assert reply.status == 403, (template, name, reply.body)
            answers.add(reply.body.replace(name.encode(), b"*"))
        assert len(answers) == 1, answers


async def test_strangers_are_shown_no_name(engine, keys):
    client = AsgiClient(create_app(engine, keys=keys))
    for method, template in ACCESS:
        for headers in ({}, {"api-key": "a-key-of-nobody-0000"}):
            path = template.replace("{collection}", "x").replace("{alias}", "x").replace("{id}", "a")
            reply = await client.call(method, path, body_of(method, template), headers=headers)
            assert b"ours" not in shown(reply)
            assert SECRET not in shown(reply)
