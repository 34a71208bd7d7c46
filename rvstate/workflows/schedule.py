"""The schedule of keepalive: what is wanted, and this machine's part of it; no pyinfra."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from rvstate import config as config_door
from rvstate import keepalive, schedule, timers
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Change
from rvstate.model.resources import Schedule
from rvstate.schedule import HERE, Option, Plain
from rvstate.script import Script
from rvstate.transport import LOCAL
from rvstate.workflows import keepalive as runs
from rvstate.workflows import verify
from rvstate.workflows.session import Session


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
        there = schedule.resource("" if how in HERE else how, refusal, self.plain, path, self.asks)
        if how in HERE:
            return there, schedule.resource(how, refusal, self.plain, path, ())
        return there, Schedule(here=True, account=self.plain.account)


def wanted(session: Session) -> str:
    """The kind that the settings name, or `auto`; empty where there is nothing to run."""
    policy = runs.policy(session)
    idle = policy.mode == "off" or policy.refusal
    if idle or (policy.mode != "heal" and not policy.measurable):
        return ""
    return session.config.settings.scratch_keepalive.schedule or ""


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
    home = config_door.home()
    settings, site = config.settings, config.site
    account = session.label
    variables = {k: os.environ[k] for k in ("RVSTATE_CONFIG",) if os.environ.get(k)}
    if home != Path("~/.rv").expanduser().absolute():
        variables["RVSTATE_HOME"] = str(home)
        account += f" ({home})"
    pays = settings.defaults.account or site.defaults.account
    return Plain(
        account,
        command(session),
        variables,
        str(log(session)),
        _script(session),
        (f"--account={pays}",) if pays else (),
        settings.scratch_keepalive.time or "",
    )


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
    return session.state.root / "state" / f"{schedule.unit_name(session.label)}.log"


def _script(session: Session) -> Script:
    found = runs.policy(session)
    if found.mode == "heal":
        return verify.script(session)
    if not found.measurable:
        # nothing will be run: the settings want nothing
        return keepalive.script(())
    return runs.script(session, "touch" if found.mode == "touch" else "count", found)


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
