"""The schedule of keepalive: what is wanted, and this machine's part of it; no pyinfra."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from rvstate import config as config_door
from rvstate import diff, keepalive, probe, schedule, steps, timers
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change, Plan
from rvstate.model.resources import DesiredState, Schedule
from rvstate.schedule import HERE, Option, Plain
from rvstate.script import Script
from rvstate.transport import LOCAL
from rvstate.workflows import keepalive as runs
from rvstate.workflows import verify
from rvstate.workflows.session import Session

_USUAL_HOME = Path("~/.rv").expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted, with what this machine has of it.

    Args:
        wanted: `auto`, a kind, or empty for none.
        options: Every kind, with what is known of this machine's.
        plain: What the schedule is made of.
        said: What this machine says of its own kinds.
        asks: The kinds on the cluster that the look asks about.
    """

    wanted: str
    options: tuple[Option, ...]
    plain: Plain
    said: dict[str, str]
    asks: tuple[str, ...]

    def question(self, path: str) -> Schedule:
        """What the look asks, before the account is known."""
        return Schedule(path=path, asks=self.asks, program="any" if self.asks else "")

    def known(self, observed: ObservedState) -> tuple[Option, ...]:
        """The options with what the look found on the cluster."""
        return schedule.lacking(self.options, schedule.lacks(observed.schedules[0]))

    def resources(self, path: str, observed: ObservedState) -> tuple[Schedule, ...]:
        """What should be on the cluster, and what on this machine."""
        how, refusal = schedule.choose(self.wanted, self.known(observed))
        if how in HERE:
            there = Schedule(path=path, asks=self.asks)
            return there, schedule.resource(how, refusal, self.plain, path, ())
        there = schedule.resource(how, refusal, self.plain, path, self.asks)
        return there, Schedule(here=True, account=self.plain.account)


def wanted(session: Session) -> str:
    """The kind that the settings name, or `auto`; empty where there is nothing to run."""
    config = session.config
    return "" if idle(session) else config.settings.scratch_keepalive.scheduled(config.site.purge)


def idle(session: Session) -> str:
    """Why there is nothing to run, whatever is scheduled; empty where there is."""
    policy = runs.policy(session)
    if policy.refusal or policy.mode == "off":
        return policy.refusal or policy.note
    if policy.mode != "heal" and not policy.measurable:
        return "the site profile names no limit and clock"
    return ""


def intend(session: Session, *, everything: bool = False) -> Intent:
    """What is wanted; looks at this machine, and at no other.

    Args:
        session: Which account.
        everything: Whether each kind is looked at, and not only those that may be taken.
    """
    name = wanted(session)
    plain = _plain(session)
    alone = session.config.host == LOCAL
    options = schedule.options(session.config.site, alone=alone)
    record = session.state.schedule(session.label)
    kinds = {name, *record.split()[:1]}
    if name == "auto" or everything:
        kinds |= {option.how for option in options if option.policy == "allowed"}
    said = timers.look(schedule.unit_name(plain.account), [k for k in HERE if k in kinds])
    if record:
        said["record"] = record
    options = schedule.lacking(options, schedule.lacks(said))
    return Intent(name, options, plain, said, _asks(name, options, everything=everything))


def _asks(name: str, options: tuple[Option, ...], *, everything: bool) -> tuple[str, ...]:
    there = [option for option in options if option.how not in HERE]
    if everything:
        return tuple(o.how for o in there if o.policy != "forbidden")
    if name != "auto":
        return tuple(o.how for o in there if o.how == name and o.policy != "forbidden")
    # what this machine can comes first, but for its last resort
    if any(o.automatic for o in options if o.how in HERE and o.how != "first-command"):
        return ()
    return tuple(o.how for o in there if o.policy == "allowed")


def _plain(session: Session) -> Plain:
    config = session.config
    settings, site = config.settings, config.site
    variables = {}
    if session.state.root != _USUAL_HOME:
        variables["RVSTATE_HOME"] = str(session.state.root)
    if os.environ.get("RVSTATE_CONFIG"):
        variables["RVSTATE_CONFIG"] = str(config_door.config_path())
    pays = settings.defaults.account or site.defaults.account
    return Plain(
        _account(session),
        command(session),
        variables,
        str(log(session)),
        _script(session),
        (f"--account={pays}",) if pays else (),
        settings.scratch_keepalive.time or "",
    )


def _account(session: Session) -> str:
    """How this machine's tables name the account: another state directory is another one."""
    root = session.state.root
    return session.label if root == _USUAL_HOME else f"{session.label} ({root})"


