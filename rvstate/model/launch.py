"""How the command of a job is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """How the command is started.

    Args:
        start: `once`, `node` or `rank`; empty for a job of one node, where nothing is special.
        nodes: Count.
        ranks: Programs that share a node.
        notices: What the user should know before it is submitted.
        fronted: Whether the launcher reads no variables, so that a program of rvstate must stand
            in front of it.
    """

    start: str = ""
    nodes: int = 1
    ranks: int = 1
    notices: tuple[str, ...] = ()
    fronted: bool = False
