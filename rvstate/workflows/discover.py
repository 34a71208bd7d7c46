"""What an account on a cluster has: one remote command, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rvstate import shell
from rvstate.errors import ParseError, ProbeError
from rvstate.model.site import Site
from rvstate.script import Answer, Script
from rvstate.slurm import sinfo
from rvstate.slurm.sinfo import Node, Partition
from rvstate.workflows.session import Session

# Where sites keep scratch; each is only looked at.
SCRATCH_CANDIDATES = (
    "/scratch/{user}",
    "/gpfs/scratch/{user}",
    "/lustre/scratch/{user}",
    "/lustre/{user}",
    "/glade/derecho/scratch/{user}",
    "/work/{user}",
    "/workspace/{user}",
    "{home}/scratch",
)
# A profile is suggested where the cluster has at least half of the partitions that it names.
_ENOUGH = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """An existing directory: its path, whether it can be written to, free bytes."""

    path: str
    writable: bool
    free: int


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found.

    Args:
        user: Our name there.
        home: Our home directory.
        scratch: The scratch directory that the settings say, whether it exists or not.
        shell: The login shell.
        node: The login node's own name.
        address: Its full name, if it has one.
        slurm: What `sbatch --version` says; empty without Slurm.
        cluster: Slurm's name of the cluster.
        accounts: Allocations that we may charge.
        default_account: The one that Slurm takes when none is given.
        partitions: Every partition.
        nodes: Every node.
        places: Directories that may be scratch.
        groups: Directories of a group that we may write to.
        modules: Environment modules, where they were asked for.
        allocations: What the site's `allocations` says.
        max_array_size: Slurm's MaxArraySize, which no array's index reaches; None where unknown.
    """

    user: str
    home: str
    scratch: str
    shell: str
    node: str
    address: str
    slurm: str
    cluster: str
    accounts: tuple[str, ...]
    default_account: str
    partitions: tuple[Partition, ...]
    nodes: tuple[Node, ...]
    places: tuple[Place, ...]
    groups: tuple[str, ...]
    modules: tuple[str, ...]
    allocations: str
    max_array_size: int | None = None

    def place(self, path: str) -> Place | None:
        """What is at a path that was looked at."""
        return next((p for p in self.places if p.path == path.rstrip("/")), None)


def discover(
    session: Session, candidates: Iterable[str] = (), *, modules: bool = False
) -> Discovery:
    """Look around on the cluster with one remote command; nothing is written.

    Args:
        session: Which account.
        candidates: Further directories that may be scratch, as templates.
        modules: Whether environment modules are listed, which takes some sites seconds.

    Raises:
        RvstateError: The cluster did not answer.
        ProbeError: It answered something else.
    """
    script = Script(
        "discover",
        (
            session.scratch,
            session.home,
            "modules" if modules else "-",
            shell.join(sinfo.PARTITIONS_COMMAND),
            shell.join(sinfo.NODES_COMMAND),
            *dict.fromkeys((*candidates, *SCRATCH_CANDIDATES)),
        ),
    )
    return read(session.transport.run(script))


def read(answer: Answer) -> Discovery:
    """The answer of `remote/discover.sh` as values.

    Raises:
        ProbeError: It is not one.
    """
    account = dict(line.split(" ", 1) for line in _lines(answer, "account") if " " in line)
    if "user" not in account or "home" not in account:
        raise ProbeError("The cluster did not say who we are there.", "Run `rvstate doctor`.")
    default = _lines(answer, "default")
    return Discovery(
        user=account["user"],
        home=account["home"],
        scratch=account.get("scratch", ""),
        shell=account.get("shell", ""),
        node=account.get("node", ""),
        address=_one(answer, "address"),
        slurm=_one(answer, "slurm"),
        cluster=_one(answer, "cluster"),
        accounts=tuple(dict.fromkeys(_lines(answer, "accounts"))),
        default_account=default[0] if default else "",
        partitions=_partitions(answer),
        nodes=_nodes(answer),
        places=_places(answer),
        groups=_lines(answer, "groups"),
        modules=_modules(answer),
        allocations=_text(answer, "allocations").strip(),
        max_array_size=int(size) if (size := _one(answer, "arrays")).isdecimal() else None,
    )


def _text(answer: Answer, name: str) -> str:
    return answer.first(name).decode("utf-8", "replace")


def _lines(answer: Answer, name: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in _text(answer, name).splitlines() if line.strip())


def _one(answer: Answer, name: str) -> str:
    return next(iter(_lines(answer, name)), "")


def _partitions(answer: Answer) -> tuple[Partition, ...]:
    # a controller that is down answers nothing or an excuse: then nothing is known
    try:
        return sinfo.parse_partitions(_text(answer, "partitions"))
    except ParseError:
        return ()


def _nodes(answer: Answer) -> tuple[Node, ...]:
    try:
        return sinfo.parse_nodes(_text(answer, "nodes"))
    except ParseError:
        return ()


def _places(answer: Answer) -> tuple[Place, ...]:
    found: dict[str, Place] = {}
    for line in _lines(answer, "scratch"):
        word, free, path = [*line.split(" ", 2), "", ""][:3]
        if path and free.isdigit():
            path = path.rstrip("/")
            found.setdefault(path, Place(path, word == "writable", int(free) * 1024))
    return tuple(found.values())


def _modules(answer: Answer) -> tuple[str, ...]:
    # Lmod and environment-modules print directories with a colon and families with a slash
    names = (re.sub(r"\s*\((?:default|D|L)[^)]*\)$", "", x) for x in _lines(answer, "modules"))
    return tuple(n for n in names if "/" in n and not n.endswith((":", "/")) and " " not in n)


def suggest_site(found: Discovery, address: str, sites: Mapping[str, Site]) -> str | None:
    """The profile that fits a cluster best, by its address or by its partitions.

    Args:
        found: What the cluster has.
        address: The login node's address as this machine reaches it; may be empty.
        sites: Every profile by name.

    Returns:
        A profile's name, or None where none fits.
    """
    for name, site in sites.items():
        if site.hostname and site.hostname in (address, found.address):
            return name
    there = {partition.name for partition in found.partitions}
    best, most = None, _ENOUGH
    for name, site in sites.items():
        named = {p.name for p in site.partitions} | {
            g.partition for g in (site.gpus or {}).values()
        }
        share = len(named & there) / len(named) if named else 0.0
        if share >= most:
            best, most = name, share
    return best