def command(session: Session) -> tuple[str, ...]:
    """The command line of a scheduled run from this machine."""
    config = session.config
    words = [sys.executable, "-m", "rvstate", "keepalive", "run", "--scheduled"]
    if config.cluster:
        words += ["--cluster", config.cluster]
    given = {key for key, layer in config.sources if layer == "options"}
    for key, text in (("host", config.host), ("site", config.site.name)):
        if f"connection.{key}" in given:
            words += [f"--{key}", text]
    return tuple(words)


def log(session: Session) -> Path:
    """What the last scheduled run from this machine said."""
    return session.state.root / "state" / f"{schedule.unit_name(_account(session))}.log"


def _script(session: Session) -> Script:
    found = runs.policy(session)
    if found.mode == "heal":
        return verify.script(session)
    if not found.measurable:
        # nothing will be run: the settings want nothing
        return keepalive.script(())
    return runs.script(session, "touch" if found.mode == "touch" else "count", found)


@dataclass(frozen=True, slots=True)
class Choice:
    """Every kind of schedule, which is wanted, and what is there.

    Args:
        wanted: What the settings say; empty for nothing.
        idle: Why there is nothing to run, whatever is scheduled; empty where there is.
        taken: The kind that is to run; for nothing wanted, what `auto` would take.
        refusal: Why that may not be.
        options: Every kind.
        schedules: What each would be.
        there: What the cluster has: kind, node and time.
        here: What this machine has.
        plan: What converge would change.
    """

    wanted: str
    idle: str
    taken: str
    refusal: str
    options: tuple[Option, ...]
    schedules: tuple[Schedule, ...]
    there: tuple[str, str, str]
    here: tuple[str, str, str]
    plan: Plan


def choices(session: Session) -> Choice:
    """Look at every kind, with one remote command.

    Raises:
        ProbeError: The account could not be looked at.
    """
    intent = intend(session, everything=True)
    asked = probe.questions(DesiredState((intent.question(Layout(SYMBOLIC).schedule),)))
    answer = session.transport.run(probe.script(session.scratch, session.home, asked))
    observed = probe.read(answer, asked)
    observed.schedules[1].update(intent.said)
    path = Layout(observed.account).schedule
    known = intent.known(observed)
    taken, refusal = schedule.choose(intent.wanted or "auto", known)
    return Choice(
        intent.wanted,
        idle(session),
        taken,
        refusal,
        known,
        tuple(schedule.resource(o.how, "", intent.plain, path, ()) for o in known),
        schedule.record(observed.schedules[0]),
        schedule.record(observed.schedules[1]),
        diff.plan(DesiredState(intent.resources(path, observed)), observed),
    )


def stop_chain(session: Session) -> tuple[str, ...]:
    """End the chain of jobs, and leave its schedule declared.

    Returns:
        The jobs that were there.

    Raises:
        ConfigError: No chain was put there.
        RvstateError: The scheduler did not do it.
    """
    path = Layout(SYMBOLIC).schedule
    asked = probe.questions(DesiredState((Schedule(path=path, asks=("sbatch-chain",)),)))
    answer = session.transport.run(probe.script(session.scratch, session.home, asked))
    observed = probe.read(answer, asked)
    said = observed.schedules[0]
    if schedule.record(said)[0] != "sbatch-chain":
        raise ConfigError(
            "No chain of keepalive's jobs is on this account.", "See `rvstate keepalive schedule`."
        )
    layout = Layout(observed.account)
    kept = Schedule("sbatch-chain", path=layout.schedule)
    change = Change(kept, Action.REMOVE, "", detail=("remove", "sbatch-chain", "", ""))
    done = session.transport.run(steps.script(Schedule.kind, (change,), layout))
    output = done.body.decode("utf-8", "replace")
    (result,) = steps.results(Schedule.kind, (change,), output, done.errors)
    if result.error:
        raise RvstateError(f"The chain was not ended: {result.error}.", "Try again.")
    return schedule.waiting(said)


def apply(session: Session, change: Change) -> None:
    """Make a change of this machine's part.

    Raises:
        RvstateError: It was not made; what was there is still there.
    """
    wanted = change.resource
    assert isinstance(wanted, Schedule)
    name = schedule.unit_name(wanted.account)
    words = change.detail
    for at in range(0, len(words), 4):
        verb, kind, expected, text = words[at : at + 4]
        if verb == "install":
            record = f"{wanted.how} {platform.node()} {wanted.time or '-'}"
            session.state.keep_schedule(session.label, record)
        timers.apply(name, verb, kind, expected, text)
    if not wanted.how:
        session.state.keep_schedule(session.label, "")
