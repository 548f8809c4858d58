"""The routes of aliases: list, show, set, remove. An alias is a second name for a collection."""

from __future__ import annotations

from fastapi import APIRouter, Response

from vecstow_engine.api.context import AliasName, DecodedRoute, InContext
from vecstow_engine.api.schemas import Alias, AliasBody, Envelope
from vecstow_engine.model.names import check_collection_name

router = APIRouter(prefix="/aliases", tags=["aliases"], route_class=DecodedRoute)


@router.get("", response_model=Envelope[list[Alias]], summary="List the aliases")
async def aliases(context: InContext) -> Response:
    """Those whose collection the key is for, sorted by name."""
    found = await context.workers.quick(context.engine.aliases.listed)
    return context.reply([alias.document() for alias in found if context.reaches(alias.collection)])


@router.get("/{alias}", response_model=Envelope[Alias], summary="Show an alias")
async def alias(context: InContext, name: AliasName) -> Response:
    """The collection that it leads to now."""
    found = await context.workers.quick(context.engine.aliases.get, name)
    context.authorise(found.collection, name)
    return context.reply(found.document())


@router.put("/{alias}", response_model=Envelope[Alias], summary="Let an alias lead to a collection")
async def set_alias(context: InContext, name: AliasName, body: AliasBody) -> Response:
    """Make the alias, or switch it: each later request gets the new collection, none gets neither.

    A limited key needs the new collection, and the one of before or the name of a new alias.
    """
    collection = check_collection_name(body.collection, "collection")
    context.authorise(collection)
    call = context.engine.aliases.set
    await context.workers.waiting(collection, call, name, collection, context.authorise)
    return context.reply({"alias": name, "collection": collection})


@router.delete("/{alias}", response_model=Envelope[Alias], summary="Remove an alias")
async def remove_alias(context: InContext, name: AliasName) -> Response:
    """The collection stays as it is. The answer has the collection that the alias led to."""
    call = context.engine.aliases.remove
    removed = await context.workers.waiting(name, call, name, context.authorise)
    return context.reply(removed.document())
