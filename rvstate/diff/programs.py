"""Programs and environments, desired and observed; pure."""

from __future__ import annotations

from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change, same
from rvstate.model.resources import Environment, Tool


def tool(resource: Tool, observed: ObservedState) -> Change:
    """A program: found anywhere, or installed below our own directory."""
    where = observed.tools.get(resource.program)
    if where:
        return same(resource, where)
    after = f"{resource.directory}/bin/{resource.program}"
    return Change(resource, Action.CREATE, "it is not installed", (), "absent", after)


def environment(resource: Environment, observed: ObservedState) -> Change:
    """An environment: whole, built again, or taken out of use so that the next run builds it."""
    found = observed.environments.get(resource.path)
    if found is None or found.whole:
        return same(resource, "it is whole")
    if not found.runs:
        lack = "its Python is gone"
    elif not found.digest:
        lack = "its stamp is gone"
    else:
        lack = "files in it are gone or changed, as `rvstate verify` found"
    if found.recipe:
        reason = f"{lack}: it is built again aside, with what was added by hand"
        return Change(resource, Action.REPLACE, reason, (), "damaged", "whole")
    return Change(
        resource,
        Action.REMOVE,
        f"{lack}: the next `rvstate run` of its project builds it anew",
        (),
        "damaged",
        "absent",
    )
