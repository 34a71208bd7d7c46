"""`rvstate run`."""

from __future__ import annotations

from pathlib import Path

import click

from rvstate.cli.common import Progress, account_options, json_option, session
from rvstate.errors import ConfigError, RefusedError
from rvstate.request import Request
from rvstate.views import runs as view
from rvstate.workflows import run as workflow


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-g", "--gpu", "--gpus", "gpus", type=click.IntRange(0), help="How many GPUs.")
@click.option("-t", "--type", "--gpu-type", "gpu_type", help="GPU type, for example a6000.")
@click.option("--mig", is_flag=True, help="One slice of a GPU, where the site has them.")
@click.option("--time", help="Walltime: 2h, 2:59:00, 3d.")
@click.option("--mem", help="Memory of the node, for example 32G.")
@click.option("--cpus", type=click.IntRange(1), help="CPUs.")
@click.option("-p", "--partition", help="Partition, over what the site's data says.")
@click.option("-A", "--account", help="Allocation that pays.")
@click.option("--name", help="Name of the job; default: from the command.")
@click.option("-o", "--output", "keep", multiple=True, help="Path to keep at the end; repeatable.")
@click.option("--sbatch", "raw", multiple=True, metavar="KEY=VALUE", help="Any other sbatch option.")
@click.option("--dry-run", is_flag=True, help="Show plan and batch script; submit nothing.")
@json_option
@account_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    gpus: int | None,
    gpu_type: str | None,
    mig: bool,
    time: str | None,
    mem: str | None,
    cpus: int | None,
    partition: str | None,
    account: str | None,
    name: str | None,
    keep: tuple[str, ...],
    raw: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
    command: tuple[str, ...],
) -> int:
    """Run a command as a job: this code, its environment, now.

    Options go before the command; `--` ends them. `rvstate run train.py` means python; quote a
    shell string: `rvstate run "make data && python train.py"`.
    """
    here = Path.cwd()
    account_session = session(cluster, site, host, project=_project(here))
    wanted = Request(
        gpus, gpu_type, mig, time, mem, cpus, partition, account, tuple(_raw(x) for x in raw)
    )
    tell = Progress(quiet=as_json)
    if not as_json:
        view.show_where(account_session.config)
    order = workflow.Order(command, wanted, _name(name), keep, here)
    prepared = workflow.prepare(account_session, order, tell)
    if dry_run:
        tell.done()
        view.show_dry_run(prepared)
        return 0
    submitted = workflow.submit(account_session, prepared, tell)
    tell.done()
    if as_json:
        click.echo(view.run_document(submitted))
    else:
        view.show_submitted(submitted)
    return 0


def _project(here: Path) -> Path | None:
    from rvstate.git import find_root

    try:
        return find_root(here)
    except RefusedError:
        # `prepare` says so with the way out, after the settings were read
        return None


def _name(name: str | None) -> str | None:
    if name is not None and (not name.isprintable() or "/" in name or not name.strip()):
        raise ConfigError(
            f"{name!r} cannot be a job's name, for its log files are named after it.",
            "Use letters, digits, dots, dashes and underscores.",
        )
    return name


def _raw(text: str) -> tuple[str, str | None]:
    key, found, value = text.partition("=")
    return key, value if found else None
