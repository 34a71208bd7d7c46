"""Into a running job: a shell, one command, or an ssh client of the user's choice."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rvstate import sshconfig
from rvstate.errors import ConfigError, RvstateError, UnsupportedError
from rvstate.model.job import RunRecord
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.script import Script
from rvstate.shell import join
from rvstate.slurm.states import JobState
from rvstate.state import write_private
from rvstate.transport import Ssh
from rvstate.transport.keys import own_key
from rvstate.workflows import jobs
from rvstate.workflows.execute import show, standard_input, users_own
from rvstate.workflows.session import Session

_SYMBOLIC = Layout(SYMBOLIC)


@dataclass(frozen=True, slots=True)
class Place:
    """A node of a running job; `node` is empty where jobs run on this machine."""

    run: RunRecord
    node: str


@dataclass(frozen=True, slots=True)
class Door:
    """What an ssh client needs to be let into a job.

    Args:
        alias: How the host is called.
        options: Keywords of ssh_config(5) and their values.
    """

    alias: str
    options: tuple[tuple[str, str], ...]

    @property
    def block(self) -> str:
        """As text for an ssh configuration."""
        return sshconfig.block(self.alias, dict(self.options))

    def argv(self, *words: str) -> tuple[str, ...]:
        """An ssh command line into the job that reads nobody's configuration."""
        given = (word for pair in self.options for word in ("-o", sshconfig.option(*pair)))
        return ("ssh", "-F", os.devnull, *given, *words, self.alias)


def find(session: Session, wanted: str | None, node: str | None) -> Place:
    """The node of the running job that is meant.

    Args:
        session: Which account.
        wanted: A job id, run id or name; None for the newest run that runs.
        node: The node's name or its number in the job, from 0; None for the first.

    Raises:
        ConfigError: No such run, it does not run, or it has no such node.
    """
    records = jobs.runs(session)
    if wanted is None:
        record = next((r for r in records if r.state is JobState.RUNNING), None)
        if record is None:
            raise ConfigError("None of your runs is running.", "See `rvstate ps`.")
    else:
        record = jobs.find(records, wanted)
    if record.state is not JobState.RUNNING or record.job is None:
        reason = f" ({record.reason})" if record.reason else ""
        raise ConfigError(
            f"Run {record.name} ({record.job or record.run_id}) is {record.state.value}{reason}; "
            "only a running one can be entered.",
            "See `rvstate ps`.",
        )
    return Place(record, _node(record, node))


def _node(record: RunRecord, wanted: str | None) -> str:
    if wanted is None:
        return record.nodes[0] if record.nodes else ""
    if wanted in record.nodes:
        return wanted
    if wanted.isdigit() and int(wanted) < len(record.nodes):
        return record.nodes[int(wanted)]
    known = ", ".join(f"{n} ({name})" for n, name in enumerate(record.nodes)) or "none by name"
    raise ConfigError(f"Job {record.job} has no node {wanted!r}.", f"It has: {known}.")


def _script(session: Session, place: Place, mode: str, about: str) -> Script:
    run = _SYMBOLIC.run(place.run.run_id)
    job, scheduler = place.run.job or "", session.config.site.scheduler
    fixed = (session.scratch, session.home, run, job, place.node, scheduler)
    return Script("enter", (*fixed, mode, about))


def shell(session: Session, place: Place) -> int:
    """A shell in the job for the person at the terminal; its exit status."""
    term = os.environ.get("TERM", "dumb")
    with users_own():
        return session.transport.terminal(_script(session, place, "shell", term))


def command(
    session: Session, place: Place, text: str, sink: Callable[[bytes], object] = show
) -> int:
    """One line of shell in the job; its input and output are ours, and so is its exit status.

    Raises:
        ConfigError: There is no command.
    """
    if not text.strip():
        raise ConfigError(
            "There is no command to run.", "For example: rvstate ssh --run nvidia-smi"
        )
    source = standard_input() if sink is show else None
    with users_own():
        return session.transport.stream(_script(session, place, "line", text), source, sink)


def door(session: Session, place: Place) -> Door:
    """Have an ssh client let in: keys are made and exchanged with one remote command.

    Raises:
        UnsupportedError: Jobs run on this machine.
        RvstateError: The run cannot be entered.
    """
    check(session)
    folder = session.state.root / "ssh"
    key, public = own_key(folder)
    run = _SYMBOLIC.run(place.run.run_id)
    answer = session.transport.run(Script("door", (session.scratch, session.home, run, public)))
    if answer.status != 0:
        said = [x.removeprefix("rvstate: ") for x in answer.errors.splitlines() if x.strip()]
        raise RvstateError(
            f"Job {place.run.job} cannot be entered: {said[-1] if said else 'no reason given'}.",
            "See `rvstate doctor`.",
        )
    parts = ("library", "user", "run", "keys", "host")
    library, user, run_there, keys, host = (answer.first(p).decode().strip() for p in parts)
    name = f"rvstate-{place.run.run_id[-8:]}"
    known = folder / f"known-{place.run.run_id}"
    write_private(known, f"{name} {' '.join(host.split()[:2])}\n")
    words = ("sh", f"{library}/into.sh", place.run.job or "", place.node, run_there, keys)
    there = f"exec {join(words)}"
    way = (
        shlex.join(session.transport.guest(there)) if isinstance(session.transport, Ssh) else there
    )
    nodes = place.run.nodes
    # blocks for two nodes of a job may stand in one file
    which = f"-{nodes.index(place.node)}" if place.node in nodes[1:] else ""
    return Door(
        f"rv-{place.run.job}{which}",
        (
            ("HostName", place.node),
            ("User", user),
            ("HostKeyAlias", name),
            ("UserKnownHostsFile", _escaped(known)),
            ("StrictHostKeyChecking", "yes"),
            ("IdentityFile", _escaped(key)),
            ("IdentitiesOnly", "yes"),
            ("ControlMaster", "no"),
            ("ControlPath", "none"),
            ("ServerAliveInterval", "15"),
            ("ServerAliveCountMax", "4"),
            ("ProxyCommand", way.replace("%", "%%")),
        ),
    )


def check(session: Session) -> None:
    """Refuse where jobs run on this machine.

    Raises:
        UnsupportedError: They do.
    """
    if session.config.site.scheduler == "process":
        raise UnsupportedError(
            "Jobs of site local run on this machine, so there is nowhere to connect to.",
            "Open what they serve directly, for example http://127.0.0.1:8888.",
        )


def _escaped(path: Path) -> str:
    """A path in which ssh expands nothing (ssh_config(5), TOKENS)."""
    return str(path).replace("%", "%%")
