"""What the look found; absence, foreignness and a closed door are values."""

from __future__ import annotations

from dataclasses import dataclass, field

from rvstate.model.layout import Account


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is there."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A directory on the way may not be entered."""

    door: str


@dataclass(frozen=True, slots=True)
class Present:
    """Something is there.

    Args:
        type: `f` file, `d` directory, `l` link, `o` anything else.
        mode: Permission bits.
        uid: The owner.
        size: Bytes.
        target: A link's text.
        leads_to: What a link ends at, as `type`; `N` where it leads nowhere.
    """

    type: str
    mode: int
    uid: int
    size: int
    target: str = ""
    leads_to: str = ""


Entry = Absent | Unreadable | Present


@dataclass(frozen=True, slots=True)
class Tree:
    """A real directory's contents.

    Args:
        size: Bytes on disk.
        entries: How many files, directories and so on, without the directory itself.
        stuck: One path in it that cannot be moved, for it is somebody else's or may not be read.
    """

    size: int
    entries: int
    stuck: str = ""


@dataclass(frozen=True, slots=True)
class Space:
    """What is free on a file system, in bytes and inodes; None where it keeps no count."""

    mount: str
    free: int
    inodes: int | None


@dataclass(frozen=True, slots=True)
class Built:
    """The environment that a branch's link leads to, or a layer.

    Args:
        digest: Of what it was built from, by its stamp; empty where that is gone.
        runs: Whether its interpreter is there.
        walked: When it was last compared with its manifest (seconds since 1970), or None.
        damaged: Whether that walk found damage.
        recipe: Whether it keeps what it was built from.
    """

    digest: str
    runs: bool
    walked: int | None = None
    damaged: bool = False
    recipe: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is known against it."""
        return bool(self.digest) and self.runs and not self.damaged


@dataclass(frozen=True, slots=True)
class Original:
    """What a migration set aside and still keeps.

    Args:
        record: The file that remembers it.
        path: Where it is.
        target: The directory that holds a copy of all that is in it.
        size: Bytes.
        entries: As in `Tree`.
        made: When, in seconds since 1970.
        moving: Whether the migration was interrupted, so that the copy may lack the last changes.
    """

    record: str
    path: str
    target: str
    size: int
    entries: int
    made: int
    moving: bool = False


@dataclass(frozen=True, slots=True)
class ObservedState:
    """One look at one account.

    `skew` is the cluster's clock minus ours, in seconds; `strangers` are the start-up files that
    belong to another user, or lead to such a file; `copied` says how many bytes the target of a
    migration holds already; `environments` go by the paths of their links, layers
    by their own.  `schedules` is what the
    cluster and this machine said of them: `record` is what was put there (kind, node, time), a
    kind's own name what its table or queue holds, and with `-end` how asking for that ended.
    """

    account: Account
    entries: dict[str, Entry]
    digests: dict[str, str]
    texts: dict[str, str] = field(repr=False)
    trees: dict[str, Tree]
    spaces: dict[str, Space]
    tools: dict[str, str]
    originals: tuple[Original, ...] = ()
    skew: int = 0
    strangers: frozenset[str] = frozenset()
    copied: dict[str, int] = field(default_factory=dict)
    environments: dict[str, Built] = field(default_factory=dict)
    schedules: tuple[dict[str, str], dict[str, str]] = field(default_factory=lambda: ({}, {}))

    def entry(self, path: str) -> Entry:
        """What is at a path that the look was asked about."""
        return self.entries.get(path, Absent())
