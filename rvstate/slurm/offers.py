"""What partitions give a job, in words, for a request that none of them can fulfil."""

from __future__ import annotations

import re
from collections.abc import Collection

from rvstate.slurm import duration
from rvstate.slurm.sinfo import Node, Partition

# slurm_strerror() of what no waiting would help; an account that may not use a partition is another
# matter ("Invalid account or account/partition combination specified").
_IMPOSSIBLE = re.compile(
    r"Requested node configuration is not available|nvalid partition (?:name )?specified"
    r"|More processors requested than permitted|Memory specification can not be satisfied"
    r"|Requested time limit is invalid|Node count specification invalid"
)


def is_impossible(said: str) -> bool:
    """Whether sbatch says that nothing at the site fits the request."""
    return _IMPOSSIBLE.search(said) is not None


def in_words(partitions: Collection[Partition], nodes: Collection[Node], wanted: str) -> str:
    """What the wanted partitions offer; which there are, where one of them is not.

    Args:
        partitions: Those of the site.
        nodes: Those of the site.
        wanted: A name, several with commas, or empty for the default one.

    Returns:
        A sentence or two; nothing where the site says nothing.
    """
    known = {partition.name: partition for partition in partitions}
    names = wanted.split(",") if wanted else [p.name for p in partitions if p.default]
    unknown = [name for name in names if name not in known]
    if unknown and known:
        import difflib

        near = difflib.get_close_matches(unknown[0], known, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        return f"{meant}The site's partitions are {', '.join(sorted(known))}."
    return " ".join(_offer(known[name], nodes) for name in names if name in known)


def _offer(partition: Partition, nodes: Collection[Node]) -> str:
    own = [node for node in nodes if partition.name in node.partitions]
    parts = [f"up to {len(own)} nodes"]
    if own:
        parts.append(f"{max(node.cpus for node in own)} CPUs")
        parts.append(f"{max(node.memory for node in own) // 1024}G of memory")
    most: dict[str, int] = {}
    for node in own:
        for gres in node.gres:
            name = f"{gres.name} {gres.type}".strip()
            most[name] = max(most.get(name, 0), gres.count)
    parts += [f"{count} {name}" for name, count in sorted(most.items()) if name.startswith("gpu")]
    limit = partition.time_limit
    time = "without a limit" if limit is None else f"for at most {duration.render(limit)}"
    return f"{partition.name} offers {parts[0]}, each with at most {', '.join(parts[1:])}, {time}."
