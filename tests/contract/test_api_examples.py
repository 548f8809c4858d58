"""Pages, run from the top to the bottom against a real engine: what they show is what happens."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX
from vecstow_engine.api.point_routes import POINT_ROUTES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "api.md"
PAGES = [PAGE, DOCS / "queries.md"]
ADDRESS = "http://127.0.0.1:3030"
ANYTHING = "…"


def fences(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run_curl(command: str, url: str, variables: dict[str, str]) -> httpx.Response:
    """Run a curl command: it understands -s, -i, -X, -H, -d and an address, and nothing else."""
    for name, value in variables.items():
        command = command.replace(f"'\"${name}\"'", value)
    words = iter(shlex.split(command.replace("\\\n", " ")))
    assert next(words) == "curl"
    method, headers, body, address = "GET", {}, None, ""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
        elif word not in ("-s", "-i"):
            assert word.startswith(ADDRESS), word
            address = word.replace(ADDRESS, url)
    return httpx.request(method, address, headers=headers, content=body, timeout=SECONDS_MAX)


def matches(shown: Any, answered: Any) -> bool:
    """Whether an answer is the one shown, `…` standing for anything."""
    if shown == ANYTHING:
        return True
    if isinstance(shown, dict) and isinstance(answered, dict):
        return shown.keys() == answered.keys() and all(matches(shown[key], answered[key]) for key in shown)
    if isinstance(shown, list) and isinstance(answered, list):
        return len(shown) == len(answered) and all(map(matches, shown, answered))
    if isinstance(shown, float) and isinstance(answered, float):
        return shown == pytest.approx(answered, abs=1e-6)
    return type(shown) is type(answered) and shown == answered


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_answers_what_the_page_shows(page, tmp_path):
    blocks = fences(page)
    variables: dict[str, str] = {}
    with EngineProcess(tmp_path / "data") as engine:
        for position, (language, text) in enumerate(blocks):
            if language == "python":
                exec(compile(text.replace(ADDRESS, engine.url), f"{page}, block {position}", "exec"), {})
            if language != "sh":
                continue
            response = run_curl(text, engine.url, variables)
            following, shown = blocks[position + 1] if position + 1 < len(blocks) else ("", "")
            if following == "json":
                assert matches(json.loads(shown), response.json()), f"{text}\n{response.text}"
            else:
                assert response.status_code == 200, f"{text}\n{response.text}"
            if "/collections/deleted" in text:
                variables["BACKUP_PATH"] = response.json()["data"][0]["path"]


async def test_every_route_has_a_section_of_the_page():
    page = PAGE.read_text()
    headings = {line for line in page.splitlines() if line.startswith("### ")}
    with_names = {line.replace("{c}", "{collection}") for line in headings}
    shown = {
        f"{method} {path}" for line in with_names for method, path in re.findall(r"([A-Z]+) (/[^\s,]*)", line)
    }
    from tests.unit.asgi_client import docs_service

    client, _ = docs_service()
    document = (await client.call("GET", "/openapi.json")).json
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert {f"{route.method} {route.template}" for route in POINT_ROUTES} <= routes
    assert shown == routes | {"GET /openapi.json"}
