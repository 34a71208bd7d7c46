"""What can be declared: the kinds of resource, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

from rvstate.paths import RemotePath


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory.

    Args:
        path: Where.
        mode: Permission bits that are enforced; None takes any.
        create: Whether rvstate makes it; where not, its absence is the user's to mend.
        owned: Whether it must belong to the account's user.
        links: Whether the user's own link to a directory will do; its mode is then the user's.
        leads_to: Where such a link may lead although nothing is there yet, for that is made too.
        group: Whether its group may write to it when rvstate makes it.
    """

    path: RemotePath
    mode: int | None = None
    create: bool = True
    owned: bool = True
    links: bool = False
    leads_to: RemotePath | None = None
    group: bool = False

    kind = "directory"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.path


@dataclass(frozen=True, slots=True)
class CacheLink:
    """`path` is a link to `target`; what lay at `path` moves there first.

    Args:
        label: For example `huggingface`.
        formers: Targets that this link may have had before by our own doing; such a link is ours.
        shared: The target belongs to a group.
    """

    label: str
    path: RemotePath
    target: RemotePath
    formers: tuple[RemotePath, ...] = ()
    shared: bool = False

    kind = "cache"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.label


@dataclass(frozen=True, slots=True)
class Kept:
    """What a migration set aside: wanted gone, where originals are to be removed.

    `record` is the file that remembers it, `target` the directory that holds its contents.
    """

    path: RemotePath
    target: RemotePath
    record: str

    kind = "cache"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ShellBlock:
    """Our marked block in a shell's start-up file."""

    path: RemotePath
    body: str

    kind = "shell"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class EnvFile:
    """The file with the user's variables; its contents are secret."""

    path: RemotePath
    digest: str
    names: tuple[str, ...]
    text: str = field(repr=False)

    kind = "env"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ScriptSet:
    """Our scripts for jobs, in a directory named by their digest."""

    path: RemotePath
    digest: str
    files: tuple[tuple[str, str, str], ...] = field(repr=False)
    """(name, SHA-256, text) of each."""

    kind = "scripts"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.digest


@dataclass(frozen=True, slots=True)
class Tool:
    """A program on the login node: found, or installed below `directory`."""

    program: str
    directory: RemotePath
    module: str | None = None
    """The environment module that brings a Python with pip, for installing it."""

    kind = "tool"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.program


@dataclass(frozen=True, slots=True)
class Environments:
    """All environments below `path`, which the look finds: each should be whole."""

    path: RemotePath

    kind = "environment"

    @property
    def name(self) -> str:
        """How output names it."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment that a branch's link leads to, or a layer of one, wanted whole."""

    path: RemotePath

    kind = "environment"

    @property
    def name(self) -> str:
        """How output names it: project and branch, and which layer."""
        parts = self.path.split("/")
        if parts[-3] == ".generations":
            return f"{parts[-4]}/{parts[-2]} {parts[-1]}"
        return "/".join(parts[-2:])


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The user's own config file on this machine, private when it holds a secret."""

    path: str
    private: bool

    kind = "config"

    @property
    def name(self) -> str:
        """How output names it."""
        return "config.toml"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What runs keepalive day by day: one of `settings.SCHEDULES`, or nothing.

    There is one for the cluster and one for this machine, and at most one of them has a `how`.

    Args:
        how: Which; empty where nothing should be there.
        here: Whether on this machine.
        account: Whose files it keeps, as output names it; empty on the cluster.
        path: Its directory, on the cluster.
        time: When, `HH:MM`; empty where it has no time of its own.
        asks: Of which kinds on the cluster the look asks what is there.
        lines: What stands in the table, or in the units.
        program: What the cluster runs, as a whole script.
        refusal: Why it may not or cannot be so; empty where it can.
    """

    how: str = ""
    here: bool = False
    account: str = ""
    path: str = ""
    time: str = ""
    asks: tuple[str, ...] = ()
    lines: str = ""
    program: str = field(default="", repr=False)
    refusal: str = ""

    kind = "schedule"

    @property
    def owner(self) -> str:
        """How a table names it.

        On the cluster by its place: two names of one account are one account.
        """
        return self.account or self.path

    @property
    def name(self) -> str:
        """How output names it."""
        return self.how or "none"


Resource = (
    Directory
    | CacheLink
    | Kept
    | ShellBlock
    | EnvFile
    | ScriptSet
    | Tool
    | Environments
    | Environment
    | ConfigFile
    | Schedule
)

# In the order in which they are applied: space is freed before anything is written to a home
# directory, and directories come before what lies in them.
KINDS = (
    *("config", "directory", "cache", "env", "scripts", "shell"),
    *("schedule", "tool", "environment"),
)


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that should be so on one account."""

    resources: tuple[Resource, ...]

    def of(self, kind: str) -> tuple[Resource, ...]:
        """The resources of one kind."""
        return tuple(r for r in self.resources if r.kind == kind)
