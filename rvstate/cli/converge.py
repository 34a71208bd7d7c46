"""`rvstate converge`."""

from __future__ import annotations

import click

from rvstate.cli.common import Progress, account_options, json_option, may_ask, session
from rvstate.errors import EXIT_CHANGES, EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, ConfigError
from rvstate.model.resources import KINDS
from rvstate.views import human, machine
from rvstate.workflows import converge as workflow
from rvstate.workflows.converge import Outcome


@click.command()
@click.option("--check", is_flag=True, help="Only look and plan; write nothing.")
@click.option("--diff", is_flag=True, help="Show each change before and after; secrets masked.")
@click.option("-y", "--yes", is_flag=True, help="Apply without asking.")
@click.option("--only", metavar="KINDS", help=f"Only these kinds, by comma: {', '.join(KINDS)}.")
@click.option("--skip", metavar="KINDS", help="All but these kinds, by comma.")
@click.option("--detailed-exitcode", is_flag=True, help="With --check: exit 2 if there are changes.")
@click.option(
    "--remove-originals",
    is_flag=True,
    help="Remove what migrations set aside, once verified again.",
)
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
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Make the account on the cluster as declared.

    Looks with one remote command, shows the plan, asks, applies it, looks again, and prints a recap.
    Nothing that is not rvstate's is touched: what stands in the way is refused together with the
    ways out, before anything is written.
    """
    kinds = _kinds(only, skip)
    with_account = session(cluster, site, host)
    tell = Progress(quiet=as_json)
    tell(f"looking at {with_account.label}")
    view = workflow.look(with_account, kinds)
    tell.done()
    if not as_json:
        human.show_plan(view.plan, with_diff=diff)
    if check or not view.plan.may_be_applied:
        outcome = workflow.checked(with_account, view)
    else:
        if not yes:
            _confirm(as_json)
        outcome = workflow.apply(
            with_account, view, tell, kinds=kinds, remove_originals=remove_originals
        )
        tell.done()
    if as_json:
        click.echo(machine.converge(outcome, check=check))
    else:
        human.show_recap(outcome)
    return _status(outcome, check=check, detailed=detailed_exitcode)


def _confirm(as_json: bool) -> None:
    if as_json or not may_ask():
        raise ConfigError(
            "There are changes to apply, and nobody to ask.",
            "Add -y to apply them, or --check to only look.",
        )
    click.confirm("Apply these changes?", abort=True, err=True)


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
    if outcome.plan.refusals:
        return EXIT_REFUSED
    if outcome.failed or outcome.verified is False:
        return EXIT_FAILED
    if check and detailed and outcome.plan.changes:
        return EXIT_CHANGES
    return EXIT_DONE
