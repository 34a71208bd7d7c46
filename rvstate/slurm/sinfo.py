"""sinfo(1): what a site has and what is free; the fields asked for and their parsers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rvstate.errors import ParseError
from rvstate.slurm import duration, nodelist
from rvstate.slurm.rows import SEPARATOR, free, number, split_lines

PARTITION_FIELDS = ("Partition", "Available", "Time", "DefaultTime", "Nodes", "NodeList")
NODE_FIELDS = (
    "NodeList",
    "Partition",
    "StateLong",
    "CPUsState",
    "Memory",
    "AllocMem",
    "Gres",
    "GresUsed",
    "Features",
)


def _command(fields: Iterable[str], *flags: str) -> tuple[str, ...]:
    # Without a size but with a suffix nothing is cut or padded (sinfo(1), --Format).
    wanted = ",".join(f"{field}:{SEPARATOR}" for field in fields)
    unset = ("SINFO_ALL", "SINFO_FORMAT", "SINFO_PARTITION", "SINFO_SORT")
    return (
        "env",
        *(word for name in unset for word in ("-u", name)),
        "sinfo",
        "--noheader",
        *flags,
        f"--Format={wanted}",
    )


# Partitions without any node are only in this one.
PARTITIONS_COMMAND = _command(PARTITION_FIELDS)
# --Node: each node on a line of its own, once for every partition that it is in.
NODES_COMMAND = _command(NODE_FIELDS, "--Node")

# Jobs can start on it, now or as soon as the running ones end (sinfo(1), NODE STATE CODES).
_IN_SERVICE = frozenset({"allocated", "completing", "idle", "mixed", "planned"})
_CAN_START = frozenset({"idle", "mixed"})
# Suffixes that keep jobs away: no answer, powering down, maintenance, reboot.  `~` and `#` (power
# saving) do not, nor does `-` (planned by the backfill scheduler for a larger job), nor `+`.
_AWAY = frozenset("*!%$@^")


@dataclass(frozen=True, slots=True)
class Gres:
    """One kind of generic resource of a node.

    Args:
        name: `gpu` and the like.
        type: `a100`; empty where the site gives none.
        count: How many.
    """

    name: str
    type: str
    count: int


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition.

    Args:
        name: Without the `*` of the default one.
        default: Whether it is the default.
        available: Whether it takes and starts jobs (`up`).
        time_limit: Seconds; None for no limit.
        default_time: Seconds; None where none is set.
        node_count: How many nodes.
        nodes: Their names.
    """

    name: str
    default: bool
    available: bool
    time_limit: int | None
    default_time: int | None
    node_count: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node, however many partitions it is in.

    Args:
        name: Its name.
        partitions: All partitions that list it.
        state: Base state in lower case, without its suffixes (`mixed`).
        flags: The suffixes (`*`, `-`, ...).
        cpus: All CPUs.
        cpus_idle: CPUs that no job holds, zero where no job can start.
        memory: MiB, all of it.
        memory_idle: MiB that no job holds, zero where no job can start.
        gres: What it has.
        gres_used: What jobs hold of it.
        features: What `--constraint` may name.
    """

    name: str
    partitions: tuple[str, ...]
    state: str
    flags: str
    cpus: int
    cpus_idle: int
    memory: int
    memory_idle: int
    gres: tuple[Gres, ...]
    gres_used: tuple[Gres, ...]
    features: tuple[str, ...]

    @property
    def in_service(self) -> bool:
        """Whether jobs run here at all; a state that is not known counts as no."""
        return self.state in _IN_SERVICE and not _AWAY & set(self.flags)

    @property
    def can_start(self) -> bool:
        """Whether a job could start here now, if what it asks for is free."""
        return self.state in _CAN_START and not _AWAY & set(self.flags)

    def free_gres(self) -> tuple[Gres, ...]:
        """What a job could get now; counts are zero where no job can start."""
        used = {(held.name, held.type): held.count for held in self.gres_used}
        return tuple(
            Gres(
                has.name,
                has.type,
                max(0, has.count - used.get((has.name, has.type), 0)) if self.can_start else 0,
            )
            for has in self.gres
        )


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """Read the output of PARTITIONS_COMMAND.

    Raises:
        ParseError: Not that output.
    """
    merged: dict[str, Partition] = {}
    for name, available, limit, default_time, count, nodes in split_lines(
        text, len(PARTITION_FIELDS)
    ):
        one = Partition(
            name=name.removesuffix("*"),
            default=name.endswith("*"),
            available=available == "up",
            time_limit=_time(limit),
            default_time=_time(default_time),
            node_count=number(count),
            nodes=nodelist.expand(nodes),
        )
        # sinfo may print a partition on several lines when its nodes differ.
        if before := merged.get(one.name):
            one = Partition(
                one.name,
                one.default,
                one.available,
                one.time_limit,
                one.default_time,
                before.node_count + one.node_count,
                before.nodes + one.nodes,
            )
        merged[one.name] = one
    return tuple(merged.values())


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Read the output of NODES_COMMAND; a node in several partitions becomes one value.

    Raises:
        ParseError: Not that output.
    """
    rows: dict[str, list[tuple[str, ...]]] = {}
    for row in split_lines(text, len(NODE_FIELDS)):
        rows.setdefault(row[0], []).append(row)
    return tuple(_node(name, of_node) for name, of_node in rows.items())


