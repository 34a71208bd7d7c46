"""The operations of a run: code travels, the environment is built, the job is submitted last."""

from __future__ import annotations

from typing import Any

from pyinfra import host
from pyinfra.api import operation

from rvstate.infra.operations.account import send
from rvstate.script import Script


@operation(is_idempotent=False)  # type: ignore[untyped-decorator]
def workspace(script: Script | None) -> Any:
    """Bring the workspace's code to the state of the tree.

    + script: what sends the difference, or None where there is none
    """
    if script is None:
        host.noop("workspace: the code is there already")
        return
    yield send(script)


@operation(is_idempotent=False)  # type: ignore[untyped-decorator]
def commits(script: Script) -> Any:
    """Bring what a run of DVC needs: its commit, and where nodes reach no remote its data.

    + script: what brings it
    """
    yield send(script)


@operation(is_idempotent=False)  # type: ignore[untyped-decorator]
def environment(script: Script | None) -> Any:
    """Build the project's environment.

    + script: what builds it, or None where it is there
    """
    if script is None:
        host.noop("environment: it is built already")
        return
    yield send(script)


@operation(is_idempotent=False)  # type: ignore[untyped-decorator]
def submit(script: Script) -> Any:
    """Take the snapshot and submit the job.

    The script records what it did under the run's own directory, so running it again for the same
    run finds the job instead of submitting a second one.

    + script: what submits
    """
    yield send(script)
