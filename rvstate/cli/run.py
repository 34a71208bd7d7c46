"""`rvstate run`, `rvstate render`, `rvstate rerun`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rvstate.cli.common import (
    Progress,
    account_options,
    json_option,
    project_root,
    session,
)
from rvstate.errors import ConfigError
from rvstate.hardware import Trouble
from rvstate.model.job import RunRecord
from rvstate.request import NO_PRESET, Request, raw_option, with_preset
from rvstate.slurm.states import JobState
from rvstate.views import runs as view
from rvstate.workflows.run import again
from rvstate.workflows.run import rerun as workflow
from rvstate.workflows.run.name import named
from rvstate.workflows.run.named import standing
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.run.prepared import Prepared, Submitted, log_parts
from rvstate.workflows.run.probing import probing
from rvstate.workflows.run.submit import submit, tested
from rvstate.workflows.session import Session

_F = TypeVar("_F", bound=Callable[..., Any])
_RESOURCES = (
    click.option(
        "-g", "--gpu", "--gpus", "gpus", type=click.IntRange(0), help="How many GPUs in all."
    ),
    click.option(
        "-t",
        "--type",
        "--gpu-type",
        "gpu_type",
        help="GPU type, for example a6000; a40,a6000 or any leave a choice.",
    ),
    click.option(
        "--gpu-mem", metavar="SIZE", help="The least memory of each GPU, for example 40G."
    ),
    click.option("--nodes", type=click.IntRange(1), help="How many nodes; -g is for all of them."),
    click.option("--gpus-per-node", type=click.IntRange(1), help="GPUs on each node."),
    click.option("--single-node", is_flag=True, help="One node, or nothing."),
    click.option("--exclude", metavar="NODES", help="Nodes not to use."),
    click.option("--mig", is_flag=True, help="One slice of a GPU, where the site has them."),
    click.option("--time", help="Walltime: 2h, 2:59:00, 3d."),
    click.option("--mem", help="Memory of each node, for example 32G."),
    click.option("--cpus", type=click.IntRange(1), help="CPUs of each node."),
    click.option("-p", "--partition", help="Partition, over what the site's data says."),
    click.option("-A", "--account", help="Allocation that pays."),
    click.option("--constraint", metavar="LIST", help="Features that the nodes must have."),
    click.option("--exclusive/--no-exclusive", default=None, help="Nodes for this job alone."),
    click.option(
        "--preset",
        metavar="NAME",
        help="Options from [presets.NAME] in the settings; none for not even the usual ones.",
    ),
    click.option("--name", help="Name of the job; default: from the command."),
    click.option("--wckey", metavar="KEY", help="Key under which accounting counts it."),
    click.option("--comment", metavar="TEXT", help="Kept with the job; squeue and sacct show it."),
    click.option(
        "--mail-type", metavar="LIST", help="What Slurm mails about, for example END,FAIL."
    ),
    click.option("--mail-user", metavar="ADDRESS", help="Whom Slurm mails."),
    click.option(
        "--begin", metavar="WHEN", help="Not before: 18:00, now+2hours, 2026-12-01T08:00."
    ),
    click.option("--deadline", metavar="WHEN", help="Ended by then, or not started at all."),
    click.option(
        "--after",
        multiple=True,
        metavar="RUN",
        help="Start when that run has succeeded; RUN:any when it has ended, RUN:failed when it "
        "has failed. Repeatable.",
    ),
    click.option(
        "-o", "--output", "keep", multiple=True, help="Path to keep at the end; repeatable."
    ),
    click.option(
        "--sbatch", "raw", multiple=True, metavar="KEY=VALUE", help="Any other option of sbatch."
    ),
    click.option(
        "--env",
        "environment",
        metavar="ENV",
        help="Over [environment]: a kind, `none`, or the path of one that is there.",
    ),
    click.option("--writable", is_flag=True, help="Every file of the snapshot is the job's own."),
    click.option(
        "--require",
        type=click.Choice(["clean", "pushed"]),
        help="Refuse where the code is not committed, or no remote has the commit.",
    ),
)


_COMMAND = (
    click.option(
        "--start",
        type=click.Choice(["once", "node", "rank"]),
        help="On several nodes: one program in all, one a node, one a GPU.",
    ),
    click.option(
        "--total-time",
        metavar="TIME",
        help="Go on in segments of --time until it is used up; the program saves when warned.",
    ),
    click.option(
        "--signal",
        metavar="SIGNAL",
        help="What warns a segment of its end: USR1, USR2@10m. Default: USR1, 5 minutes ahead.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0),
        metavar="N",
        help="How many failures of the program do not end a run of segments; default: none.",
    ),
    click.option(
        "--array",
        metavar="LIST",
        help="Several elements: 0-99, 1,3,5; 0-99%10 runs ten at once. RV_ARRAY_INDEX tells which.",
    ),
    click.option(
        "--sweep",
        multiple=True,
        metavar="NAME=A,B",
        help="An element for each value, given as --NAME or for {NAME}; repeated: for each "
        "combination.",
    ),
)


def resource_options(function: _F) -> _F:
    """What a job asks for, whatever it runs."""
    for option in reversed(_RESOURCES):
        function = option(function)
    return function


def job_options(function: _F) -> _F:
    """What a job asks for that runs a command."""
    for option in reversed(_COMMAND):
        function = option(function)
    return resource_options(function)


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@click.option("-f", "--follow", is_flag=True, help="Show the log until the job has ended.")
@click.option(
    "--retry-hardware",
    is_flag=True,
    help="Wait for the end; if a node was at fault, submit once more without it. -f does so too.",
)
@click.option("--dry-run", is_flag=True, help="Show plan and batch script; submit nothing.")
@click.option(
    "--probe", is_flag=True, help="Check the environment in the smallest job; takes no command."
)
@click.option("--resume", is_flag=True, help="Look up the run whose answer never came.")
@json_option
@account_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def run(
    follow: bool,
    retry_hardware: bool,
    dry_run: bool,
    probe: bool,
    resume: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Run a command as a job: this code, its environment, now.

    Options go before the command; `--` ends them. `rvstate run train.py` means python; quote a
    shell string: `rvstate run "make data && python train.py"`. With -f the exit code is the
    program's own; 124 at the time limit, 137 out of memory, 143 cancelled.
    """
    if bool(command) == (resume or probe) or (resume and probe):
        raise ConfigError(
            "--resume takes no command: it takes up the one that was not answered."
            if resume
            else "--probe takes no command: it checks the environment."
            if probe
            else "There is no command to run.",
            "rvstate run --resume"
            if resume
            else "rvstate run --probe"
            if probe
            else "For example: rvstate run train.py",
        )
    here, command = _standing(command)
    account = session(cluster, site, host, project=project_root(here))
    tell = Progress(quiet=as_json)
    if not as_json:
        view.show_where(account.config)
    wait = "log" if follow or probe else "end" if retry_hardware else ""
    if resume:
        return finish(account, again.resume(account, here, tell), tell, wait, as_json)
    if probe and options["preset"] is None:
        # the smallest job, not the usual one
        options["preset"] = NO_PRESET
    order = order_of(account, command, here, options)
    if probe:
        order = probing(order, account.config.site)
    order, about_name = named(account, order, asking=not dry_run)
    for notice in about_name:
        click.echo(f"rvstate: {notice}", err=True)
    prepared = prepare(account, order, tell, ahead=not dry_run)
    tell.done()
    show_notices(prepared, command)
    if dry_run:
        view.show_dry_run(prepared, tested(account, prepared), as_json=as_json)
        return 0
    return finish(account, submit(account, prepared, tell), tell, wait, as_json)


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@account_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def render(
    cluster: str | None,
    site: str | None,
    host: str | None,
    command: tuple[str, ...],
    **options: Any,
) -> int:
    """Print the batch script that `rvstate run` would submit.

    Takes the same options, looks at the account, and writes nothing.
    """
    here, command = _standing(command)
    account = session(cluster, site, host, project=project_root(here))
    prepared = prepare(account, order_of(account, command, here, options), lambda _: None)
    click.echo(prepared.text, nl=False)
    return 0


