"""Desired and observed state, compared: one small function for each kind; pure."""

from __future__ import annotations

from rvstate import rcblock
from rvstate.model.observed import Absent, Entry, ObservedState, Present, Space, Unreadable
from rvstate.model.plan import Action, Change, Plan
from rvstate.model.resources import (
    CacheLink,
    ConfigFile,
    DesiredState,
    Directory,
    EnvFile,
    Resource,
    ScriptSet,
    ShellBlock,
    Tool,
)

# rsync needs room for its temporary file and directories grow: one part in fifty, and 16 MiB.
_SLACK = 16 << 20


def plan(desired: DesiredState, observed: ObservedState) -> Plan:
    """What must change, and what must not be touched, in the order of `desired`."""
    changes = [_change(resource, observed) for resource in desired.resources]
    return Plan(tuple(_within_space(changes, observed)))


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


def _same(resource: Resource, reason: str) -> Change:
    return Change(resource, Action.NO_OP, reason)


def _refuse(resource: Resource, reason: str, *ways_out: str) -> Change:
    return Change(resource, Action.REFUSE, reason, ways_out)


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
            return _refuse(
                resource,
                "it does not exist, and a site makes it, not rvstate",
                "check [paths] in ~/.rv/config.toml",
                "ask the site's help desk",
            )
        case Unreadable(door):
            return _refuse(resource, f"{door} may not be entered", f"chmod u+rwx {door}")
        case Present(type="d", uid=uid, mode=mode):
            if resource.owned and uid != observed.account.uid:
                return _refuse(
                    resource,
                    f"it belongs to another user (uid {uid})",
                    "have its owner move it away",
                    "choose another [paths] scratch",
                )
            if resource.mode is None or mode == resource.mode:
                return _same(resource, "it is there")
            return Change(
                resource,
                Action.UPDATE,
                f"its mode is {mode:04o}",
                (),
                f"mode {mode:04o}",
                f"mode {resource.mode:04o}",
            )
        case Present(type="l", leads_to="d") if resource.mode is None:
            return _same(resource, "it is a link to a directory")
        case _:
            return _refuse(
                resource,
                f"{describe(found)} is in the way",
                f"move it away: mv {resource.path} {resource.path}.mine",
            )


def cache(resource: CacheLink, observed: ObservedState) -> Change:
    """A cache link: made, turned round, or put in the place of a directory that moves."""
    found = observed.entry(resource.path)
    after = f"link to {resource.target}"
    home = observed.entry(resource.path.parent)
    if isinstance(home, Present) and home.type == "l":
        if home.target == resource.target.parent:
            return _same(resource, f"{resource.path.parent} as a whole leads there")
        return _refuse(
            resource,
            f"{resource.path.parent} itself is a link to {home.target}",
            f"make {resource.path.parent} a directory again",
            "take the name out of [caches] names",
        )
    match found:
        case Absent():
            return Change(resource, Action.CREATE, "it is absent", (), "absent", after)
        case Unreadable(door):
            return _refuse(resource, f"{door} may not be entered", f"chmod u+rwx {door}")
        case Present(type="l", target=target):
            if target == resource.target:
                return _same(resource, "it leads there")
            if target in resource.formers:
                reason = f"it leads to {target}, its former place; nothing there is touched"
                return Change(
                    resource, Action.UPDATE, reason, (), f"link to {target}", after, (target,)
                )
            return _refuse(
                resource,
                f"it is a link to {target}, which rvstate did not make",
                f"remove the link: rm {resource.path}",
                "take the name out of [caches] names",
            )
        case Present(type="d", uid=uid):
            return _migration(resource, observed, uid)
        case _:
            return _refuse(
                resource,
                f"{describe(found)} is in the way",
                f"move it away: mv {resource.path} {resource.path}.mine",
                "take the name out of [caches] names",
            )


