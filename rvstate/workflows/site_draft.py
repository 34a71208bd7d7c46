"""A site profile drafted from what a live cluster reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rvstate.slurm import duration
from rvstate.slurm.sinfo import Node, Partition
from rvstate.workflows.discover import Discovery

_MODULES = {
    "python": ("miniforge", "miniconda", "anaconda", "conda", "python"),
    "cuda": ("cuda", "cudatoolkit", "nvhpc"),
    "compiler": ("gcc", "gnu"),
}
_MIG = re.compile(r"\d+g\.\d+gb")
_HEAD = """\
# Drafted by `rvstate site draft` from what the cluster reported.  No command tells how scratch is
# purged and where scheduled commands may run: where it says unknown, see the site's own pages.
"""


def draft(found: Discovery, name: str) -> tuple[str, dict[str, Any]]:
    """A profile.

    Args:
        found: What the cluster has, modules included.
        name: The profile's name.

    Returns:
        The comment for its head, and its table; values that nobody knows are left out.
    """
    table: dict[str, Any] = {
        "name": name,
        "title": f"Slurm cluster {found.cluster or found.address or name}",
    }
    if "." in found.address:
        table["hostname"] = found.address
    if found.max_array_size:
        table["max_array_size"] = found.max_array_size
    scratch = _scratch(found)
    if scratch:
        table["paths"] = {"scratch": scratch}
    modules = {k: v for k, names in _MODULES.items() if (v := _newest(found.modules, names))}
    if modules:
        table["modules"] = modules
    table["purge"] = {"clock": "unknown", "touch_policy": "unknown"}
    table["scheduling"] = {
        "remote_cron": "unknown",
        "scrontab": "unknown",
        "sbatch_chain": "unknown",
    }
    table["partitions"] = [_partition(p) for p in found.partitions]
    gpus = dict(_gpus(found))
    if gpus:
        table["gpus"] = gpus
    return _HEAD, table


def _scratch(found: Discovery) -> str | None:
    place = next((p for p in found.places if p.writable), None)
    if place is None:
        return None
    parts = ["{user}" if part == found.user else part for part in place.path.split("/")]
    return "/".join(parts)


def _newest(modules: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    for name in names:
        known = [m for m in modules if m.split("/")[0].lower() == name]
        if known:
            return max(known, key=_version)
    return None


def _version(module: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", module.partition("/")[2]))


def _partition(partition: Partition) -> dict[str, Any]:
    row: dict[str, Any] = {"name": partition.name}
    if partition.time_limit:
        row["max_time"] = duration.render(partition.time_limit)
    if partition.default:
        row["default"] = True
    return row


def _gpus(found: Discovery) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each type once, in the partition that has nothing else where there is one."""
    types = dict.fromkeys(g.type for n in found.nodes for g in n.gres if g.name == "gpu" and g.type)
    order = {p.name: p for p in found.partitions}
    for kind in types:
        nodes = [n for n in found.nodes if any(g.type == kind for g in n.gres)]
        names = [p for p in order if any(p in n.partitions for n in nodes)]
        if not names:
            continue
        row: dict[str, Any] = {
            "partition": min(names, key=lambda p: _others(found, p, kind)),
            "gres": kind,
            "per_node": max(g.count for n in nodes for g in n.gres if g.type == kind),
        }
        memory = _memory(kind, nodes)
        if memory:
            row["memory"] = memory
        if _MIG.fullmatch(kind):
            row["mig"] = True
        yield re.sub(r"[^A-Za-z0-9_-]", "_", kind), row


def _others(found: Discovery, partition: str, kind: str) -> tuple[int, int]:
    """How many nodes of a partition lack the type, then how many it has in all."""
    nodes = [n for n in found.nodes if partition in n.partitions]
    return sum(not any(g.type == kind for g in n.gres) for n in nodes), len(nodes)


def _memory(kind: str, nodes: list[Node]) -> int | None:
    """GiB of one GPU, where its type or a feature of all its nodes names them."""
    named = re.search(r"(\d+)gb$", kind, re.I)
    if named:
        return int(named[1])
    common = set.intersection(*(set(n.features) for n in nodes))
    sizes = {int(m[1]) for f in common if (m := re.search(r"(\d+)gb$", f, re.I))}
    return sizes.pop() if len(sizes) == 1 else None
