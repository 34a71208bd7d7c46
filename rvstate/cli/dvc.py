"""`rvstate dvc`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from rvstate import overrides
from rvstate.cli.common import (
    Progress,
    account_options,
    json_option,
    project_root,
    session,
)
from rvstate.cli.run import finish, order_of, resource_options, show_notices
from rvstate.errors import ConfigError
from rvstate.experiment import WORDS
from rvstate.views import runs as view
from rvstate.workflows.dvc import pull as pulling
from rvstate.workflows.dvc import run_all
from rvstate.workflows.dvc.fitting import asked_in
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.run.submit import submit, tested

_F = TypeVar("_F", bound=Callable[..., Any])
# Options of `dvc exp run` that `rvstate run` has in another sense: here they are DVC's.
_THEIRS = {"-p", "--name"}


class Passing(click.Command):
    """A command whose own options come first: what begins with another word is DVC's, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the words where the first one is not ours, and let click read what is."""
        own = self._own(ctx, args)
        rest = args[own:]
        ctx.params["arguments"] = tuple(rest[1:] if rest[:1] == ["--"] else rest)
        return super().parse_args(ctx, args[:own])

    def _own(self, ctx: click.Context, args: list[str]) -> int:
        """How many of the words are options of ours, with their values."""
        takes: dict[str, int] = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option):
                plain = option.is_flag or option.count
                takes |= dict.fromkeys(
                    (*option.opts, *option.secondary_opts), 0 if plain else option.nargs
                )
        at = 0
        while at < len(args):
            name, equals, _ = args[at].partition("=")
            if name in takes and (not equals or name.startswith("--")):
                at += 1 if equals else 1 + takes[name]
            elif args[at][:2] in takes and args[at][1:2] not in ("", "-") and takes[args[at][:2]]:
                at += 1  # the value stands behind the letter: -g2
            else:
                break
        return min(at, len(args))


def experiment_options(function: _F) -> _F:
    """What a job asks for; where a name is one of `dvc exp run` too, it stays DVC's."""
    found = resource_options(function)
    for option in found.__click_params__:  # type: ignore[attr-defined]
        option.opts = [name for name in option.opts if name not in _THEIRS] or ["--job-name"]
    return found


@click.group()
def dvc() -> None:
    """Run DVC experiments as jobs, and bring them home."""


@dvc.command(cls=Passing)
@experiment_options
@click.option(
    "--mode",
    type=click.Choice(["snapshot", "clone"]),
    help="With what is not committed, or a clone of the remote at this commit.",
)
@click.option("--pull/--no-pull", default=None, help="Fetch data that is missing first.")
@click.option(
    "--check-remote/--no-check-remote",
    "live",
    default=None,
    help="Ask the Git remote itself if it has the commit.",
)
@click.option(
    "--array",
    metavar="LIST",
    help="Which experiments of a sweep, as 0-3, or how many at once, as %2; without one, {index} "
    "tells them apart.",
)
@click.option("--follow", is_flag=True, help="Show the log until the job has ended.")
@click.option("--dry-run", is_flag=True, help="Show plan and batch script; submit nothing.")
@json_option
@account_options
def run(
    mode: str | None,
    pull: bool | None,
    live: bool | None,
    follow: bool,
    dry_run: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
    **options: Any,
) -> int:
    """Run `dvc exp run` as a job, and push what comes of it.

    Options of rvstate come first; from the first other word on, or behind `--`, everything goes to
    `dvc exp run` as it is: `rvstate dvc run --time 2h -S model.lr=0.1`.
    """
    arguments: tuple[str, ...] = options.pop("arguments")
    _check_order(arguments)
    here = Path.cwd()
    if run_all.is_queueing(arguments):
        click.echo(run_all.queue_here(here, arguments), nl=False)
        return 0
    account = session(cluster, site, host, project=project_root(here))
    if not as_json:
        view.show_where(account.config)
    order = replace(
        order_of(account, (*WORDS, *arguments), here, options),
        dvc=asked_in(account, mode, pull, live),
    )
    if account.config.settings.dvc.script and not order.environment:
        # the script's environment is made by the job
        order = replace(order, environment="none")
    order = run_all.with_queue(order)
    tell = Progress(quiet=as_json)
    prepared = prepare(account, order, tell, ahead=not dry_run)
    tell.done()
    show_notices(prepared, order.words)
    if dry_run:
        said = tested(account, prepared)
        view.show_dry_run(prepared, said, as_json=as_json, command="dvc run")
        return 0
    done = submit(account, prepared, tell)
    if order.dvc and order.dvc.queued and prepared.spec.array:
        left = run_all.taken(here, order.dvc.queued, prepared.spec.array.indices)
        if left:
            click.echo(f"rvstate: {left}", err=True)
    return finish(account, done, tell, "log" if follow else "", as_json)


def _check_order(arguments: tuple[str, ...]) -> None:
    """Refuse an option of rvstate that would go to DVC, which has none of that name.

    Raises:
        ConfigError: There is one.
    """
    known = click.get_current_context().command.params
    ours = frozenset(name for option in known for name in (*option.opts, *option.secondary_opts))
    wrong = overrides.misplaced(arguments, ours)
    if wrong:
        raise ConfigError(
            f"{wrong} stands behind DVC's first argument, so it would go to DVC, which has no such "
            "option.",
            f"Options of rvstate come first: rvstate dvc run {wrong} … {arguments[0]} …",
        )


@dvc.command()
@click.option("--data/--no-data", default=True, help="Their files, too, and not commits alone.")
@json_option
@account_options
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
def pull(
    experiments: tuple[str, ...],
    data: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Bring experiments home that are not here yet.

    Each is named by its own name or its run's id; without any, all that the cluster has kept of
    this project. What a job could not push is pushed from the login node first.
    """
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    tell = Progress(quiet=as_json)
    found = pulling.pull(account, here, experiments, tell, data=data)
    tell.done()
    for notice in found.notices:
        click.echo(f"rvstate: {notice}", err=True)
    if as_json:
        click.echo(view.document("dvc pull", **asdict(found)))
        return 0
    for what, names in (
        ("pushed from the login node", found.pushed),
        ("from the Git remote", found.remote),
        ("from the cluster", found.cluster),
        ("here already", found.had),
    ):
        if names:
            click.echo(f"{what}: {', '.join(names)}")
    if not (found.remote or found.cluster or found.had):
        click.echo("The cluster has kept no experiments of this project.")
    return 0


@dvc.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have ended.")
@json_option
@account_options
def queue(
    everything: bool, as_json: bool, cluster: str | None, site: str | None, host: str | None
) -> int:
    """List experiments: what waits, what runs, and whether the results were pushed.

    Without -a: those that wait or run, and those of which something is on the cluster only.
    """
    from rvstate.views import experiments as shown
    from rvstate.workflows.dvc.queue import queue as look

    found = look(session(cluster, site, host))
    if as_json:
        click.echo(shown.queue_document(found))
    else:
        shown.show_queue(found, everything=everything)
    return 0
