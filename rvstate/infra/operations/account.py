"""One operation for each kind of resource on an account.

Each compares with the same pure function as `rvstate converge` and sends at most one script, which
checks once more under its own lock.  Under our command the look is handed over; under the plain
`pyinfra` command each operation reads the fact itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyinfra import host
from pyinfra.api import OperationError, StringCommand, operation

from rvstate import diff, probe, steps
from rvstate.infra.facts.account import AccountFact
from rvstate.model.layout import Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Change
from rvstate.model.resources import DesiredState
from rvstate.script import Script
from rvstate.transport import remote_command


def send(script: Script) -> StringCommand:
    """A script as pyinfra's command: its text on standard input, never in an argument list."""
    # pyinfra ends the text with a line break of its own where it lacks one; ours has it
    return StringCommand(remote_command(len(script.text.encode())), _stdin=script.input)


def observe(desired: DesiredState, scratch: str, home: str) -> ObservedState:
    """The look, through pyinfra."""
    found: ObservedState | None = host.get_fact(
        AccountFact, scratch=scratch, home=home, asked=probe.questions(desired)
    )
    if found is None:
        raise OperationError("The look at the account got no answer; try `rvstate doctor`.")
    return found


def _kind(
    kind: str,
    desired: DesiredState,
    layout: Layout,
    observed: ObservedState | None,
    remove_originals: bool = False,
) -> Iterator[StringCommand]:
    mine = DesiredState(desired.of(kind))
    if observed is None:
        observed = observe(mine, layout.account.scratch, layout.account.home)
    plan = diff.plan(mine, observed, remove_originals=remove_originals)
    if plan.refusals:
        raise OperationError("; ".join(_sentence(change) for change in plan.refusals))
    if not plan.changes:
        host.noop(f"{kind}: {plan.unchanged} as declared")
        return
    ((_, changes),) = plan.by_kind()
    yield send(steps.script(kind, changes, layout, remove_originals=remove_originals))


def _sentence(change: Change) -> str:
    return f"{change.resource.name}: {change.reason} ({'; or '.join(change.ways_out)})"


@operation()  # type: ignore[untyped-decorator]
def directories(
    desired: DesiredState, layout: Layout, observed: ObservedState | None = None
) -> Any:
    """Make the account's directories and set their modes.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("directory", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def caches(
    desired: DesiredState,
    layout: Layout,
    observed: ObservedState | None = None,
    remove_originals: bool = False,
) -> Any:
    """Link caches to scratch, moving what is there.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    + remove_originals: remove what a migration set aside, once verified again
    """
    yield from _kind("cache", desired, layout, observed, remove_originals)


@operation()  # type: ignore[untyped-decorator]
def env_file(desired: DesiredState, layout: Layout, observed: ObservedState | None = None) -> Any:
    """Deliver the user's variables.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("env", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def scripts(desired: DesiredState, layout: Layout, observed: ObservedState | None = None) -> Any:
    """Install the scripts that jobs use.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("scripts", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def shell_blocks(
    desired: DesiredState, layout: Layout, observed: ObservedState | None = None
) -> Any:
    """Keep our block in the shell's start-up files.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("shell", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def tools(desired: DesiredState, layout: Layout, observed: ObservedState | None = None) -> Any:
    """Install the programs that are missing.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("tool", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def environments(
    desired: DesiredState, layout: Layout, observed: ObservedState | None = None
) -> Any:
    """Take environments out of use that lost files, so that they are built anew.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("environment", desired, layout, observed)


@operation()  # type: ignore[untyped-decorator]
def schedules(desired: DesiredState, layout: Layout, observed: ObservedState | None = None) -> Any:
    """Keep what runs keepalive day by day on the cluster.

    + desired: what should be so on the account
    + layout: the account's paths
    + observed: the look, if it was taken already
    """
    yield from _kind("schedule", desired, layout, observed)


BY_KIND = {
    "directory": directories,
    "cache": caches,
    "env": env_file,
    "scripts": scripts,
    "shell": shell_blocks,
    "tool": tools,
    "environment": environments,
    "schedule": schedules,
}
