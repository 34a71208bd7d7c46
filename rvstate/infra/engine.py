"""Drives pyinfra: connect, prepare, execute, and its results as plain values."""

from __future__ import annotations

# First of all, as in pyinfra's own command: gevent must be there before sockets and subprocesses.
from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

from pyinfra.api import Config, Inventory, State  # noqa: E402
from pyinfra.api.connect import connect_all, disconnect_all  # noqa: E402
from pyinfra.api.exceptions import PyinfraError  # noqa: E402
from pyinfra.api.operation import add_op  # noqa: E402
from pyinfra.api.operations import run_ops  # noqa: E402
from pyinfra.api.state import BaseStateCallback  # noqa: E402

from rvstate import steps  # noqa: E402
from rvstate.errors import RvstateError  # noqa: E402
from rvstate.infra.operations import account as operations  # noqa: E402
from rvstate.model.layout import Layout  # noqa: E402
from rvstate.model.observed import ObservedState  # noqa: E402
from rvstate.model.plan import Change, Plan  # noqa: E402
from rvstate.model.resources import DesiredState  # noqa: E402
from rvstate.script import read_any  # noqa: E402
from rvstate.steps import Result  # noqa: E402
from rvstate.transport import LOCAL, Local, Ssh, Transport  # noqa: E402

# Our command prints its own report; pyinfra's lines would say everything twice.
logging.getLogger("pyinfra").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done to one account."""

    transport: Transport
    layout: Layout
    desired: DesiredState
    observed: ObservedState
    plan: Plan
    remove_originals: bool = False


def host_name(transport: Transport) -> str:
    """The name that pyinfra knows the account by."""
    return LOCAL if isinstance(transport, Local) else f"@openssh/{transport.name}"


def host_data(transport: Transport) -> dict[str, Any]:
    """The data that the connector reads."""
    if isinstance(transport, Ssh):
        return {
            "openssh_user": transport.user or "",
            "openssh_config": transport.config or "",
            "rvstate_transport": transport,
        }
    return {}


class _Progress(BaseStateCallback):  # type: ignore[misc] # pyinfra is untyped here
    """Tells which operation begins."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def operation_start(self, state: Any, op_hash: str) -> None:
        """Pass the operation's name on."""
        self._tell(", ".join(state.get_op_meta(op_hash).names))


def apply(job: Job, tell: Callable[[str], None]) -> tuple[Result, ...]:
    """Make the plan's changes, kind by kind; stops at the first kind that fails.

    Args:
        job: The account and its plan, which must be one that may be applied.
        tell: Told the name of each operation as it begins.

    Returns:
        One result for each change, in the order of the plan's kinds.

    Raises:
        RvstateError: The connection failed before or between operations.
    """
    data = host_data(job.transport)
    inventory = Inventory(([(host_name(job.transport), data)], {}))
    state = State(inventory, Config())
    state.add_callback_handler(_Progress(tell))
    (host,) = list(inventory)
    if "rvstate_transport" in data:
        host.connector_data["rvstate_transport"] = data["rvstate_transport"]
    connect_all(state)
    metas: list[tuple[str, tuple[Change, ...], Any]] = []
    for kind, changes in job.plan.by_kind():
        if kind not in operations.BY_KIND:
            continue
        extra = {"remove_originals": job.remove_originals} if kind == "cache" else {}
        made = add_op(
            state,
            operations.BY_KIND[kind],
            name=kind,
            desired=DesiredState(tuple(c.resource for c in changes)),
            layout=job.layout,
            observed=job.observed,
            **extra,
        )
        metas.append((kind, changes, made[host]))
    trouble = _run(state)
    if isinstance(job.transport, Local):
        job.transport.commands += sum(meta.is_complete() for _, _, meta in metas)
    if trouble is not None:
        raise trouble
    return tuple(result for kind, changes, meta in metas for result in _results(kind, changes, meta))


def _run(state: Any) -> RvstateError | None:
    try:
        run_ops(state)
    except RvstateError as error:
        return error
    except PyinfraError:
        # "No hosts remaining!": what went wrong is in the operation's own output (finding F9)
        return None
    finally:
        disconnect_all(state)
    return None


def _results(kind: str, changes: tuple[Change, ...], meta: Any) -> tuple[Result, ...]:
    if not meta.is_complete():
        return tuple(Result(c, "not tried, because an earlier step failed") for c in changes)
    answer = read_any(("\n".join(meta.stdout_lines) + "\n").encode("utf-8", "surrogateescape"))
    output = answer.body.decode("utf-8", "replace") if answer else ""
    return steps.results(kind, changes, output, "\n".join(meta.stderr_lines))
