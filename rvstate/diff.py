"""Desired and observed state, compared: one small function for each kind; pure."""

from __future__ import annotations

import posixpath

from rvstate import rcblock
from rvstate.model.observed import (
    Absent,
    Entry,
    ObservedState,
    Original,
    Present,
    Space,
    Unreadable,
)
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
from rvstate.shell import quote

# What a migration's original is called, behind the name it had (remote/caches.sh).
ORIGINAL = ".rvstate-original-"
# rsync needs room for its temporary file and directories grow: one part in fifty, and 16 MiB.
_SLACK = 16 << 20
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
        resources.update(dict.fromkeys(_kept(found) for found in observed.originals))
    changes = [_change(resource, observed) for resource in resources]
    return Plan(tuple(_within_space(changes, observed)))


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


def describe(entry: Entry) -> str:
    """What an entry is, in words."""
    match entry:
        case Absent():
            return "absent"
        case Unreadable(door):
            return f"behind {door}, which may not be entered"
        case Present(type="l", target=target):
            return f"a link to {target}"
        case Present(type="d", mode=mode):
            return f"a directory, mode {mode:04o}"
        case Present(type="f", mode=mode):
            return f"a file, mode {mode:04o}"
        case _:
            return "a special file"


def directory(resource: Directory, observed: ObservedState) -> Change:
    """A directory: made, or given its mode, never taken from somebody else."""
    found = observed.entry(resource.path)
    wanted = "a directory" + (f", mode {resource.mode:04o}" if resource.mode is not None else "")
    match found:
        case Absent():
            if resource.create:
                return Change(resource, Action.CREATE, "it is absent", (), "absent", wanted)
            return refuse(
                resource,
                "it does not exist, and a site makes it, not rvstate",
                "check [paths] in ~/.rv/config.toml",
                "ask the site's help desk",
            )
        case Unreadable(door):
            return refuse(resource, f"{door} may not be entered", f"chmod u+rwx {quote(door)}")
        case Present(type="d", uid=uid, mode=mode):
            if resource.owned and uid != observed.account.uid:
                return refuse(
                    resource,
                    f"it belongs to another user (uid {uid})",
                    "have its owner move it away",
                    "choose another [paths] scratch",
                )
            if resource.mode is None or mode == resource.mode:
                return same(resource, "it is there")
            return Change(
                resource,
                Action.UPDATE,
                f"its mode is {mode:04o}",
                (),
                f"mode {mode:04o}",
                f"mode {resource.mode:04o}",
            )
        case Present(type="l", leads_to="d") if resource.links:
            return same(resource, "it is a link to a directory")
        case Present(type="l", leads_to="N") if (
            resource.leads_to is not None and destination(resource.path, found) == resource.leads_to
        ):
            return same(resource, "it is a link to a directory that is made as well")
        case _:
            return refuse(resource, f"{describe(found)} is in the way", _move_away(resource.path))


def destination(path: str, link: Present) -> str:
    """Where a link's own text leads: absolute, and without `.`, `..` and doubled slashes."""
    absolute = posixpath.normpath(posixpath.join(posixpath.dirname(path), link.target))
    return "/" + absolute.lstrip("/")


def _move_away(path: str) -> str:
    return f"move it away: mv {quote(path)} {quote(path + '.mine')}"


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
                _move_away(resource.path),
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


def _kept(found: Original) -> Kept:
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


def _within_space(changes: list[Change], observed: ObservedState) -> list[Change]:
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


def shell(resource: ShellBlock, observed: ObservedState) -> Change:
    """Our block in a start-up file: written, brought up to date, never guessed at."""
    found = observed.entry(resource.path)
    match found:
        case Unreadable(door):
            right = "r" if door == resource.path else "rwx"
            return refuse(
                resource, f"{door} may not be read", f"chmod u+{right} {quote(door)}", _UNMANAGED
            )
        case Absent():
            text = rcblock.replace("", resource.body)
            return Change(resource, Action.CREATE, "it is absent", (), "", text, ("absent", text))
        case Present(type="l", leads_to="f") | Present(type="f"):
            if resource.path in observed.strangers:
                return refuse(
                    resource, f"{describe(found)} that belongs to another user", _UNMANAGED
                )
        case _:
            return refuse(
                resource,
                f"{describe(found)} is in the way",
                _move_away(resource.path),
                _UNMANAGED,
            )
    before = observed.texts.get(resource.path)
    if before is None:
        return refuse(resource, "it is larger than 1 MiB or cannot be read", _UNMANAGED)
    return _block(resource, before, observed)


_UNMANAGED = "set `manage = false` in [shell]"


def _block(resource: ShellBlock, before: str, observed: ObservedState) -> Change:
    block = rcblock.find(before)
    if isinstance(block, rcblock.Broken):
        return refuse(
            resource,
            f"our block in it is damaged: {block.reason}",
            f"remove the lines of the block from {resource.path} in an editor",
            _UNMANAGED,
        )
    after = rcblock.replace(before, resource.body)
    if after == before:
        return same(resource, "our block is up to date")
    entry = observed.entry(resource.path)
    if isinstance(entry, Present) and entry.type == "f" and entry.mode & 0o200 == 0:
        return refuse(resource, "it is read-only", f"chmod u+w {quote(resource.path)}", _UNMANAGED)
    reason = "it lacks our block" if isinstance(block, rcblock.Missing) else "our block differs"
    digest = observed.digests.get(resource.path, "any")
    return Change(resource, Action.UPDATE, reason, (), before, after, (digest, after))


def env(resource: EnvFile, observed: ObservedState) -> Change:
    """The environment file: compared by digest, so that no secret comes back."""
    found = observed.entry(resource.path)
    names = ", ".join(resource.names) or "no variables"
    after = f"{names} (values not shown), mode 0600"
    match found:
        case Absent():
            return Change(resource, Action.CREATE, "it is absent", (), "absent", after)
        case Present(type="f", mode=mode, uid=uid) if uid == observed.account.uid:
            if observed.digests.get(resource.path) != resource.digest:
                return Change(
                    resource, Action.UPDATE, "the variables differ", (), "other values", after
                )
            if mode != 0o600:
                return Change(
                    resource,
                    Action.UPDATE,
                    f"its mode is {mode:04o}",
                    (),
                    f"mode {mode:04o}",
                    after,
                )
            return same(resource, names)
        case _:
            return refuse(
                resource,
                f"{describe(found)} is in the way",
                _move_away(resource.path),
            )


def scripts(resource: ScriptSet, observed: ObservedState) -> Change:
    """Our scripts: all whole, or written again."""
    found = [observed.digests.get(resource.path / name) for name, _, _ in resource.files]
    wanted = [digest for _, digest, _ in resource.files]
    after = ", ".join(name for name, _, _ in resource.files)
    if found == wanted:
        return same(resource, "they are whole")
    if not any(found):
        return Change(resource, Action.CREATE, "they are absent", (), "absent", after)
    return Change(resource, Action.REPLACE, "some are damaged or gone", (), "damaged", after)


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


def config(resource: ConfigFile, observed: ObservedState) -> Change:
    """The config file on this machine: private when it holds a secret."""
    found = observed.entry(resource.path)
    if not resource.private or not isinstance(found, Present) or found.mode & 0o077 == 0:
        return same(resource, "it is private" if resource.private else "it holds no secret")
    return Change(
        resource,
        Action.UPDATE,
        "it holds a secret and others may read it",
        (),
        f"mode {found.mode:04o}",
        "mode 0600",
    )


def human_bytes(count: int) -> str:
    """`1536` as `1.5 KiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
