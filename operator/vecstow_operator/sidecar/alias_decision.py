"""The aliases of a volume as the resources declare them, and reports on those that are refused: pure.

An alias belongs to the resource that claimed it first, and moves when that resource claims it no more. Until
another resource claims it, an alias that was taken out of a resource stays for a while, so that a move from
one resource to another has no gap, whichever of the two is applied first.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from vecstow_engine.model.aliases import Alias, AliasTable
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.manifest import Manifest
from vecstow_operator.observed import InvalidResource, Observed, Report, report_on
from vecstow_operator.sidecar.decision import Claims, Folder
from vecstow_operator.vocabulary import Reason


@dataclass(frozen=True, slots=True)
class AliasDecision:
    """The aliases that the volume shall have."""

    table: AliasTable
    reports: tuple[Report, ...] = ()
    unclaimed: frozenset[str] = frozenset()
    """Aliases that no resource claims any more, and that are removed after a while."""


def decide_aliases(
    table: AliasTable,
    claims: Claims,
    folders: Mapping[str, Folder],
    expired: Container[str],
    *,
    is_complete: bool,
) -> AliasDecision:
    """Return the decision about all aliases of a volume.

    `expired`: the aliases that have been unclaimed for long enough. `is_complete`: whether `claims` are those
    of the present; otherwise a missing resource proves nothing.
    """
    resources = {claim.uid: claim for rivals in claims.values() for claim in rivals}
    claimants = _claimants(resources.values(), folders)
    reports: list[Report] = []
    unclaimed: set[str] = set()
    managed = {alias.name for alias in table if alias.resource_uid is not None}
    for name in sorted(claimants.keys() | managed):
        alias = table.get(name)
        keeper = resources.get(alias.resource_uid or "") if alias is not None else None
        if claimants[name]:
            table, refusals = _claimed(table, name, claimants[name], keeper, folders)
            reports += refusals
        elif alias is not None and (keeper is not None or is_complete):
            if _is_kept(name, keeper):
                continue
            if keeper is None and _manifest_in(folders.get(alias.collection)) is not None:
                table = table.with_alias(dataclasses.replace(alias, resource_uid=None))
            elif name in expired:
                table = table.without(name)
            else:
                unclaimed.add(name)
    return AliasDecision(table, tuple(reports), frozenset(unclaimed))


def refused_aliases(claims: Claims, problem: str, hint: str | None = None) -> list[Report]:
    """Return a report of one problem for each resource that declares aliases."""
    declaring = (claim for rivals in claims.values() for claim in rivals if claim.aliases)
    return [report_on(claim, Reason.ALIAS_REFUSED, problem, hint) for claim in declaring]


def _claimants(
    resources: Iterable[Observed], folders: Mapping[str, Folder]
) -> defaultdict[str, list[Observed]]:
    """Return the resources that may have each alias, the oldest first: those whose collection is theirs."""
    found: defaultdict[str, list[Observed]] = defaultdict(list)
    for resource in sorted(resources, key=lambda resource: resource.age):
        manifest = _manifest_in(folders.get(resource.collection_name))
        is_own = manifest is not None and manifest.resource_uid == resource.uid
        if is_own and not resource.is_deleting and not resource.is_paused:
            for name in resource.aliases:
                found[name].append(resource)
    return found


def _manifest_in(folder: Folder | None) -> Manifest | None:
    """Return the manifest of a collection; None without one, and for a collection that is dropped."""
    manifest = folder.manifest if folder is not None else None
    return manifest if manifest is not None and manifest.dropped_at is None else None


def _claimed(
    table: AliasTable,
    name: str,
    claimants: list[Observed],
    keeper: Observed | None,
    folders: Mapping[str, Folder],
) -> tuple[AliasTable, list[Report]]:
    """Return the table with the alias as its owner declares it, and reports on those that do not get it."""
    if name in folders:
        taken = f"no alias can be {name!r}: a collection has the name"
        hint = "take it out of spec.aliases, or drop that collection"
        return table, [report_on(claim, Reason.ALIAS_REFUSED, taken, hint) for claim in claimants]
    owner = keeper if keeper in claimants or _is_frozen(keeper) else claimants[0]
    assert owner is not None
    refused = f"alias {name!r} belongs to the resource {owner.name!r}"
    hint = "take it out of spec.aliases of one of the two"
    losers = (claim for claim in claimants if claim is not owner)
    reports = [report_on(claim, Reason.ALIAS_REFUSED, refused, hint) for claim in losers]
    if owner in claimants:
        alias = table.get(name) or Alias(name, owner.collection_name)
        alias = dataclasses.replace(alias, collection=owner.collection_name, resource_uid=owner.uid)
        try:
            table = table.with_alias(alias)
        except InvalidInput as error:
            reports.append(report_on(owner, Reason.ALIAS_REFUSED, error.message, error.hint))
    return table, reports


def _is_frozen(resource: Observed | None) -> bool:
    """Whether the resource keeps its aliases, because nothing of it is reconciled now."""
    if resource is None or resource.is_deleting:
        return False
    return resource.is_paused or isinstance(resource.declared, InvalidResource)


def _is_kept(name: str, keeper: Observed | None) -> bool:
    """Whether the alias stays as it is: the resource still claims it, or its claims do not count now."""
    return keeper is not None and (keeper.is_deleting or _is_frozen(keeper) or name in keeper.aliases)