def parse_gres(text: str) -> tuple[Gres, ...]:
    """Read generic resources: `gpu:a100:8(S:0-1),lscratch:900G`; `(null)` is none.

    Types that stand several times (one entry per socket) are added up.

    Raises:
        ParseError: Not of that form.
    """
    if text.strip() in {"", "(null)", "N/A"}:
        return ()
    counts: dict[tuple[str, str], int] = {}
    # Sockets and indices in brackets hold commas: (IDX:0-1,3).
    for entry in re.sub(r"\([^)]*\)", "", text).split(","):
        parts = entry.strip().split(":")
        size = re.fullmatch(r"([0-9]{1,18})([KMGTP]?)", parts[-1]) if len(parts) > 1 else None
        if size is None:
            # A resource may have no count: it stands for one.
            name, kind, count = parts[0], ":".join(parts[1:]), 1
        else:
            name, kind = parts[0], ":".join(parts[1:-1])
            count = int(size[1]) * 1024 ** " KMGTP".index(size[2] or " ")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ParseError(f"{text[:200]!r} is not a list of generic resources.")
        counts[name, kind] = counts.get((name, kind), 0) + count
    return tuple(Gres(name, kind, count) for (name, kind), count in counts.items())


def _node(name: str, rows: list[tuple[str, ...]]) -> Node:
    _, _, state_text, cpus_text, memory, held, gres, used, features = rows[0]
    match = re.fullmatch(r"([a-z_]+)([^a-z_]*)", state_text.lower())
    state, flags = (match[1], match[2]) if match else (state_text.lower(), "")
    cpus = cpus_text.split("/")
    if len(cpus) != 4:
        raise ParseError(f"{cpus_text!r} is not a count of CPUs by state.")
    here = state in _CAN_START and not _AWAY & set(flags)
    return Node(
        name=name,
        partitions=tuple(dict.fromkeys(row[1].removesuffix("*") for row in rows)),
        state=state,
        flags=flags,
        cpus=number(cpus[3]),
        cpus_idle=number(cpus[1]) if here else 0,
        memory=number(memory),
        memory_idle=max(0, number(memory) - number(held)) if here else 0,
        gres=parse_gres(gres),
        gres_used=parse_gres(used),
        features=tuple(f for f in free(features).split(",") if f),
    )


def _time(text: str) -> int | None:
    return None if text.lower() in {"n/a", "none", "not_set"} else duration.parse_slurm(text)
