"""What jobs cost: those of the last days, or one that somebody thinks of."""

from __future__ import annotations

from dataclasses import dataclass

from rvstate import pricing
from rvstate.errors import ConfigError, RvstateError, UnsupportedError
from rvstate.pricing import Cost
from rvstate.shell import join
from rvstate.sitetools.allocations import Balance
from rvstate.slurm import duration, sacct
from rvstate.workflows import questions
from rvstate.workflows.questions import Answers
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs, and what is left to spend.

    Args:
        costs: By kind.
        total: All of them together; None for alternatives, or where a price is unknown.
        days: The period in days; None for a job that is only thought of.
        unit: What the site calls its units.
        paying: The account that pays, by the settings, or empty.
        balance: What that account has; None where nobody told.
        trouble: What could not be had, and why.
    """

    costs: tuple[Cost, ...]
    total: float | None
    days: int | None
    unit: str
    paying: str
    balance: Balance | None
    trouble: tuple[str, ...]


def spent(session: Session, days: int) -> Costs:
    """What the user's jobs of the last days cost, with one remote command.

    Raises:
        UnsupportedError: The account has no Slurm.
        RvstateError: Slurm's accounting did not answer.
    """
    _check(session)
    # sacct takes jobs that ran at any time since then, by their whole run time
    question = join(sacct.command(days=days)) + ' --user="$rv_user"'
    answers = questions.ask(session, {"jobs": question, **questions.allocations_question()})
    said = answers["jobs"].text
    if said is None:
        raise RvstateError(
            "Slurm's accounting did not answer, so nothing is known of past jobs.",
            "Try again later; `rvstate cost -g 1` prices a job without it.",
        )
    found = pricing.used(sacct.parse(said.strip("\n")), session.config.site)
    return _costs(session, found, pricing.total(found), days, answers)


def planned(session: Session, gpus: int, gpu_type: str | None, time: str | None) -> Costs:
    """What one job costs if it uses all its time, for one type of GPU or for each.

    Raises:
        ConfigError: The site has no such type, or no prices.
    """
    _check(session)
    site, settings = session.config.site, session.config.settings
    text = time or settings.defaults.time or site.defaults.time
    seconds = duration.parse(text) if text else duration.HOUR
    kinds = site.gpu_names()
    if gpu_type is not None:
        found = site.gpu(gpu_type)
        if found is None:
            raise ConfigError(
                f"{site.title} has no GPU type {gpu_type!r}.",
                f"It has: {', '.join(kinds) or 'none that its profile names'}.",
            )
        kinds = (found[0],)
    if not kinds:
        raise ConfigError(
            f"The profile of {site.title} names no GPU types and prices.",
            "Add them to a profile of your own: see docs/sites.md.",
        )
    costs = tuple(pricing.asked(site, kind, gpus, seconds) for kind in kinds)
    answers = questions.ask(session, questions.allocations_question())
    total = costs[0].units if len(costs) == 1 else None
    return _costs(session, costs, total, None, answers)


def _check(session: Session) -> None:
    if session.config.site.scheduler == "process":
        raise UnsupportedError(
            "Jobs of site local cost nothing.", "On a cluster, `rvstate cost` prices them."
        )


def _costs(
    session: Session,
    costs: tuple[Cost, ...],
    total: float | None,
    days: int | None,
    answers: Answers,
) -> Costs:
    site = session.config.site
    paying = session.config.settings.defaults.account or site.defaults.account or ""
    known = questions.balances(answers) or ()
    balance = next((b for b in known if b.account == paying), None)
    trouble = questions.site_trouble(answers)
    return Costs(costs, total, days, site.prices.unit, paying, balance, trouble)