def _migration(resource: CacheLink, observed: ObservedState, uid: int) -> Change:
    tree = observed.trees.get(resource.path)
    if uid != observed.account.uid or (tree and tree.foreign):
        whose = tree.foreign if tree and tree.foreign else resource.path
        return _refuse(
            resource,
            f"{whose} belongs to another user",
            "have its owner move it away",
            "take the name out of [caches] names",
        )
    if "rsync" not in observed.tools:
        return _refuse(
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
            space = observed.spaces.get(resource.target)
            tree = observed.trees.get(resource.path)
            if space and tree:
                free, inodes = left.get(space.mount, (space.free, space.inodes))
                need = tree.size + tree.size // 50 + _SLACK
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
    return _refuse(
        resource,
        lack,
        f"free space on {space.mount}",
        f"delete what is not needed in {resource.path}",
        "take the name out of [caches] names",
    )


def shell(resource: ShellBlock, observed: ObservedState) -> Change:
    """Our block in a start-up file: written, brought up to date, never guessed at."""
    found = observed.entry(resource.path)
    match found:
        case Unreadable(door):
            return _refuse(resource, f"{door} may not be entered", f"chmod u+rwx {door}")
        case Absent():
            text = rcblock.replace("", resource.body)
            return Change(
                resource, Action.CREATE, "it is absent", (), "", text, ("absent", text)
            )
        case Present(type="l", leads_to="f") | Present(type="f"):
            if found.type == "f" and found.uid != observed.account.uid:
                return _refuse(
                    resource,
                    f"it belongs to another user (uid {found.uid})",
                    "set `manage = false` in [shell]",
                )
        case _:
            return _refuse(
                resource,
                f"{describe(found)} is in the way",
                f"move it away: mv {resource.path} {resource.path}.mine",
                "set `manage = false` in [shell]",
            )
    before = observed.texts.get(resource.path)
    if before is None:
        return _refuse(
            resource, "it is larger than 1 MiB or cannot be read", "set `manage = false` in [shell]"
        )
    return _block(resource, before, observed)


def _block(resource: ShellBlock, before: str, observed: ObservedState) -> Change:
    block = rcblock.find(before)
    if isinstance(block, rcblock.Broken):
        return _refuse(
            resource,
            f"our block in it is damaged: {block.reason}",
            f"remove the lines of the block from {resource.path} in an editor",
            "set `manage = false` in [shell]",
        )
    after = rcblock.replace(before, resource.body)
    if after == before:
        return _same(resource, "our block is up to date")
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
                    resource, Action.UPDATE, f"its mode is {mode:04o}", (), f"mode {mode:04o}", after
                )
            return _same(resource, names)
        case _:
            return _refuse(
                resource,
                f"{describe(found)} is in the way",
                f"move it away: mv {resource.path} {resource.path}.mine",
            )


def scripts(resource: ScriptSet, observed: ObservedState) -> Change:
    """Our scripts: all whole, or written again."""
    found = [observed.digests.get(resource.path / name) for name, _, _ in resource.files]
    wanted = [digest for _, digest, _ in resource.files]
    after = ", ".join(name for name, _, _ in resource.files)
    if found == wanted:
        return _same(resource, "they are whole")
    if not any(found):
        return Change(resource, Action.CREATE, "they are absent", (), "absent", after)
    return Change(resource, Action.REPLACE, "some are damaged or gone", (), "damaged", after)


def tool(resource: Tool, observed: ObservedState) -> Change:
    """A program: found anywhere, or installed below our own directory."""
    where = observed.tools.get(resource.program)
    if where:
        return _same(resource, where)
    after = f"{resource.directory}/bin/{resource.program}"
    return Change(resource, Action.CREATE, "it is not installed", (), "absent", after)


def config(resource: ConfigFile, observed: ObservedState) -> Change:
    """The config file on this machine: private when it holds a secret."""
    found = observed.entry(resource.path)
    if not resource.private or not isinstance(found, Present) or found.mode & 0o077 == 0:
        return _same(resource, "it is private" if resource.private else "it holds no secret")
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
