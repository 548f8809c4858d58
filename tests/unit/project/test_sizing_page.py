"""docs/sizing.md says what the formula says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vecstow_engine.index.graph import APART_BYTES_MAX, graph_bytes
from vecstow_engine.index.places import row_bytes
from vecstow_engine.service.memory_plan import LIMIT_BYTES_MIN, MIB, parse_size, plan

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/sizing.md").read_text()
TABLES_BYTES = 17


def rows(head: str) -> list[list[str]]:
    """The cells of the table under this head."""
    table = PAGE[PAGE.index(head) :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


@pytest.mark.parametrize("row", rows("| limit | requests |"), ids=lambda row: row[0])
def test_the_shares_are_those_of_the_plan(row: list[str]) -> None:
    made = plan(parse_size("limit", row[0]))
    parts = (made.request_bytes, made.change_bytes, made.work_bytes, made.data_bytes)
    assert [number(cell) for cell in row[1:]] == [part // MIB for part in parts]


@pytest.mark.parametrize("row", rows("| limit | 128 dimensions |"), ids=lambda row: row[0])
def test_what_fits_is_what_the_formula_says(row: list[str]) -> None:
    room = plan(parse_size("limit", row[0])).data_bytes
    for dimension, cell in zip((128, 384, 768, 1536), row[1:], strict=True):
        vectors = number(cell)
        for count, fits in ((vectors, True), (int(1.25 * vectors), False)):
            taken = graph_bytes(count, dimension, 16) + APART_BYTES_MAX + TABLES_BYTES * count
            assert (taken <= room) == fits, (dimension, count)


@pytest.mark.parametrize("dimension", [4, 128, 1536])
@pytest.mark.parametrize("connections", [8, 16, 64])
def test_the_formula_of_a_graph_is_that_of_the_page(dimension: int, connections: int) -> None:
    match = re.search(r"n \* \(4 d \+ 8 M \+ (\d+) \+ (\d+)\) bytes \+ ([\d.]+) MiB", PAGE)
    assert match is not None
    assert int(match[2]) == TABLES_BYTES
    said = 10**6 * (4 * dimension + 8 * connections + int(match[1])) + float(match[3]) * MIB
    assert graph_bytes(10**6, dimension, connections) == pytest.approx(said, rel=0.02)


def test_a_small_collection_takes_what_the_page_says() -> None:
    match = re.search(r"it takes `n \* \(4 d \+ (\d+)\)`", PAGE)
    assert match is not None
    assert row_bytes(128) + TABLES_BYTES == 4 * 128 + int(match[1])


def test_the_limit_is_found_from_what_the_collections_take() -> None:
    taken = graph_bytes(200_000, 384, 16) + APART_BYTES_MAX + TABLES_BYTES * 200_000
    assert "together 358 MiB" in PAGE
    assert taken / MIB == pytest.approx(358, abs=1)
    assert "779 MiB" in PAGE
    assert plan(779 * MIB).data_bytes == pytest.approx(taken, rel=0.01)
    assert plan(9 * 1024 * MIB).data_bytes == pytest.approx((9 - 2.6) * 1024 * MIB, rel=0.01)


def test_the_minimum_is_that_of_the_code() -> None:
    assert f"below {LIMIT_BYTES_MIN // MIB} MiB" in PAGE


def test_the_chart_comes_with_the_limit_of_the_page() -> None:
    values = yaml.safe_load((ROOT / "charts/vecstow/values.yaml").read_text())
    resources = values["engine"]["resources"]
    assert resources["limits"]["memory"] == "2Gi"
    assert parse_size("memory", resources["requests"]["memory"]) >= LIMIT_BYTES_MIN
    assert "is 2 GiB by default: 1,405,000 vectors of 128 dimensions or 339,000 of 768" in PAGE
    assert rows("| limit | 128 dimensions |")[3][:2] == ["2 GiB", "1,405,000"]


@pytest.mark.parametrize("row", rows("| vectors | type |"), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_examples_are_what_the_formulas_say(row: list[str]) -> None:
    count, dimension = (number(part) for part in row[0].split(" of "))
    value_bytes = {"Float32": 4, "Float16": 2, "Int8": 1}[row[1]]
    memory = graph_bytes(count, dimension, 16) + TABLES_BYTES * count
    index = count * (4 * dimension + 8 * 16 + 17)
    disk = count * (value_bytes * dimension + 115) + 2 * index
    for said, bytes_ in ((row[2], memory), (row[3], disk)):
        value, unit = said.split(" ")
        assert bytes_ / {"MB": 1e6, "GB": 1e9}[unit] == pytest.approx(float(value), rel=0.05), said
