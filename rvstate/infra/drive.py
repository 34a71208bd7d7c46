"""Drives pyinfra for one account: connect, prepare, execute, and the results as plain values."""

from __future__ import annotations

# First of all, as in pyinfra's own command: gevent must be there before sockets and subprocesses.
from gevent import events, monkey

# For each module that it patches gevent looks through all that is installed for plugins of its own,
# which takes longer than the patching; in this process there are none.
_ASKS = events.notify_and_call_entry_points
events.notify_and_call_entry_points = events.notify
# nothing here speaks TLS, and ssl takes as long to load as the rest of it
monkey.patch_all(ssl=False)
events.notify_and_call_entry_points = _ASKS

import logging  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from typing import Any, Self  # noqa: E402

from gevent.hub import Hub  # noqa: E402

# pyinfra loads paramiko for the name of one error, and paramiko loads invoke, which it can do
# without: only `Match exec` in a file that paramiko reads needs it, and our connections are
# OpenSSH's.
_WITHOUT = "invoke" not in sys.modules
if _WITHOUT:
    sys.modules["invoke"] = None  # type: ignore[assignment]

from pyinfra.api import Config, Inventory, State  # noqa: E402
from pyinfra.api.connect import connect_all, disconnect_all  # noqa: E402
from pyinfra.api.exceptions import PyinfraError  # noqa: E402
from pyinfra.api.operation import add_op  # noqa: E402
from pyinfra.api.operations import run_ops  # noqa: E402
from pyinfra.api.state import BaseStateCallback  # noqa: E402

if _WITHOUT:
    del sys.modules["invoke"]

from rvstate.errors import RvstateError  # noqa: E402
from rvstate.infra.connector import ERROR, OURS  # noqa: E402
from rvstate.script import Answer, read_any  # noqa: E402
from rvstate.transport import Local, Transport  # noqa: E402

# Ctrl-C is told in our own words.
Hub.NOT_ERROR = (*Hub.NOT_ERROR, KeyboardInterrupt)
# Our command prints its own report; pyinfra's lines would say everything twice.
logging.getLogger("pyinfra").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation to run.

    Args:
        name: What is being done, in a few words, for people.
        operation: A pyinfra operation.
        arguments: Its arguments.
    """

    name: str
    operation: Any
    arguments: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one step.

    Args:
        ran: Whether it was reached at all.
        succeeded: Whether every command of it succeeded.
        answer: The answer of its script; None where none was sent or it never began.
        errors: Standard error, for people.
        error: The trouble with the connection that ended this account's steps.
    """

    ran: bool
    succeeded: bool
    answer: Answer | None
    errors: str
    error: RvstateError | None = None


class _CtrlC:
    """Remembers Ctrl-C, which Python drops where a finaliser or a callback happens to run."""

    def __init__(self) -> None:
        self._seen = False
        self._before: Any = None

    def __enter__(self) -> Self:
        # who began us in the background may have had it ignored; so it stays
        heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        if heard and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: object) -> None:
        self._seen = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise it where it was dropped."""
        if self._seen:
            raise KeyboardInterrupt


class _Progress(BaseStateCallback):  # type: ignore[misc] # pyinfra is untyped here
    """Tells which operation begins, and lets none begin after Ctrl-C."""

    def __init__(self, tell: Callable[[str], None], ctrl_c: _CtrlC) -> None:
        self._tell = tell
        self._ctrl_c = ctrl_c

    def operation_start(self, state: Any, op_hash: str) -> None:
        """Pass the operation's name on."""
        self._ctrl_c.check()
        self._tell(", ".join(state.get_op_meta(op_hash).names))


@dataclass(frozen=True, slots=True)
class Work:
    """The steps for one account, in order."""

    transport: Transport
    steps: tuple[Step, ...]


def run(
    transport: Transport, steps: tuple[Step, ...], tell: Callable[[str], None]
) -> tuple[Report, ...]:
    """Run the steps on one account in order; the first that fails is the last.

    Args:
        transport: The way to the account; its connection is the one that pyinfra uses.
        steps: The operations.
        tell: Told the name of each step as it begins.

    Raises:
        RvstateError: An operation refused before it changed anything.
    """
    (reports,) = run_all((Work(transport, steps),), tell)
    for report in reports:
        if report.error is not None:
            raise report.error
    return reports


def run_all(works: tuple[Work, ...], tell: Callable[[str], None]) -> tuple[tuple[Report, ...], ...]:
    """Run each account's steps, accounts side by side; an account that fails stops alone.

    Returns:
        The reports of each account, in the order of `works`.

    Raises:
        RvstateError: As `run`.
    """
    with _CtrlC() as ctrl_c:
        return _run_all(works, tell, ctrl_c)


def _run_all(
    works: tuple[Work, ...], tell: Callable[[str], None], ctrl_c: _CtrlC
) -> tuple[tuple[Report, ...], ...]:
    names = [_host_name(number, work.transport) for number, work in enumerate(works)]
    inventory = Inventory(([(name, {}) for name in names], {}))
    state = State(inventory, Config())
    state.add_callback_handler(_Progress(tell, ctrl_c))
    hosts = [inventory.get_host(name) for name in names]
    ways = [_way(work.transport) for work in works]
    for host, way in zip(hosts, ways, strict=True):
        host.connector_data[OURS] = way
    connect_all(state)
    metas = [
        [
            add_op(state, step.operation, name=step.name, host=[host], **step.arguments)[host]
            for step in work.steps
        ]
        for host, work in zip(hosts, works, strict=True)
    ]
    try:
        # step by step, each for all accounts at once
        run_ops(state)
    except PyinfraError:
        # "No hosts remaining!": what went wrong is in the operations' own output (finding F9)
        tell("a step failed")
    except BaseException:
        # Ctrl-C: what still writes to an account ends first, for all below waits for it
        state.pool.kill()
        raise
    finally:
        disconnect_all(state)
    for work, way in zip(works, ways, strict=True):
        if way is not work.transport:
            work.transport.commands += way.commands
    return tuple(
        tuple(_report(meta, host.connector_data.get(ERROR)) for meta in done)
        for host, done in zip(hosts, metas, strict=True)
    )


def _way(transport: Transport) -> Transport:
    # as with pyinfra's own connector: jobs of this machine have their user's home and PATH
    return transport.as_it_is() if isinstance(transport, Local) else transport


def _host_name(number: int, transport: Transport) -> str:
    # two users of one login node are two accounts, and pyinfra wants their names to differ; this
    # machine, too, is reached by our own transport, so that Ctrl-C means the same here and there
    return f"@openssh/{number}:{transport.name}"


def _report(meta: Any, trouble: RvstateError | None) -> Report:
    if not meta.is_complete():
        return Report(False, False, None, "")
    succeeded = meta.did_succeed()
    errors = "\n".join(meta.stderr_lines)
    if not succeeded and trouble is not None:
        return Report(True, False, None, errors, trouble)
    output = "\n".join(meta.stdout_lines) + "\n"
    answer = read_any(output.encode("utf-8", "surrogateescape"))
    return Report(True, succeeded, answer, errors)
