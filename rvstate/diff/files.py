"""Files that rvstate writes, or writes a block into, desired and observed; pure."""

from __future__ import annotations

from rvstate import rcblock
from rvstate.diff.words import describe, move_away
from rvstate.model.observed import Absent, ObservedState, Present, Unreadable
from rvstate.model.plan import Action, Change, refuse, same
from rvstate.model.resources import ConfigFile, EnvFile, ScriptSet, ShellBlock
from rvstate.shell import quote


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
                move_away(resource.path),
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
                move_away(resource.path),
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
