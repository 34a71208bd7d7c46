"""Cache links, the migrations to them, and what those set aside; pure."""

from __future__ import annotations

from rvstate.diff.words import describe, destination, move_away
from rvstate.model.observed import (
    Absent,
    ObservedState,
    Original,
    Present,
    Space,
    Unreadable,
)
from rvstate.model.plan import Action, Change, refuse, same
from rvstate.model.resources import CacheLink, Kept
from rvstate.paths import RemotePath
from rvstate.shell import quote
from rvstate.size import human_bytes

# What a migration's original is called, behind the name it had (remote/caches.sh).
ORIGINAL = ".rvstate-original-"
# rsync needs room for its temporary file and directories grow: one part in fifty, and 16 MiB.
_SLACK = 16 << 20


def cache(resource: CacheLink, observed: ObservedState) -> Change:
    """A cache link: made, turned round, or put in the place of a directory that moves."""
    found = observed.entry(resource.path)
    after = f"link to {resource.target}"
    home = observed.entry(resource.path.parent)
    if isinstance(home, Present) and home.type == "l":
        if destination(resource.path.parent, home) == resource.target.parent:
            return same(resource, f"{resource.path.parent} as a whole leads there")
        return refuse(
            resource,
            f"{resource.path.parent} itself is a link to {home.target}",
            f"make {resource.path.parent} a directory again",
            "take the name out of [caches] names",
        )
    match found:
        case Absent():
            if _interrupted(resource, observed):
                return _resumed(resource)
            return Change(resource, Action.CREATE, "it is absent", (), "absent", after)
        case Unreadable(door):
            return refuse(resource, f"{door} may not be entered", f"chmod u+rwx {quote(door)}")
        case Present(type="l", target=target):
            leads = destination(resource.path, found)
            if leads == resource.target:
                # a link of the user's own making, with another text, is as good
                ours = target == resource.target
                if ours and _interrupted(resource, observed):
                    return _resumed(resource)
                return same(resource, "it leads there")
            if leads in resource.formers:
                reason = (
                    f"it leads to {target}, its former place; nothing there is touched (if a token "
                    "file is there, the group can read it: remove it and log in again)"
                )
                return Change(
                    resource, Action.UPDATE, reason, (), f"link to {target}", after, (target,)
                )
            return refuse(
                resource,
                f"it is a link to {target}, which rvstate did not make",
                f"remove the link: rm {quote(resource.path)}",
                _TAKE_OUT,
            )
        case Present(type="d", uid=uid):
            return _migration(resource, observed, uid)
        case _:
            return refuse(
                resource,
                f"{describe(found)} is in the way",
                move_away(resource.path),
                _TAKE_OUT,
            )


_TAKE_OUT = "take the name out of [caches] names"


def _interrupted(resource: CacheLink, observed: ObservedState) -> bool:
    prefix = f"{resource.path}{ORIGINAL}"
    return any(kept.moving and kept.path.startswith(prefix) for kept in observed.originals)


def _resumed(resource: CacheLink) -> Change:
    return Change(
        resource,
        Action.MIGRATE,
        "its move was interrupted and is finished now",
        (),
        "an interrupted move",
        f"link to {resource.target}, which holds everything; the original is kept",
    )


def kept(found: Original) -> Kept:
    """What an earlier migration set aside, as something that is to go."""
    return Kept(RemotePath(found.path), RemotePath(found.target), found.record)


def original(resource: Kept, observed: ObservedState) -> Change:
    """An original that is to go: its contents are verified once more before."""
    found = next((x for x in observed.originals if x.record == resource.record), None)
    if found is None:
        return same(resource, "it is gone")
    size = f"{found.entries} entries, {human_bytes(found.size)}"
    return Change(
        resource,
        Action.REMOVE,
        f"{size}, verified again against {found.target}",
        (),
        f"original with {size}",
        "absent",
    )


def _migration(resource: CacheLink, observed: ObservedState, uid: int) -> Change:
    tree = observed.trees.get(resource.path)
    stuck = resource.path if uid != observed.account.uid else tree.stuck if tree else ""
    if stuck:
        return refuse(
            resource,
            f"{stuck} in it belongs to another user or may not be read",
            f"if it is yours: chmod -R u+rwX {quote(resource.path)}",
            "have its owner move it away",
            _TAKE_OUT,
        )
    back = observed.entry(resource.target)
    if isinstance(back, Present) and back.type == "l":
        where = RemotePath(destination(resource.target, back))
        if where.is_below(resource.path):
            return refuse(
                resource,
                f"{resource.target} is a link back to it",
                f"remove that link: rm {quote(resource.target)}",
                _TAKE_OUT,
            )
    if resource.target.is_below(resource.path):
        return refuse(
            resource,
            f"its new place {resource.target} lies in it",
            "choose another [paths] scratch",
            _TAKE_OUT,
        )
    if "rsync" not in observed.tools:
        return refuse(
            resource,
            "it is a real directory, and there is no rsync to move it with",
            "install rsync there",
            f"move it by hand to {resource.target}",
        )
    size = f"{tree.entries} entries, {human_bytes(tree.size)}" if tree else "its contents"
    return Change(
        resource,
        Action.MIGRATE,
        f"it is a real directory ({size})",
        (),
        f"directory with {size}",
        f"link to {resource.target}, which holds them; the original is kept",
    )


def within_space(changes: list[Change], observed: ObservedState) -> list[Change]:
    """Migrations that do not fit any more are refused, in bytes or in inodes."""
    left: dict[str, tuple[int, int | None]] = {}
    checked = []
    for change in changes:
        resource = change.resource
        if change.action is Action.MIGRATE and isinstance(resource, CacheLink):
            space = observed.spaces.get(resource.target.parent)
            tree = observed.trees.get(resource.path)
            if space and tree:
                free, inodes = left.get(space.mount, (space.free, space.inodes))
                there = observed.copied.get(resource.target, 0)
                need = max(tree.size - there, 0) + tree.size // 50 + _SLACK
                if need > free or (inodes is not None and tree.entries + 16 > inodes):
                    change = _no_room(resource, need, tree.entries, space, free, inodes)
                else:
                    rest = None if inodes is None else inodes - tree.entries
                    left[space.mount] = (free - need, rest)
        checked.append(change)
    return checked


def _no_room(
    resource: CacheLink, need: int, entries: int, space: Space, free: int, inodes: int | None
) -> Change:
    if need > free:
        lack = f"it needs {human_bytes(need)} on {space.mount}, where {human_bytes(free)} are free"
    else:
        lack = f"it needs {entries} inodes on {space.mount}, where {inodes} are free"
    return refuse(
        resource,
        lack,
        f"free space on {space.mount}",
        f"delete what is not needed in {resource.path}",
        _TAKE_OUT,
    )
