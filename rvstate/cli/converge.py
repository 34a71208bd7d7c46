"""`rvstate converge`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rvstate.cli.common import (
    Progress,
    account_options,
    agree,
    json_option,
    may_ask,
    session,
    sessions,
)
from rvstate.errors import (
    EXIT_CHANGES,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_REFUSED,
    ConfigError,
    RvstateError,
)
from rvstate.model.resources import KINDS

if TYPE_CHECKING:
    from rvstate.workflows.converge import Outcome
    from rvstate.workflows.observe import View
    from rvstate.workflows.session import Session

    Seen = tuple[tuple[Session, View | RvstateError], ...]


@click.command()
@click.option("--check", is_flag=True, help="Only look and plan; write nothing.")
@click.option("--diff", is_flag=True, help="Show each change before and after; secrets masked.")
@click.option("-y", "--yes", is_flag=True, help="Apply without asking.")
@click.option("--only", metavar="KINDS", help=f"Only these kinds, by comma: {', '.join(KINDS)}.")
@click.option("--skip", metavar="KINDS", help="All but these kinds, by comma.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="With --check: exit 2 if there are changes."
)
@click.option(
    "--remove-originals",
    is_flag=True,
    help="Remove what migrations set aside, once verified again.",
)
@click.option("--all", "everywhere", is_flag=True, help="Every [clusters.NAME] of config.toml.")
@json_option
@account_options
def converge(
    check: bool,
    diff: bool,
    yes: bool,
    only: str | None,
    skip: str | None,
    detailed_exitcode: bool,
    remove_originals: bool,
    everywhere: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Make the account on the cluster as declared.

    Looks with one remote command, shows the plan, asks, applies it, looks again, and prints a
    recap. Nothing that is not rvstate's is touched: what stands in the way is refused together
    with the ways out, before anything is written.
    """
    kinds = _kinds(only, skip)
    tell = Progress(quiet=as_json)
    if everywhere:
        seen = _look_everywhere(kinds, tell, remove_originals)
    else:
        seen = _look(session(cluster, site, host), kinds, tell, remove_originals)
    tell.done()
    outcomes = _act(
        seen, tell, check=check, diff=diff, yes=yes, as_json=as_json, kinds=kinds,
        remove_originals=remove_originals,
    )  # fmt: skip
    _show(outcomes, as_json=as_json, check=check)
    return max((_status(o, check=check, detailed=detailed_exitcode) for o in outcomes), key=_weight)


def _look(
    account: Session, kinds: frozenset[str] | None, tell: Progress, remove_originals: bool
) -> Seen:
    from rvstate.workflows import observe

    look = observe.begin(account, kinds, remove_originals=remove_originals)
    tell(f"looking at {account.label}")
    # loaded while the answer is on its way
    from rvstate.views import human  # noqa: F401

    return ((account, look.view()),)


def _look_everywhere(kinds: frozenset[str] | None, tell: Progress, remove_originals: bool) -> Seen:
    from rvstate.workflows import converge as workflow

    accounts = sessions()
    tell(f"looking at {len(accounts)} accounts")
    seen = workflow.look_at_all(accounts, kinds, remove_originals=remove_originals)
    return tuple(zip(accounts, seen, strict=True))


def _act(
    seen: Seen,
    tell: Progress,
    *,
    check: bool,
    diff: bool,
    yes: bool,
    as_json: bool,
    kinds: frozenset[str] | None,
    remove_originals: bool,
) -> tuple[Outcome, ...]:
    """Show the plans, ask, apply those that may be applied; outcomes in the order of `seen`."""
    from rvstate.views import human
    from rvstate.workflows import converge as workflow

    todo = []
    for account, view in seen:
        if isinstance(view, RvstateError):
            if len(seen) == 1:
                raise view
            continue
        if not as_json:
            human.show_plan(view.plan, with_diff=diff, label=account.label if seen[1:] else "")
        if view.plan.may_be_applied and not check:
            todo.append((account, view))
    applied: dict[str, Outcome] = {}
    if todo:
        if not yes:
            _confirm(as_json)
        outcomes = workflow.apply(tuple(todo), tell, kinds=kinds, remove_originals=remove_originals)
        tell.done()
        applied = {outcome.label: outcome for outcome in outcomes}
    return tuple(applied.get(s.label) or workflow.checked(s, view) for s, view in seen)


def _show(outcomes: tuple[Outcome, ...], *, as_json: bool, check: bool) -> None:
    if as_json:
        from rvstate.views import machine

        click.echo(machine.converge(*outcomes, check=check))
        return
    from rvstate.views import human

    for outcome in outcomes:
        human.show_recap(outcome)


def _confirm(as_json: bool) -> None:
    if as_json or not may_ask():
        raise ConfigError(
            "There are changes to apply, and nobody to ask.",
            "Add -y to apply them, or --check to only look.",
        )
    agree(
        "Apply these changes?",
        "Nothing was changed.",
        "`rvstate converge --check --diff` shows every change in full.",
    )


def _kinds(only: str | None, skip: str | None) -> frozenset[str] | None:
    for name in (*_names(only), *_names(skip)):
        if name not in KINDS:
            raise ConfigError(f"{name!r} is not a kind of resource.", f"Known: {', '.join(KINDS)}.")
    if only is None and skip is None:
        return None
    return frozenset(_names(only) or KINDS) - frozenset(_names(skip))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _status(outcome: Outcome, *, check: bool, detailed: bool) -> int:
    if outcome.error is not None:
        return outcome.error.exit_code
    if outcome.plan.refusals:
        return EXIT_REFUSED
    if outcome.failed or outcome.verified is False:
        return EXIT_FAILED
    if check and detailed and outcome.plan.changes:
        return EXIT_CHANGES
    return EXIT_DONE


def _weight(status: int) -> int:
    """Of several accounts' ends the worst is told: failed, then refused, then any other."""
    order = (EXIT_DONE, EXIT_CHANGES, EXIT_REFUSED)
    return order.index(status) if status in order else len(order) + (status == EXIT_FAILED)
