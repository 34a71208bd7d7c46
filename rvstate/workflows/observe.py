"""Looks: one remote command, and what it says compared with what is wanted; no pyinfra."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rvstate import ahead, probe
from rvstate import desired as desired_state
from rvstate.model.layout import SYMBOLIC, Account, Layout
from rvstate.model.observed import ObservedState, Present
from rvstate.model.resources import ConfigFile, DesiredState, Schedule
from rvstate.probe import Question
from rvstate.script import Answer, Script
from rvstate.transport import Running, Ssh
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    from rvstate.model.plan import Plan
    from rvstate.workflows.schedule import Intent


@dataclass(frozen=True, slots=True)
class View:
    """One look at an account, compared."""

    desired: DesiredState
    observed: ObservedState
    plan: Plan

    @property
    def layout(self) -> Layout:
        """The account's paths."""
        return Layout(self.observed.account)


@dataclass(frozen=True, slots=True)
class Look:
    """A look; where it is `running`, it has been sent and nobody has read its answer yet."""

    session: Session
    kinds: frozenset[str] | None
    variables: Mapping[str, str]
    watched: ConfigFile
    asked: tuple[Question, ...]
    script: Script
    running: Running | None
    remove_originals: bool = False
    intent: Intent | None = None

    def view(self) -> View:
        """Wait for the answer and compare."""
        # imported while the answer is on its way: it costs nothing there
        importlib.import_module("rvstate.diff")
        assert self.running is not None
        return self.read(self.session.transport.finish(self.script, self.running))

    def read(self, answer: Answer) -> View:
        """Compare an answer with what is wanted."""
        from rvstate import diff

        observed = probe.read(answer, self.asked)
        observed.entries.update(_local_entry(self.watched))
        path = Layout(observed.account).schedule
        schedules: tuple[Schedule, ...] = (Schedule(path=path),)
        record = self.session.state.schedule(self.session.label)
        if self.intent is None and record:
            # as declared (see `_intent`): counted, and no more
            observed.schedules[1]["record"] = record
            schedules += (Schedule(record.split()[0], here=True),)
        elif self.intent is not None:
            observed.schedules[1].update(self.intent.said)
            schedules = self.intent.resources(path, observed)
        wanted = _wanted(
            self.session, observed.account, self.variables, self.watched, self.kinds, schedules
        )
        removing = self.remove_originals
        plan = diff.plan(wanted, observed, remove_originals=removing)
        plan = diff.for_full_home(plan, observed, remove_originals=removing)
        return View(wanted, observed, plan)


def begin(
    session: Session, kinds: frozenset[str] | None = None, *, remove_originals: bool = False
) -> Look:
    """Send the one remote command of a look and come back at once.

    Args:
        session: Which account.
        kinds: Only these kinds of resource; None means all.
        remove_originals: Whether what earlier migrations set aside should go.
    """
    look = prepare(session, kinds, remove_originals=remove_originals)
    if isinstance(session.transport, Ssh):
        script, running = ahead.begin(session.transport, look.script)
    else:
        script, running = look.script, session.transport.begin(look.script)
    return replace(look, script=script, running=running)


def prepare(
    session: Session, kinds: frozenset[str] | None = None, *, remove_originals: bool = False
) -> Look:
    """A look that has not been sent yet; arguments as for `begin`."""
    variables = session.state.variables()
    watched = _config_file(session)
    intent = _intent(session, kinds)
    path = Layout(SYMBOLIC).schedule
    schedules = (Schedule(path=path) if intent is None else intent.question(path),)
    asked = probe.questions(_wanted(session, SYMBOLIC, variables, watched, kinds, schedules))
    script = probe.script(session.scratch, session.home, asked)
    return Look(session, kinds, variables, watched, asked, script, None, remove_originals, intent)


def _intent(session: Session, kinds: frozenset[str] | None) -> Intent | None:
    if kinds is not None and Schedule.kind not in kinds:
        return None
    config = session.config
    declared = config.settings.scratch_keepalive.scheduled(config.site.purge)
    record = session.state.schedule(session.label)
    # nothing, or the usual one and in place: most accounts, which are not to wait for more modules
    usual = replace(config.settings.scratch_keepalive, schedule=None).scheduled(config.site.purge)
    if declared in ("", usual) and record.split(" ")[0] == declared:
        return None
    from rvstate.workflows import schedule

    return schedule.intend(session)


def account(
    session: Session, kinds: frozenset[str] | None = None, *, remove_originals: bool = False
) -> View:
    """Look at the account with one remote command, and compare."""
    return begin(session, kinds, remove_originals=remove_originals).view()


def _wanted(
    session: Session,
    who: Account,
    variables: Mapping[str, str],
    watched: ConfigFile,
    kinds: frozenset[str] | None,
    schedules: tuple[Schedule, ...],
) -> DesiredState:
    config = session.config
    found = desired_state.account(config.settings, config.site, who, variables, watched, schedules)
    if kinds is None:
        return found
    return DesiredState(tuple(r for r in found.resources if r.kind in kinds))


def _config_file(session: Session) -> ConfigFile:
    return ConfigFile(str(session.config.path), session.config.holds_secret)


def _local_entry(watched: ConfigFile) -> dict[str, Present]:
    path = Path(watched.path)
    if not path.is_file():
        return {}
    found = path.stat()
    return {watched.path: Present("f", found.st_mode & 0o7777, found.st_uid, found.st_size)}
