"""A few presets that fit what a cluster reports of its nodes; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

from rvstate.model.settings import Preset
from rvstate.model.site import Site
from rvstate.slurm.sinfo import Node, Partition

# More types of GPU than these are for people who know what they look for.
_MOST_TYPES = 4
_MOST_CPUS = 4
_GIB = 1024  # MiB


def suggested(
    partitions: Collection[Partition], nodes: Collection[Node], site: Site
) -> dict[str, Preset]:
    """Presets by name: a share of a node and all of it, without GPUs and for each type of GPU.

    A share of a node with GPUs has as many of its CPUs and as much of its memory as its GPUs are of
    all of them, so that every GPU of the node can be used at the same time.

    Args:
        partitions: Those of the cluster.
        nodes: Those of the cluster.
        site: Its profile; types that it describes bring their own partition.

    Returns:
        `cpu` and `node`, then `a100` and `a100-node` for each of the most frequent types; empty
        where the cluster reported nothing.
    """
    open_ones = {p.name for p in partitions if p.available}
    usable = [node for node in nodes if open_ones & set(node.partitions)]
    found: dict[str, Preset] = dict(_without_gpus(partitions, usable))
    for kind in _types(usable):
        for name, preset in _of_type(kind, partitions, usable, site):
            found.setdefault(name, preset)
    return found


def in_words(preset: Preset) -> str:
    """`1 GPU a100, 16 CPUs, 122G` for people."""
    gpus = preset.gpus or (1 if preset.mig else 0)
    kind = "slice of a GPU" if preset.mig else f"GPU{'s' if gpus > 1 else ''}"
    parts = [f"{gpus} {kind} {preset.gpu_type or ''}".rstrip()] if gpus else []
    if preset.exclusive:
        parts.append("a whole node")
    if preset.cpus:
        parts.append(f"{preset.cpus} CPU{'s' if preset.cpus > 1 else ''}")
    if preset.mem and preset.mem != "0":
        parts.append(preset.mem)
    if preset.partition:
        parts.append(f"partition {preset.partition}")
    return ", ".join(parts)


def _without_gpus(
    partitions: Collection[Partition], nodes: Collection[Node]
) -> Iterator[tuple[str, Preset]]:
    usual = next((p for p in partitions if p.default and p.available), None)
    plain = [n for n in nodes if usual and usual.name in n.partitions and not _gpus(n)]
    if not plain:
        return
    cpus = min(node.cpus for node in plain)
    few = min(_MOST_CPUS, cpus)
    share = min(node.memory * few // max(node.cpus, 1) for node in plain)
    yield "cpu", Preset(cpus=few, mem=_size(share))
    yield "node", Preset(nodes=1, exclusive=True, cpus=cpus, mem="0")


def _of_type(
    kind: str, partitions: Collection[Partition], nodes: Collection[Node], site: Site
) -> Iterator[tuple[str, Preset]]:
    having = [node for node in nodes if _gpus(node)[kind]]
    known = site.gpu(kind) if kind else None
    name = known[0] if known else re.sub(r"[^a-z0-9_-]+", "-", kind.lower()).strip("-") or "gpu"
    if known is not None and known[1].mig:
        # one of them is what a slice is for
        yield name, Preset(mig=True)
        return
    partition = None if known else _partition(kind, partitions, having, nodes)
    wanted = known[0] if known else kind or None
    each = min(node.cpus // _gpus(node)[kind] for node in having)
    share = min(node.memory // _gpus(node)[kind] for node in having)
    yield (
        name,
        Preset(gpus=1, gpu_type=wanted, cpus=each or None, mem=_size(share), partition=partition),
    )
    count = min(_gpus(node)[kind] for node in having)
    if count < 2 or (known is not None and (known[1].per_job or count) < count):
        return
    cpus = min(node.cpus for node in having)
    whole = Preset(
        gpus=count,
        gpu_type=wanted,
        nodes=1,
        exclusive=True,
        cpus=cpus,
        mem="0",
        partition=partition,
    )
    yield f"{name}-node", whole


def _types(nodes: Collection[Node]) -> list[str]:
    """The most frequent types of GPU, in the order of their number."""
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(_gpus(node))
    return sorted(total, key=lambda kind: (-total[kind], kind))[:_MOST_TYPES]


def _gpus(node: Node) -> Counter[str]:
    found: Counter[str] = Counter()
    for gres in node.gres:
        if gres.name == "gpu" and gres.count:
            found[gres.type] += gres.count
    return found


def _partition(
    kind: str,
    partitions: Collection[Partition],
    having: Collection[Node],
    nodes: Collection[Node],
) -> str | None:
    """The partition that has the fewest other nodes; None for the one that Slurm takes anyway."""
    there = [p for p in partitions if p.available and any(p.name in n.partitions for n in having)]

    def others(partition: Partition) -> tuple[int, int]:
        own = [node for node in nodes if partition.name in node.partitions]
        return sum(not _gpus(node)[kind] for node in own), -len(own)

    best = min(there, key=others)
    return None if best.default else best.name


def _size(mib: int) -> str | None:
    """Whole GiB as an option says it; None for less than one."""
    return f"{mib // _GIB}G" if mib >= _GIB else None
