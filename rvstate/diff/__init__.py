"""Desired and observed state, compared: one small function for each kind; pure."""

from __future__ import annotations

from rvstate.diff.caches import cache, kept, original, within_space
from rvstate.diff.directories import directory
from rvstate.diff.files import config, env, scripts, shell
from rvstate.diff.programs import environment, tool
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change, Plan, refuse, same
from rvstate.model.resources import (
    CacheLink,
    ConfigFile,
    DesiredState,
    Directory,
    EnvFile,
    Environment,
    Environments,
    Kept,
    Resource,
    Schedule,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.paths import RemotePath
from rvstate.size import human_bytes

# What a small file takes at most, in bytes.
_BLOCK = 4096
_QUIET = (Action.NO_OP, Action.REFUSE)


def plan(desired: DesiredState, observed: ObservedState, *, remove_originals: bool = False) -> Plan:
    """What must change, and what must not be touched, in the order of `desired`.

    Args:
        desired: What should be so.
        observed: What the look found.
        remove_originals: Whether what earlier migrations set aside should go.
    """
    resources: dict[Resource, None] = {}
    for resource in desired.resources:
        if isinstance(resource, Schedule):
            # nothing wanted and nothing there is nothing to count
            if resource.how or resource.refusal or "record" in observed.schedules[resource.here]:
                resources[resource] = None
        elif isinstance(resource, Environments):
            # a layer is made from what its branch uses, so that is mended first
            links = sorted(observed.environments, key=lambda link: ("/.generations/" in link, link))
            resources.update(dict.fromkeys(Environment(RemotePath(link)) for link in links))
        else:
            resources[resource] = None
    if remove_originals and desired.of("cache"):
        resources.update(dict.fromkeys(kept(found) for found in observed.originals))
    changes = [_change(resource, observed) for resource in resources]
    return Plan(tuple(within_space(changes, observed)))


def for_full_home(found: Plan, observed: ObservedState, *, remove_originals: bool = False) -> Plan:
    """A plan that refuses what a full home has no room for, unless the plan itself makes room.

    Caches come first among the changes, so with originals removed everything behind them fits.

    Args:
        found: The whole plan, all kinds.
        observed: What the look found.
        remove_originals: As for `plan`.
    """
    moving = any(c.action in (Action.MIGRATE, Action.REMOVE) for c in found.changes)
    if moving and remove_originals:
        return found
    return Plan(tuple(_fits_home(change, observed) for change in found.all))


def _fits_home(change: Change, observed: ObservedState) -> Change:
    resource = change.resource
    if change.action in _QUIET or not isinstance(resource, CacheLink | ShellBlock):
        return change
    space = observed.spaces.get(resource.path.parent)
    if space is None or not resource.path.is_below(observed.account.home):
        return change
    # one entry, and for a text its blocks; a link's text lies in its inode
    need = len(change.after) + _BLOCK if isinstance(resource, ShellBlock) else 0
    if space.free >= need and space.inodes != 0:
        return change
    if space.inodes == 0:
        lack = f"{space.mount} has no inode left for a new file"
    else:
        lack = f"{space.mount} has {human_bytes(space.free)} free"
    ways = ["delete something there, then run converge again"]
    size = sum(kept.size for kept in observed.originals)
    trees = sum(tree.size for tree in observed.trees.values())
    if size or trees:
        ways.insert(
            0,
            f"rvstate converge --remove-originals, which frees {human_bytes(size + trees)} "
            "by removing what was moved to scratch and verified there",
        )
    return refuse(resource, lack, *ways)


def _change(resource: Resource, observed: ObservedState) -> Change:
    match resource:
        case Directory():
            return directory(resource, observed)
        case CacheLink():
            return cache(resource, observed)
        case ShellBlock():
            return shell(resource, observed)
        case EnvFile():
            return env(resource, observed)
        case ScriptSet():
            return scripts(resource, observed)
        case Tool():
            return tool(resource, observed)
        case ConfigFile():
            return config(resource, observed)
        case Kept():
            return original(resource, observed)
        case Environment():
            return environment(resource, observed)
        case Schedule(how="first-command") if (
            observed.schedules[1].get("record", "").startswith("first-command ")
        ):
            return same(resource, "in the background of the first command of a day")
        case Schedule():
            # few accounts have one of these
            from rvstate import schedule

            return schedule.change(resource, observed)
        case Environments():
            return same(resource, "each is looked at by itself")
