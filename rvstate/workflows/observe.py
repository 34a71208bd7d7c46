"""Looks: one remote command, and what it says compared with what is wanted; no pyinfra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rvstate import desired as desired_state
from rvstate import diff, probe
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.observed import ObservedState, Present
from rvstate.model.plan import Plan
from rvstate.model.resources import ConfigFile, DesiredState
from rvstate.workflows.session import Session


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


def account(session: Session, kinds: frozenset[str] | None = None) -> View:
    """Look at the account with one remote command.

    Args:
        session: Which account.
        kinds: Only these kinds of resource; None means all.
    """
    variables = session.state.variables()
    watched = _config_file(session)
    asked = probe.questions(_wanted(session, SYMBOLIC, variables, watched, kinds))
    answer = session.transport.run(probe.script(session.scratch, session.home, asked))
    observed = probe.read(answer, asked)
    observed.entries.update(_local_entry(watched))
    wanted = _wanted(session, observed.account, variables, watched, kinds)
    return View(wanted, observed, diff.plan(wanted, observed))


def _wanted(
    session: Session,
    who: desired_state.Account,
    variables: Mapping[str, str],
    watched: ConfigFile,
    kinds: frozenset[str] | None,
) -> DesiredState:
    config = session.config
    found = desired_state.account(config.settings, config.site, who, variables, watched)
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
