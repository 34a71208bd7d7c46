"""The difference between what is wanted and what is there, and the one judge of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rvstate.model.resources import KINDS, ConfigFile, Resource, Schedule


class Action(Enum):
    """What would be done; the value is the sign that people see."""

    CREATE = "+"
    UPDATE = "~"
    MIGRATE = "»"
    REPLACE = "±"
    REMOVE = "-"
    REFUSE = "!"
    NO_OP = "="

    @property
    def word(self) -> str:
        """The action as JSON and text spell it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Change:
    """One resource and what would be done to it.

    Args:
        resource: What is wanted.
        action: What would be done.
        reason: One clause that says why.
        ways_out: For a refusal, what the user can do.
        before: The state now, for `--diff`; never a secret.
        after: The state wanted, for `--diff`; never a secret.
        detail: Facts that applying it needs (kind by kind), never shown.
    """

    resource: Resource
    action: Action
    reason: str
    ways_out: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    detail: tuple[str, ...] = field(default=(), repr=False)

    @property
    def kind(self) -> str:
        """The resource's kind."""
        return self.resource.kind


def _turn(change: Change) -> int:
    """When a change has its turn among those of its kind.

    Links to a group's directory come before the cache around them moves, and what makes room in a
    home comes before what takes some.
    """
    if getattr(change.resource, "shared", False):
        return 0
    return {Action.REMOVE: 1, Action.MIGRATE: 2}.get(change.action, 3)


def same(resource: Resource, reason: str) -> Change:
    """Nothing is to be done."""
    return Change(resource, Action.NO_OP, reason)


def refuse(resource: Resource, reason: str, *ways_out: str) -> Change:
    """Nothing may be done; and what the user can do instead."""
    return Change(resource, Action.REFUSE, reason, ways_out)


def is_here(change: Change) -> bool:
    """Whether a change is made on this machine, not on the cluster."""
    resource = change.resource
    return isinstance(resource, ConfigFile) or (isinstance(resource, Schedule) and resource.here)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that was looked at, no-ops included."""

    all: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What would be done."""
        quiet = (Action.NO_OP, Action.REFUSE)
        return tuple(c for c in self.all if c.action not in quiet)

    @property
    def refusals(self) -> tuple[Change, ...]:
        """What will not be done."""
        return tuple(c for c in self.all if c.action is Action.REFUSE)

    @property
    def unchanged(self) -> int:
        """How many resources are as wanted."""
        return sum(c.action is Action.NO_OP for c in self.all)

    @property
    def empty(self) -> bool:
        """Whether everything is as wanted."""
        return not self.changes and not self.refusals

    @property
    def may_be_applied(self) -> bool:
        """Whether anything may be written: a single refusal holds back all of it."""
        return bool(self.changes) and not self.refusals

    def by_kind(self) -> tuple[tuple[str, tuple[Change, ...]], ...]:
        """The changes in the order in which they are applied."""
        changes = sorted(self.changes, key=_turn)
        grouped = ((kind, tuple(c for c in changes if c.kind == kind)) for kind in KINDS)
        return tuple((kind, changes) for kind, changes in grouped if changes)

    def only(self, kinds: frozenset[str]) -> Plan:
        """The plan without the other kinds."""
        return Plan(tuple(c for c in self.all if c.kind in kinds))
