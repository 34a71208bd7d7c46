"""`rvstate env`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rvstate import config, envfile
from rvstate.cli.common import (
    Progress,
    account_options,
    json_option,
    may_ask,
    project_root,
    session,
)
from rvstate.errors import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, ConfigError
from rvstate.state import State
from rvstate.views import account as view
from rvstate.views import human, machine
from rvstate.workflows import variables as workflow
from rvstate.workflows.variables import Edited

_NOW = click.option("--now", is_flag=True, help="Bring them to the account at once.")
_LATER = "Jobs see it from the next `rvstate converge` or `rvstate run` on; --now does it at once."


@click.group()
def env() -> None:
    """Keep variables and secrets that every job gets.

    `show` and `shell` are about the Python environment of the project in front of you.
    Values are kept on this machine in a private file (0600), and on the cluster in one that every
    job reads. They are shown to nobody unless you ask with --show.
    """


@env.command("set")
@click.argument("name")
@click.argument("value", required=False)
@_NOW
@json_option
@account_options
def set_(
    name: str,
    value: str | None,
    now: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Set one variable.

    Without VALUE it is asked for and not shown; with `-`, or when something is piped in, it is read
    from standard input, where one line break at the end is dropped.
    """
    envfile.render({name: ""})
    given = value is not None and value != "-"
    text = _value(name, value)
    edited = workflow.put(State(config.home()), {name: text})
    if given and not as_json:
        click.echo(
            "Your shell's history keeps this value; next time leave it out and type it when asked.",
            err=True,
        )
    return _after("env set", edited, now, as_json, (cluster, site, host))


@env.command("list")
@click.option("--show", is_flag=True, help="Show the values.")
@json_option
def list_(show: bool, as_json: bool) -> int:
    """List the variables; values are never shown without --show.

    With --json: names and lengths, in characters; with --show values as well.
    """
    found = State(config.home()).variables()
    if not as_json:
        view.show_variables(found, reveal=show)
        return EXIT_DONE
    rows = [
        {"name": name, "length": len(found[name]), **({"value": found[name]} if show else {})}
        for name in sorted(found)
    ]
    click.echo(machine.document("env list", variables=rows))
    return EXIT_DONE


@env.command()
@click.argument("names", nargs=-1, required=True)
@_NOW
@json_option
@account_options
def rm(
    names: tuple[str, ...],
    now: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Remove variables, all that are named or none."""
    workflow.remove(State(config.home()), names)
    status = _bring(now, as_json, (cluster, site, host))
    if as_json:
        click.echo(machine.document("env rm", removed=list(names), converged=_word(now, status)))
    else:
        click.echo(f"Removed: {', '.join(names)}.")
        if not now:
            click.echo(_LATER)
    return status


@env.command("import")
@click.argument("file", default=".env")
@_NOW
@json_option
@account_options
def import_(
    file: str,
    now: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Set all variables of a .env file.

    FILE is KEY=value lines, `-` for standard input. Quotes are understood, nothing is expanded. One
    line that cannot be read means that nothing is set.
    """
    wanted = envfile.parse_dotenv(_read(file))
    if not wanted:
        raise ConfigError(f"{file} holds no variables.", "Write KEY=value lines into it.")
    edited = workflow.put(State(config.home()), wanted)
    return _after("env import", edited, now, as_json, (cluster, site, host))


@env.command("show")
@json_option
@account_options
def show(as_json: bool, cluster: str | None, site: str | None, host: str | None) -> int:
    """Show the Python environment of the project in front of you.

    What is in it, what it was built from, how large it is, what was installed by hand, and which
    of your jobs use it.
    """
    from rvstate.views import environment as environment_view
    from rvstate.workflows import environment

    here = Path.cwd()
    found = environment.show(session(cluster, site, host, project=project_root(here)), here)
    if as_json:
        click.echo(environment_view.document(found))
    else:
        environment_view.show(found)
    return EXIT_DONE


@env.command("shell")
@account_options
def shell(cluster: str | None, site: str | None, host: str | None) -> int:
    """Print the lines that activate the project's environment by hand."""
    from rvstate.views import environment as environment_view
    from rvstate.workflows import environment

    here = Path.cwd()
    account = session(cluster, site, host, project=project_root(here))
    found = environment.show(account, here, with_jobs=False)
    environment_view.show_shell(found, account.config.host)
    return EXIT_DONE


def _value(name: str, value: str | None) -> str:
    if value is not None and value != "-":
        return value
    if value is None and may_ask():
        typed: str = click.prompt(name, hide_input=True, default="", show_default=False, err=True)
        return typed
    data = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if value is None and not data:
        raise ConfigError(
            f"There is no value for {name}, and nobody to ask.",
            f"Pipe it in (`… | rvstate env set {name}`); to make it empty, give '' as the value.",
        )
    return data.removesuffix("\n").removesuffix("\r") if data.endswith("\n") else data


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}.", "Name a file of KEY=value lines."
        ) from error
    return data.decode("utf-8", "surrogateescape")


def _after(
    command: str,
    edited: Edited,
    now: bool,
    as_json: bool,
    which: tuple[str | None, str | None, str | None],
) -> int:
    status = _bring(now, as_json, which)
    if as_json:
        click.echo(
            machine.document(
                command,
                added=list(edited.added),
                changed=list(edited.changed),
                same=list(edited.same),
                converged=_word(now, status),
            )
        )
        return status
    for word, names in (
        ("Set", edited.added),
        ("Changed", edited.changed),
        ("As it was", edited.same),
    ):
        if names:
            click.echo(f"{word}: {', '.join(names)}.")
    if not now:
        click.echo(_LATER)
    return status


def _word(now: bool, status: int) -> bool | None:
    return (status == EXIT_DONE) if now else None


def _bring(now: bool, as_json: bool, which: tuple[str | None, str | None, str | None]) -> int:
    if not now:
        return EXIT_DONE
    tell = Progress(quiet=as_json)
    try:
        outcome = workflow.bring(session(*which), tell)
    finally:
        tell.done()
    if not as_json:
        if outcome.plan.refusals:
            human.show_plan(outcome.plan)
        human.show_recap(outcome)
    if outcome.plan.refusals:
        return EXIT_REFUSED
    return EXIT_FAILED if outcome.failed or outcome.verified is False else EXIT_DONE