@click.command()
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Show the log until the job has ended.")
@click.option("--failed", is_flag=True, help="Only the elements that ended without success.")
@json_option
@account_options
def rerun(
    run: str,
    follow: bool,
    failed: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Submit a run again: the same code, command, options and environment.

    RUN is a job id, a run id or a name (its newest run), from whichever machine it was sent;
    RUN_INDEX is one element of an array. The code is taken from this machine where it lies
    unchanged or as a commit, else from the run's snapshot on the cluster, which is checked first.
    """
    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    root = workflow.root_here(account, run)
    if root is not None:
        # its own settings count, wherever the user stands
        account = session(cluster, site, host, project=root)
    tell = Progress(quiet=as_json)
    if not as_json:
        view.show_where(account.config)
    wait = "log" if follow else ""
    done = workflow.rerun(account, run, here, tell, failed=failed)
    return finish(account, done, tell, wait, as_json)


def _standing(command: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """Where the user stands, or the project whose script the command names, with the command."""
    here = Path.cwd()
    if not command:
        return here, command
    where, words = standing(here, command)
    if where != here:
        click.echo(
            f"rvstate: the script is of the project {where}, which is sent and in whose directory "
            f"it runs: {shlex.join(words)}",
            err=True,
        )
    return where, words


def order_of(
    account: Session, command: tuple[str, ...], here: Path, options: dict[str, Any]
) -> Order:
    """What the user asked for.

    Args:
        account: Whose settings count.
        command: The command as typed.
        here: Where the user stands.
        options: The values of `job_options` or `resource_options`.
    """
    keys = (
        *("gpus", "nodes", "gpus_per_node", "single_node", "exclude", "gpu_type", "gpu_mem", "mig"),
        *("time", "mem", "cpus", "partition", "account", "constraint", "exclusive", "wckey"),
        *("comment", "mail_type", "mail_user", "begin", "deadline"),
    )
    raw = tuple(map(raw_option, options["raw"]))
    wanted = Request(**{key: options[key] for key in keys}, raw=raw)
    return Order(
        words=command,
        request=with_preset(wanted, options["preset"], account.config.settings),
        name=_name(options["name"]),
        keep=options["keep"],
        directory=here,
        environment=options["environment"] or "",
        writable=options["writable"],
        require=options["require"] or "",
        start=options.get("start"),
        after=options["after"],
        array=options.get("array") or "",
        sweep=options.get("sweep") or (),
        total_time=options.get("total_time") or "",
        signal=options.get("signal") or "",
        retries=options.get("retries"),
    )


def show_notices(prepared: Prepared, command: tuple[str, ...]) -> None:
    """What the user should know before it is submitted."""
    # `--` in front of the command says that what follows is meant for it
    meant = sys.argv[-len(command) - 1 : -len(command)] == ["--"]
    for notice in prepared.notices:
        if not (meant and "stands after the command" in notice):
            click.echo(f"rvstate: {notice}", err=True)


def finish(account: Session, submitted: Submitted, tell: Progress, wait: str, as_json: bool) -> int:
    """Say what was submitted, and wait: for its `log`, for its `end`, or not at all (empty)."""
    _say_submitted(submitted, tell, as_json)
    if not wait:
        if as_json:
            click.echo(view.run_document(submitted))
        return 0
    status, found = _await_end(account, submitted, wait, as_json)
    if found is not None:
        view.show_trouble(found, again=bool(found.nodes))
    if found is not None and found.nodes:
        submitted = again.without_nodes(account, submitted, found.nodes, tell)
        _say_submitted(submitted, tell, as_json)
        # once: a second fault is for people to look at
        status, found = _await_end(account, submitted, wait, as_json)
        if found is not None:
            view.show_trouble(found, again=False)
    if as_json:
        click.echo(view.run_document(submitted, exit_code=status))
    return status


def _say_submitted(submitted: Submitted, tell: Progress, as_json: bool) -> None:
    tell.done()
    for notice in submitted.notices:
        click.echo(f"rvstate: {notice}", err=True)
    if not as_json:
        view.show_submitted(submitted)


def _await_end(
    account: Session, submitted: Submitted, wait: str, as_json: bool
) -> tuple[int, Trouble | None]:
    """The exit code of a run that has ended, and what the hardware did to it."""
    from rvstate.cli.jobs import Printer, follow_to_end
    from rvstate.workflows import jobs

    if submitted.prepared.spec.array is not None:
        record = jobs.find(jobs.runs(account), submitted.prepared.run_id)
    else:
        record = RunRecord(
            run_id=submitted.prepared.run_id,
            job=submitted.job.partition(",")[0],
            jobs=tuple(submitted.job.split(",")),
            name=submitted.prepared.spec.options.name,
            state=JobState.UNKNOWN,
            log=submitted.log,
            error_log=submitted.error_log,
            parts=log_parts(submitted.prepared.spec),
        )
    printer = Printer(errors_only=as_json, merge=jobs.merge(record))
    logs: tuple[str, ...] = ()
    if wait == "log":
        try:
            logs = jobs.streams(record)
        except ConfigError as error:
            # it is submitted, so it is waited for also where its logs cannot be shown together
            click.echo(f"rvstate: {error.message}\n  → {error.remedy}", err=True)
    ended = follow_to_end(account, record, logs, printer)
    status = jobs.exit_status(ended)
    return status, jobs.hardware_trouble(account, ended) if status else None


def _name(name: str | None) -> str | None:
    if name is not None and (
        not name.isprintable() or "/" in name or not name.strip() or name.startswith((".", "-"))
    ):
        raise ConfigError(
            f"{name!r} cannot be a job's name, for its log files are named after it.",
            "Use letters, digits, dots, dashes and underscores.",
        )
    return name
