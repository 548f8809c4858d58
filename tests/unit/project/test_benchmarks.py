"""The benchmarks run, and their arithmetic is right; how fast anything is, no test says."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.harness.bodies import insert_requests, search_requests
from benchmarks.harness.dataset import Mixture, with_equal
from benchmarks.harness.figures import Figure, Target
from benchmarks.harness.markdown import render
from benchmarks.harness.text_indexes import CANDIDATES
from benchmarks.harness.truth import Truth
from benchmarks.harness.wire import JSON, MSGPACK, Answer, read_requests, write_requests

QUICK = ["--runs", "1", "--rows", "1200", "--creates", "3", "--search-seconds", "1"]


def test_benchmarks_write_figures_of_a_real_server(tmp_path: Path) -> None:
    """A small run ends without a failure, and every figure is a positive number."""
    result = tmp_path / "figures.json"
    assert main(["ingest", "create", *QUICK, "--folder", str(tmp_path), "--json", str(result)]) == 0
    found = json.loads(result.read_text())
    assert {figure["benchmark"] for figure in found["figures"]} == {"ingest", "create"}
    assert all(figure["median"] > 0 for figure in found["figures"] if "client" not in figure["figure"])
    assert found["machine"]["cores"] > 0
    assert found["settings"]["rows"] == 1200
    page = render([found])
    assert page.count("\n### ") == 2
    assert page.count("\n| ") == len(found["figures"]) + 2


def test_an_unknown_benchmark_is_refused() -> None:
    """A typing error measures nothing."""
    with pytest.raises(SystemExit, match="no benchmark serach"):
        main(["serach"])


@pytest.mark.parametrize(
    ("target", "values", "beside", "met"),
    [
        pytest.param(None, [5.0], (), None, id="no target"),
        pytest.param(Target(at_least=5), [5.0], (), True, id="reached exactly"),
        pytest.param(Target(at_least=5), [4.0, 6.0, 1.0], (), False, id="the median counts"),
        pytest.param(Target(at_most=5), [6.0], (), False, id="too much"),
        pytest.param(Target(at_least=0.5, of_ratio=True), [5.0, 9.0], [10.0, 9.0], True, id="ratio by run"),
        pytest.param(Target(at_most=1.4, of_ratio=True), [15.0], [10.0], False, id="ratio too large"),
    ],
)
def test_target_is_met_by_the_median(target: Target, values: list, beside: list, met: bool) -> None:
    """The median of the value, or of its ratio to the baseline measured with it, decides."""
    assert Figure("b", "f", "s", values, beside, target=target).met is met


@pytest.mark.parametrize("metric", ["Cosine", "Euclidean", "DotProduct", "Manhattan"])
def test_recall_counts_what_is_near(metric: str) -> None:
    """The nearest rows give 1, the farthest 0, and a row that equals the k-th counts as well as it does."""
    mixture = Mixture(8)
    rows = mixture.rows(200)
    rows[7] = rows[3]
    queries = rows[[3, 50]]
    truth = Truth(rows, queries, 1, metric)
    assert truth.recall([[3], [50]]) == 1
    assert truth.recall([[7], [50]]) == 1
    far = [int(np.argmax(np.abs(rows - query).sum(axis=1))) for query in queries]
    assert truth.recall([[number] for number in far]) == 0


def test_rows_are_the_same_however_they_are_asked_for() -> None:
    """A part across two blocks equals that part of the whole."""
    mixture = Mixture(4)
    assert np.array_equal(mixture.rows(20, 99_990), Mixture(4).rows(100_020)[99_990:100_010])


def test_share_of_the_rows_is_equal_or_nearly_equal() -> None:
    """So many rows are the first one, or near it; the others stay, and the input does."""
    rows = Mixture(8).rows(1000)
    before = rows.copy()
    equal = (with_equal(rows, 0.3) == rows[0]).all(axis=1)
    assert 300 <= equal.sum() <= 301
    assert np.array_equal(with_equal(rows, 0.3)[~equal], rows[~equal])
    near = np.linalg.norm(with_equal(rows, 0.3, 1e-3) - rows[0], axis=1)[equal]
    assert 0 < np.median(near) < 0.01
    assert np.array_equal(rows, before)


@pytest.mark.parametrize("media", [JSON, MSGPACK])
def test_requests_survive_their_file(media: str, tmp_path: Path) -> None:
    """A load generator sends what was built."""
    rows = Mixture(4).rows(2500)
    requests = [*insert_requests("c", rows, media), *search_requests("c", rows[:3], media, 5)]
    assert len(requests) == 3 + 3
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests


def test_answer_is_complete_with_its_last_byte() -> None:
    """An answer that arrives byte by byte is put together."""
    answer = Answer()
    raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"
    assert [answer.take(raw[i : i + 1]) for i in range(len(raw))] == [False] * (len(raw) - 1) + [True]
    assert (answer.status, answer.body) == (404, b"abc")


@pytest.mark.parametrize("name", CANDIDATES)
def test_text_indexes_that_are_compared_find_the_same(name: str, tmp_path: Path) -> None:
    """Each finds what was written, what the mask allows, and nothing that was removed."""
    index = CANDIDATES[name](tmp_path)
    index.put(np.arange(3), ["alpha beta", "beta gamma", "gamma alpha"])
    assert sorted(index.search(["beta"], 10, None)) == [0, 1]
    assert index.search(["alpha", "beta"], 1, None) == [0]
    assert sorted(index.search(["alpha", "beta"], 10, np.array([False, True, True]))) == [1, 2]
    index.remove(np.arange(1), ["alpha beta"])
    index.put(np.array([7]), ["beta"])
    assert sorted(index.search(["beta"], 10, None)) == [1, 7]
    index.close()
    assert sorted(CANDIDATES[name](tmp_path).search(["beta"], 10, None)) == [1, 7]
