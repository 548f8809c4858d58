"""The sample data holds what its README says."""

import gzip
import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scripts.make_typed_questions import typed
from vecstow_engine.cli.searching import search_command

SAMPLE = Path(__file__).parents[3] / "examples" / "packages"
SIZE_BYTES_MAX = 10_000_000


@pytest.fixture(scope="module")
def payloads() -> list[dict[str, Any]]:
    with gzip.open(SAMPLE / "packages.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def questions() -> list[dict[str, str]]:
    return json.loads((SAMPLE / "questions.json").read_text(encoding="utf-8"))


def test_sample_data_stays_below_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) <= SIZE_BYTES_MAX


@pytest.mark.parametrize(("name", "rows"), [("packages", 10_000), ("questions", 200), ("typed", 200)])
def test_embeddings_are_float16_of_unit_length(name: str, rows: int) -> None:
    """The shapes are those that the collection declares."""
    embeddings = np.load(SAMPLE / f"{name}.f16.npy")
    assert embeddings.shape == (rows, 384)
    assert embeddings.dtype == np.float16
    norms = np.linalg.norm(embeddings.astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=2e-3)


def test_each_row_has_its_own_id_and_a_summary(payloads: list[dict[str, Any]]) -> None:
    assert len(payloads) == 10_000
    assert len({payload["id"] for payload in payloads}) == 10_000
    assert all(payload["summary"] for payload in payloads)


def test_the_point_that_the_help_of_search_asks_for_is_in_the_sample(payloads: list[dict[str, Any]]) -> None:
    found = re.search(r"vecstow search packages --id (\S+)", inspect.getdoc(search_command) or "")
    assert found is not None
    assert found[1] in {payload["id"] for payload in payloads}


def test_each_question_is_in_plain_words_about_a_package_of_the_sample(
    payloads: list[dict[str, Any]], questions: list[dict[str, str]]
) -> None:
    summaries = {payload["id"]: payload["summary"] for payload in payloads}
    assert len({question["text"] for question in questions}) == 200
    for question in questions:
        assert summaries[question["package"]] == question["text"]
        assert len(question["text"].split()) >= 3


def test_most_questions_find_their_package_among_the_ten_nearest(
    payloads: list[dict[str, Any]], questions: list[dict[str, str]]
) -> None:
    """Rows, payloads and questions are in the order that belongs together."""
    rows = np.load(SAMPLE / "packages.f16.npy").astype(np.float32)
    asked = np.load(SAMPLE / "questions.f16.npy").astype(np.float32)
    nearest = np.argsort(-(asked @ rows.T), axis=1)[:, :10]
    found = sum(
        question["package"] in {payloads[row]["id"] for row in answer}
        for question, answer in zip(questions, nearest, strict=True)
    )
    assert found >= 180


def test_typed_questions_are_those_of_the_script_and_near_the_written_ones(
    questions: list[dict[str, str]],
) -> None:
    texts = json.loads((SAMPLE / "typed.json").read_text(encoding="utf-8"))
    assert texts == typed([question["text"] for question in questions])
    written, as_typed = (
        np.load(SAMPLE / f"{name}.f16.npy").astype(np.float32) for name in ("questions", "typed")
    )
    nearest = np.argmax(as_typed @ written.T, axis=1)
    assert np.mean(nearest == np.arange(200)) > 0.9


def test_collection_declares_the_shape_of_the_data() -> None:
    declared = yaml.safe_load((SAMPLE / "collection.yaml").read_text(encoding="utf-8"))
    assert declared["apiVersion"] == "vecstow.dev/v1alpha1"
    assert declared["kind"] == "VectorCollection"
    assert declared["spec"]["dimension"] == 384
    assert declared["spec"]["distanceMetric"] == "Cosine"
