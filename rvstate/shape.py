"""How many nodes a job has and how many GPUs each; pure."""

from __future__ import annotations

from dataclasses import dataclass

from rvstate.errors import ConfigError, RefusedError


@dataclass(frozen=True, slots=True)
class Shape:
    """Nodes, and GPUs on each.

    Args:
        nodes: Count.
        gpus: On each node; 0 for none.
        given: Whether the user named nodes or GPUs on a node, rather than the site's data.
    """

    nodes: int = 1
    gpus: int = 0
    given: bool = False

    @property
    def words(self) -> str:
        """`2 nodes of 4 GPUs`."""
        gpus = f" of {count(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{count(self.nodes, 'node')}{gpus}"


def count(number: int, what: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def alone(found: Shape) -> tuple[str, ...]:
    """What is said of a command that is started once, on one node."""
    return (f"{found.words}: the command is started once",) if found.gpus > 1 else ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one type of GPU allows: on a node, and to a job; None where nobody knows."""

    what: str
    per_node: int | None = None
    per_job: int | None = None


def shape(
    gpus: int | None,
    nodes: int | None,
    gpus_per_node: int | None,
    single_node: bool,
    limits: Limits,
) -> Shape:
    """The shape of a job; never more GPUs than were asked for, and never fewer.

    Args:
        gpus: All of the job's, or None where no count was named.
        nodes: As the user says, or None.
        gpus_per_node: As the user says, or None.
        single_node: Whether it must be one node.
        limits: Of the type of GPU.

    Raises:
        ConfigError: The counts contradict each other.
        RefusedError: The site has no such shape.
    """
    if single_node and (nodes or 1) > 1:
        raise ConfigError(
            f"--single-node and --nodes {nodes} contradict each other.", "Leave one of them out."
        )
    if single_node:
        nodes = 1
    if gpus_per_node is not None:
        found = _from_node(gpus, nodes, gpus_per_node)
    elif nodes is not None:
        found = nodes, _divided(gpus or 0, nodes)
    else:
        found = _from_total(gpus or 0, limits)
    _check(Shape(*found), limits)
    return Shape(*found)


def _from_node(gpus: int | None, nodes: int | None, each: int) -> tuple[int, int]:
    if gpus is None:
        return nodes or 1, each
    if gpus % each or (nodes is not None and nodes * each != gpus):
        on = f" on {nodes} nodes" if nodes is not None else ""
        raise ConfigError(
            f"{gpus} GPUs are not {each} on each node{on}.",
            f"Leave -g out, or ask for -g {(nodes or max(1, gpus // each)) * each}.",
        )
    return gpus // each, each


def _divided(gpus: int, nodes: int) -> int:
    if gpus % nodes:
        raise ConfigError(
            f"{gpus} GPUs cannot be shared evenly by {nodes} nodes.",
            f"Ask for -g {gpus // nodes * nodes or nodes} or -g {(gpus // nodes + 1) * nodes}.",
        )
    return gpus // nodes


def _from_total(gpus: int, limits: Limits) -> tuple[int, int]:
    """One node where they fit; else the fewest nodes that share them evenly."""
    most = limits.per_node
    if most is None or gpus <= most:
        return 1, gpus
    fewest = -(-gpus // most)
    # one node more than needed is accepted, a scattered job is not
    for nodes in (fewest, fewest + 1):
        if gpus % nodes == 0:
            return nodes, gpus // nodes
    raise RefusedError(
        f"{gpus} of {limits.what} cannot be shared evenly by {fewest} or {fewest + 1} nodes of at "
        f"most {most}.",
        f"Ask for -g {(fewest - 1) * most} or -g {fewest * most}, or name --nodes.",
    )


def _check(found: Shape, limits: Limits) -> None:
    if limits.per_node is not None and found.gpus > limits.per_node:
        raise RefusedError(
            f"{found.gpus} of {limits.what} do not fit one node, which has {limits.per_node} of "
            "them.",
            f"Ask for at most {limits.per_node} on a node.",
        )
    total = found.nodes * found.gpus
    if limits.per_job is not None and total > limits.per_job:
        raise RefusedError(
            f"{total} of {limits.what} are more than a job is given: at most {limits.per_job}.",
            f"Ask for at most {limits.per_job}, or for another type of GPU.",
        )
