"""Options that several commands share, and how they read the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rvstate.config import cluster_names
from rvstate.errors import ConfigError, Interrupted, RefusedError
from rvstate.workflows import behind
from rvstate.workflows.session import Session, open_session

_F = TypeVar("_F", bound=Callable[..., Any])


def account_options(function: _F) -> _F:
    """`--cluster`, `--site` and `--host`: which account."""
    for option in (
        click.option("--host", metavar="ALIAS", help="ssh alias of the login node, or @local."),
        click.option("--site", metavar="NAME", help="Site profile, for example uva or local."),
        click.option("--cluster", metavar="NAME", help="Which [clusters.NAME] of config.toml."),
    ):
        function = option(function)
    return function


def json_option(function: _F) -> _F:
    """`--json`: one document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(
        function
    )


def session(cluster: str | None, site: str | None, host: str | None, **more: Any) -> Session:
    """The account that the options name."""
    options = {"connection": {"site": site, "host": host}, **more.pop("options", {})}
    found = open_session(options, cluster=cluster, interactive=may_ask(), **more)
    context = click.get_current_context(silent=True)
    if context is not None and context.command_path.split()[1:2] != ["keepalive"]:
        context.call_on_close(lambda: behind.begin(found))
    return found


def project_root(here: Path) -> Path | None:
    """The root of the project that the user stands in, whose settings count; None in none."""
    from rvstate.git import find_root

    try:
        return find_root(here)
    except RefusedError:
        # who needs a project says so with the way out, after the settings were read
        return None


def sessions() -> tuple[Session, ...]:
    """Every account that the config file names as a cluster.

    Raises:
        ConfigError: It names none.
    """
    names = cluster_names()
    if not names:
        raise ConfigError(
            "There are no [clusters.NAME] tables in config.toml.",
            "Add one for each account, or leave out --all.",
        )
    # nobody can answer the questions of several logins at once
    return tuple(open_session(cluster=name) for name in names)


def may_ask() -> bool:
    """Whether a person can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agree(question: str, otherwise: str, remedy: str, *, default: bool = False) -> None:
    """Ask; a no ends the command as Ctrl-C does, and says what was not done and what to do.

    Raises:
        Interrupted: The answer was no.
    """
    if not click.confirm(question, default=default, err=True):
        raise Interrupted(otherwise, remedy)


class Progress:
    """One line on standard error that says what is being done; silent unless a person looks."""

    def __init__(self, quiet: bool = False) -> None:
        self._live = sys.stderr.isatty() and not quiet
        self._shown = False

    def __call__(self, what: str) -> None:
        """Show it in the place of what was shown."""
        if self._live:
            click.echo(f"\r\x1b[2K{click.style('…', dim=True)} {what}", err=True, nl=False)
            self._shown = True

    def done(self) -> None:
        """Clear the line."""
        if self._shown:
            click.echo("\r\x1b[2K", err=True, nl=False)
            self._shown = False
