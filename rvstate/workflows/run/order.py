"""What the user asked for, and how a receipt tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rvstate.errors import (
    ConfigError,
)
from rvstate.request import Request

if TYPE_CHECKING:
    # loaded only for a run of DVC
    from rvstate.model.experiment import Asked


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Args:
        words: The command as typed.
        request: The resources.
        name: The job's name, or None for one from the command.
        keep: Paths to keep at the end (`-o`).
        directory: Where the user stands, on this machine.
        writable: Whether the whole snapshot is the job's own.
        require: `clean`, `pushed` or empty: what the commit must be.
        run_id: The run to take up again, or empty for a new one.
        environment: Over the settings: a kind, a path of an environment that is there, or empty.
        start: How it is started on several nodes: `once`, `node`, `rank`; None as its launcher
            means it.
        after: Runs to follow, as `--after` names them.
        held: Instead of a command the allocation is held for people: `end` when the last shell was
            left, or `keep` until its time is over; empty for a command.
        code: Whether the workspace itself is worked in, and not a snapshot.
        array: Which elements, as `--array` names them; empty for one job, or all of a sweep.
        sweep: Parameters, as `--sweep` names them.
        total_time: How long it goes on in all, in segments; empty for one job.
        signal: What warns a segment of its end, as `--signal` names it.
        retries: How many failures do not end it, or None.
        dvc: What is asked for of a run of DVC; None for any other command.
    """

    words: tuple[str, ...]
    request: Request
    name: str | None
    keep: tuple[str, ...]
    directory: Path
    writable: bool = False
    require: str = ""
    run_id: str = ""
    environment: str = ""
    start: str | None = None
    after: tuple[str, ...] = ()
    held: str = ""
    code: bool = False
    array: str = ""
    sweep: tuple[str, ...] = ()
    total_time: str = ""
    signal: str = ""
    retries: int | None = None
    dvc: Asked | None = None


def ordered(found: dict[str, Any], directory: Path, run_id: str = "") -> Order:
    """The order that a receipt tells of.

    Args:
        found: A receipt.
        directory: The project's root on this machine.
        run_id: As in `Order`.

    Raises:
        ConfigError: The receipt is of an earlier version, which kept no order.
    """
    order = found.get("order")
    if not isinstance(order, dict):
        raise ConfigError(
            f"The receipt of run {found.get('run_id')} does not say what was asked for.",
            "Type the command again.",
        )
    asked = dict(order["request"])
    asked["raw"] = tuple((key, value) for key, value in asked.get("raw", ()))
    return Order(
        words=tuple(order["words"]),
        request=Request(**asked),
        name=order["name"],
        keep=tuple(order["keep"]),
        directory=directory / order["subdirectory"],
        writable=bool(order["writable"]),
        run_id=run_id,
        environment=str(order.get("environment", "")),
        start=order.get("start"),
        after=tuple(order.get("after", ())),
        held=str(order.get("held", "")),
        code=bool(order.get("code")),
        array=str(order.get("array", "")),
        sweep=tuple(order.get("sweep", ())),
        total_time=str(order.get("total_time", "")),
        signal=str(order.get("signal", "")),
        retries=order.get("retries"),
        dvc=_asked(order["dvc"]) if order.get("dvc") else None,
    )


def _asked(found: dict[str, Any]) -> Asked:
    from rvstate.model.experiment import Asked, Waiting

    queued = (Waiting(name, b, f, tuple(words)) for name, b, f, words in found.get("queued", ()))
    return Asked(**{**found, "queued": tuple(queued)})
