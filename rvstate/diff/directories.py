"""Directories, desired and observed; pure."""

from __future__ import annotations

from rvstate.diff.words import describe, destination, move_away
from rvstate.model.observed import Absent, ObservedState, Present, Unreadable
from rvstate.model.plan import Action, Change, refuse, same
from rvstate.model.resources import Directory
from rvstate.shell import quote


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
            return refuse(resource, f"{describe(found)} is in the way", move_away(resource.path))
