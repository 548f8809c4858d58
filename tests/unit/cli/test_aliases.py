"""`vecstow aliases`, and `apply`, `ls` and `show` with aliases, on a volume without an engine."""

import json

import pytest

from vecstow_engine.model.aliases import Alias
from vecstow_engine.storage.aliases import change_aliases, read_aliases
from vecstow_engine.storage.layout import Layout


def resource(name, *aliases):
    return json.dumps(
        {
            "apiVersion": "vecstow.dev/v1alpha1",
            "kind": "VectorCollection",
            "metadata": {"name": name},
            "spec": {"dimension": 4, "distanceMetric": "Cosine", "aliases": list(aliases)},
        }
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data directory that does not exist yet, in VECSTOW_DATA."""
    monkeypatch.delenv("VECSTOW_URL", raising=False)
    monkeypatch.setenv("VECSTOW_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def apply(vecstow, tmp_path):
    """Applies documents, and returns the outcomes."""

    def apply(*documents):
        (tmp_path / "c.yaml").write_text("\n---\n".join(documents))
        _, out, _ = vecstow("apply", "-f", tmp_path / "c.yaml", "--json")
        return [(each["outcome"], each["message"]) for each in json.loads(out)]

    return apply


def leads(data):
    return {alias.name: alias.collection for alias in read_aliases(Layout(data))}


def test_an_alias_is_set_listed_switched_and_removed(data, vecstow, apply):
    apply(resource("docs-v1"), resource("docs-v2"))
    assert vecstow("aliases", "ls")[1] == "no aliases\n"
    assert vecstow("aliases", "set", "docs", "docs-v1")[:2] == (0, "docs leads to docs-v1\n")
    assert vecstow("aliases", "set", "docs", "docs-v2")[0] == 0
    assert vecstow("aliases", "ls")[1].split() == ["alias", "collection", "docs", "docs-v2"]
    assert json.loads(vecstow("aliases", "rm", "docs", "--json")[1]) == {
        "alias": "docs",
        "collection": "docs-v2",
    }
    assert leads(data) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("set", "docs-v2", "docs-v1"), "is the name of a collection", id="a collection's name"),
        pytest.param(("set", "docs", "none"), "does not exist", id="no collection"),
        pytest.param(("set", "wal", "docs-v1"), "ALIAS 'wal' is reserved", id="reserved"),
        pytest.param(("set", "second", "docs"), "itself an alias", id="an alias of an alias"),
        pytest.param(("set", "managed", "docs-v2"), "belongs to the Kubernetes resource", id="a resource's"),
        pytest.param(("rm", "managed"), "belongs to the Kubernetes resource", id="remove a resource's"),
        pytest.param(("rm", "none"), "alias 'none' does not exist", id="remove none"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(data, vecstow, apply, arguments, says):
    apply(resource("docs-v1", "docs"), resource("docs-v2"))
    change_aliases(
        Layout(data), lambda table: table.with_alias(Alias("managed", "docs-v1", resource_uid="r-1"))
    )
    before = (data / "aliases.json").read_bytes()
    code, out, err = vecstow("aliases", *arguments)
    assert (code, out) == (1, "")
    assert says in err
    assert (data / "aliases.json").read_bytes() == before


def test_lists_and_descriptions_have_the_aliases(data, vecstow, apply):
    apply(resource("docs-v1", "docs", "main"))
    assert json.loads(vecstow("ls", "--json")[1])[0]["aliases"] == ["docs", "main"]
    assert "docs, main" in vecstow("ls")[1]
    assert json.loads(vecstow("show", "docs", "--json")[1])["name"] == "docs-v1"
    (data / "aliases.json").write_text("{")
    code, out, err = vecstow("show", "docs-v1", "--json")
    assert (code, json.loads(out)["aliases"]) == (0, [])
    assert "the aliases are unknown" in err


def test_an_alias_moves_to_the_file_that_declares_it_now(data, apply):
    assert apply(resource("docs-v1", "docs"))[0][0] == "created"
    assert apply(resource("docs-v1", "docs"))[0][0] == "unchanged"
    assert [outcome for outcome, _ in apply(resource("docs-v1"), resource("docs-v2", "docs"))] == [
        "unchanged",
        "created",
    ]
    assert leads(data) == {"docs": "docs-v2"}
    assert apply(resource("docs-v2", "docs", "main"))[0][0] == "configured"
    assert apply(resource("docs-v2"))[0][0] == "unchanged"
    assert leads(data) == {"docs": "docs-v2", "main": "docs-v2"}


def test_two_files_that_declare_an_alias_are_a_conflict(data, apply):
    [(first, _), (second, message)] = apply(resource("docs-v1", "docs"), resource("docs-v2", "docs"))
    assert (first, second) == ("created", "refused")
    assert "alias 'docs' is declared in" in message
    assert leads(data) == {"docs": "docs-v1"}


def test_a_collection_is_not_declared_under_an_alias(data, apply):
    apply(resource("docs-v1", "docs"))
    [(outcome, message)] = apply(resource("docs"))
    assert outcome == "refused"
    assert "'docs' is an alias" in message
    assert not (data / "docs").exists()
