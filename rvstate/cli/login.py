"""`rvstate login`."""

from __future__ import annotations

import click

from rvstate.cli.common import account_options, json_option, session
from rvstate.errors import EXIT_DONE, EXIT_NOT_AUTHENTICATED, ConfigError
from rvstate.transport import Ssh
from rvstate.views import machine


@click.command()
@click.option("--check", is_flag=True, help="Only say whether you are logged in: exit 0 or 75.")
@click.option("--logout", is_flag=True, help="End the connection.")
@json_option
@account_options
def login(
    check: bool,
    logout: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Log in to the cluster once for the day.

    Opens the connection that every other command uses, for twelve hours; a password or a second
    factor is asked for here and not again. Without a person to ask, a key that suffices is used.
    """
    if check and logout:
        raise ConfigError("--check and --logout cannot both be.", "Choose one.")
    account = session(cluster, site, host)
    way = account.transport
    if not isinstance(way, Ssh):
        return _say(as_json, "no login is needed: commands run on this machine", EXIT_DONE)
    if check:
        if way.connected():
            return _say(as_json, f"logged in to {account.label}", EXIT_DONE)
        return _say(
            as_json,
            f"not logged in to {account.label}: `rvstate login` does it",
            EXIT_NOT_AUTHENTICATED,
        )
    if logout:
        ended = way.disconnect()
        text = "logged out of" if ended else "there was no connection to"
        return _say(as_json, f"{text} {account.label}", EXIT_DONE)
    if way.connected():
        return _say(as_json, f"already logged in to {account.label}", EXIT_DONE)
    way.open()
    return _say(as_json, f"logged in to {account.label}, for twelve hours", EXIT_DONE)


def _say(as_json: bool, text: str, status: int) -> int:
    if as_json:
        click.echo(machine.document("login", text=text, logged_in=status == EXIT_DONE))
    else:
        click.echo(f"{text[0].upper()}{text[1:]}.")
    return status
