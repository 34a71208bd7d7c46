"""`rvstate forward`."""

from __future__ import annotations

import re

import click

from rvstate import tunnel
from rvstate.cli.common import account_options, json_option, session
from rvstate.config import home
from rvstate.errors import ConfigError
from rvstate.state import State
from rvstate.views import runs as view
from rvstate.workflows import enter
from rvstate.workflows import forward as workflow

_PORT = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN] [PORT[:REMOTE]]")
@click.option("--node", metavar="N", help="Which of its nodes: a name, or a number from 0.")
@click.option("--auto", is_flag=True, help="Forward every service that is known by its port.")
@click.option("--jupyter", is_flag=True, help="Start Jupyter in the job and forward it.")
@click.option("--list", "show", is_flag=True, help="List the tunnels of this machine.")
@click.option("--stop", is_flag=True, help="End the tunnel at PORT, or all of them.")
@json_option
@account_options
def forward(
    words: tuple[str, ...],
    node: str | None,
    auto: bool,
    jupyter: bool,
    show: bool,
    stop: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Reach a service in a running job from this machine.

    PORT is the port here, REMOTE the one on the node; default: the same. RUN is a job id, a run id
    or a job's name; default: the newest that runs. The service may listen on the node's loopback
    only. Each tunnel is a process of its own that reconnects, until it is stopped or the job ends.
    """
    if sum((auto, jupyter, show, stop)) > 1:
        raise ConfigError("--auto, --jupyter, --list and --stop exclude each other.", "Give one.")
    folder = State(home()).tunnels
    tunnel.sweep(folder)
    if show:
        return _list(tunnel.tunnels(folder), as_json)
    if stop:
        ports = [int(word) for word in words if word.isdigit()]
        if len(ports) != len(words):
            raise ConfigError(
                "--stop takes ports of this machine.", "See `rvstate forward --list`."
            )
        ended = [p for p in ports if tunnel.stop(folder, p)] if ports else tunnel.stop_all(folder)
        if as_json:
            click.echo(view.document("forward", stopped=ended))
        else:
            click.echo(f"Ended: {', '.join(map(str, ended)) or 'there was none'}.")
        return 0
    run, port, remote = _read(words, needed=not (auto or jupyter))
    account = session(cluster, site, host)
    place = enter.find(account, run, node)
    if auto:
        made = workflow.found(account, place)
    elif jupyter:
        made = (workflow.jupyter(account, place, port),)
    else:
        assert port is not None
        made = (workflow.forward(account, place, port, remote or port),)
    if as_json:
        rows = [{**one.tunnel.document(), "address": one.address} for one in made]
        click.echo(view.document("forward", tunnels=rows))
        return 0
    for one in made:
        what = f" {one.tunnel.what}" if one.tunnel.what else ""
        click.echo(f"{one.address} -> {one.tunnel.node}:{one.tunnel.remote}{what}")
        click.echo(f"  until the job ends, or: rvstate forward --stop {one.tunnel.port}")
    if jupyter:
        click.echo("  What you save lies in the run's snapshot, which prune now leaves alone.")
    return 0


def _list(found: tuple[tunnel.Tunnel, ...], as_json: bool) -> int:
    if as_json:
        click.echo(view.document("forward", tunnels=[one.document() for one in found]))
        return 0
    for one in found:
        click.echo(one.words)
    if not found:
        click.echo("There are no tunnels.")
    return 0


def _read(words: tuple[str, ...], *, needed: bool) -> tuple[str | None, int | None, int | None]:
    """RUN, PORT and REMOTE; a single word is a port where one is needed, and a run elsewhere."""
    if len(words) > 2 or (needed and not words):
        raise ConfigError("Which port?", "For example: rvstate forward 8888, or --auto.")
    has_port = len(words) == 2 or (words and (needed or ":" in words[-1]))
    run = words[0] if len(words) == 2 or (words and not has_port) else None
    if not has_port:
        return run, None, None
    match = _PORT.fullmatch(words[-1])
    numbers = [int(n) for n in match.groups() if n] if match else []
    if not numbers or not all(1 <= n <= 65535 for n in numbers):
        raise ConfigError(
            f"{words[-1]!r} is not PORT or PORT:REMOTE.", "For example: rvstate forward 8888:8000."
        )
    return run, numbers[0], numbers[1] if len(numbers) > 1 else None
