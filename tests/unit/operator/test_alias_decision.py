"""Which resource has an alias, and where the alias leads while resources change one after the other."""

import dataclasses

import pytest

from tests.unit.declared import claim, manifest_of
from vecstow_engine.model.aliases import ALIASES_MAX, Alias, AliasTable
from vecstow_operator.sidecar.alias_decision import decide_aliases, refused_aliases
from vecstow_operator.sidecar.decision import Folder
from vecstow_operator.vocabulary import Reason

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def a(**fields):
    """The older resource, of the collection docs-1."""
    return claim("docs-1", "r-a", created_at=OLD, **fields)


def b(**fields):
    """The younger resource, of the collection docs-2."""
    return claim("docs-2", "r-b", created_at=NEW, **fields)


def table_of(*aliases):
    return AliasTable({alias.name: alias for alias in aliases})


def owned(*resources):
    """Folders with the manifests of these resources."""
    return {resource.collection_name: Folder(manifest_of(resource)) for resource in resources}


def decide(table, *resources, folders=None, expired=(), is_complete=True):
    claims = {resource.collection_name: (resource,) for resource in resources}
    folders = owned(a(), b()) if folders is None else folders
    return decide_aliases(table, claims, folders, expired, is_complete=is_complete)


OF_A = Alias("docs", "docs-1", "r-a")
OF_B = Alias("docs", "docs-2", "r-b")
OF_REST = Alias("docs", "docs-1")


@pytest.mark.parametrize(
    ("alias", "resources", "expected"),
    [
        pytest.param(None, [a(aliases=["docs"]), b()], OF_A, id="declared"),
        pytest.param(OF_A, [a(aliases=["docs"]), b()], OF_A, id="declared before"),
        pytest.param(None, [a(aliases=["docs"]), b(aliases=["docs"])], OF_A, id="both: the older"),
        pytest.param(OF_B, [a(aliases=["docs"]), b(aliases=["docs"])], OF_B, id="both: who has it"),
        pytest.param(OF_A, [a(), b(aliases=["docs"])], OF_B, id="moved"),
        pytest.param(OF_A, [b(aliases=["docs"])], OF_B, id="its resource is gone, another claims it"),
        pytest.param(OF_REST, [a(), b(aliases=["docs"])], OF_B, id="REST's is taken over"),
        pytest.param(OF_REST, [a(), b()], OF_REST, id="REST's stays"),
        pytest.param(OF_A, [a(), b()], OF_A, id="taken out: it stays for a while"),
        pytest.param(OF_A, [b()], OF_REST, id="its resource is gone, the collection is retained"),
        pytest.param(OF_A, [a(paused=True), b(aliases=["docs"])], OF_A, id="paused keeps it"),
        pytest.param(None, [a(paused=True, aliases=["docs"])], None, id="paused gets none"),
        pytest.param(OF_A, [a(dimension=0), b(aliases=["docs"])], OF_A, id="invalid keeps it"),
        pytest.param(
            OF_A, [a(is_deleting=True, aliases=["docs"]), b(aliases=["docs"])], OF_B, id="deleted: moved"
        ),
        pytest.param(OF_A, [a(is_deleting=True), b()], OF_A, id="deleted: kept until then"),
    ],
)
def test_an_alias_leads_where_the_resource_that_has_it_says(alias, resources, expected):
    decision = decide(table_of(*filter(None, [alias])), *resources)
    assert decision.table == table_of(*filter(None, [expected]))


@pytest.mark.parametrize("first", ["added", "removed"])
def test_a_move_in_any_order_leads_to_one_of_the_two_at_each_moment(first):
    """Removed from A and added to B in one `kubectl apply`, whichever of the two the sidecar sees first."""
    middle = [a(aliases=["docs"]), b(aliases=["docs"])] if first == "added" else [a(), b()]
    table = table_of()
    seen = []
    for resources in ([a(aliases=["docs"]), b()], middle, [a(), b(aliases=["docs"])]):
        table = decide(table, *resources).table
        seen.append(table.by_name["docs"].collection)
    assert seen == ["docs-1", "docs-1", "docs-2"]


def test_a_loser_is_told_who_has_the_alias():
    [report] = decide(table_of(OF_A), a(aliases=["docs"]), b(aliases=["docs"])).reports
    assert (report.resource_uid, report.reason) == ("r-b", Reason.ALIAS_REFUSED)
    assert "alias 'docs' belongs to the resource 'docs-1'" in report.message


def test_an_alias_that_was_taken_out_is_removed_when_its_time_is_over():
    waiting = decide(table_of(OF_A), a(), b())
    assert waiting.unclaimed == {"docs"}
    assert decide(table_of(OF_A), a(), b(), expired={"docs"}).table == table_of()


def test_an_alias_whose_collection_was_dropped_with_its_resource_is_removed_in_time():
    dropped = dataclasses.replace(manifest_of(a()), dropped_at=NEW)
    for folders in ({}, {"docs-1": Folder(dropped)}):
        waiting = decide(table_of(OF_A), folders=folders)
        assert (waiting.table, waiting.unclaimed) == (table_of(OF_A), {"docs"})
        assert decide(table_of(OF_A), folders=folders, expired={"docs"}).table == table_of()


def test_a_missing_resource_proves_nothing_while_the_api_server_is_away():
    decision = decide(table_of(OF_A), b(), expired={"docs"}, is_complete=False)
    assert (decision.table, decision.unclaimed) == (table_of(OF_A), frozenset())


@pytest.mark.parametrize(
    "folders",
    [
        pytest.param({}, id="no folder"),
        pytest.param({"docs-1": Folder()}, id="no manifest"),
        pytest.param({"docs-1": Folder(manifest_of(claim("docs-1", "r-x")))}, id="another resource's"),
        pytest.param(
            {"docs-1": Folder(dataclasses.replace(manifest_of(a()), dropped_at=NEW))}, id="being dropped"
        ),
        pytest.param(
            {"docs-1": Folder(dataclasses.replace(manifest_of(a()), resource_uid=None))},
            id="REST's",
        ),
    ],
)
def test_an_alias_waits_until_the_collection_belongs_to_its_resource(folders):
    decision = decide(table_of(OF_REST), a(aliases=["docs"]), folders=folders)
    assert decision.table == table_of(OF_REST)


def test_the_name_of_a_collection_is_no_alias_and_the_resource_is_told():
    folders = owned(a(), claim("docs", "r-d"))
    for table in (table_of(), table_of(OF_REST)):
        decision = decide(table, a(aliases=["docs"]), folders=folders)
        assert decision.table == table
        [report] = decision.reports
        assert "a collection has the name" in report.message


def test_one_alias_too_many_is_refused_and_the_others_are_set():
    full = table_of(*(Alias(f"x{number}", "docs-1") for number in range(ALIASES_MAX - 1)))
    decision = decide(full, a(aliases=["first", "second"]))
    assert "first" in decision.table.by_name
    [report] = decision.reports
    assert str(ALIASES_MAX) in report.message


def test_what_later_releases_keep_of_an_alias_stays():
    known = dataclasses.replace(OF_REST, updated_at=OLD, unknown={"later": 1})
    [alias] = decide(table_of(known), b(aliases=["docs"])).table
    assert (alias.collection, alias.resource_uid, alias.unknown) == ("docs-2", "r-b", {"later": 1})


def test_a_problem_is_reported_for_each_resource_that_declares_aliases():
    claims = {"docs-1": (a(aliases=["docs"]),), "docs-2": (b(),)}
    [report] = refused_aliases(claims, "it is damaged", "mend it")
    assert (report.resource_uid, report.text) == ("r-a", "it is damaged; mend it")
