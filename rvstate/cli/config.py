"""`rvstate config`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rvstate import config as config_door
from rvstate import schema
from rvstate.cli.common import account_options, json_option, project_root
from rvstate.errors import EXIT_DONE
from rvstate.model.settings import SECRET_KEYS
from rvstate.views import account as view
from rvstate.views import machine


@click.group(invoke_without_command=True)
@click.option("--explain", is_flag=True, help="Every key, and which layer set it.")
@json_option
@account_options
@click.pass_context
def config(
    ctx: click.Context,
    explain: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Show the settings in force and where they come from.

    Layers, weakest first: site profile, config.toml, its table of the chosen cluster, the project's
    [tool.rvstate] or rvstate.toml, RVSTATE_* variables, options. Secrets are never shown.
    """
    if ctx.invoked_subcommand is not None:
        return EXIT_DONE
    options = {"connection": {"site": site, "host": host}}
    found = config_door.load(options=options, cluster=cluster, project=project_root(Path.cwd()))
    rows = config_door.explain(found)
    if as_json:
        document = machine.document(
            "config",
            path=str(found.path),
            cluster=found.cluster,
            site=found.site.name,
            settings=[
                {"key": r.key, "value": r.value, "layer": r.layer, "secret": r.secret} for r in rows
            ],
        )
        click.echo(document)
        return EXIT_DONE
    shown = rows if explain else [r for r in rows if r.layer != config_door.DEFAULT]
    view.show_settings(found, shown, everything=explain)
    return EXIT_DONE


@config.command()
def path() -> int:
    """Print where the config file is."""
    click.echo(config_door.config_path())
    return EXIT_DONE


@config.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--cluster", metavar="NAME", help="Set it in [clusters.NAME].")
@json_option
def set_(key: str, value: str, cluster: str | None, as_json: bool) -> int:
    """Set TABLE.KEY in the config file, which keeps its comments.

    A list is written with commas. `-` reads the value from standard input, as a secret should be.
    Nothing is written unless the whole file is valid afterwards.
    """
    kind = config_door.key_type(key)
    text = sys.stdin.read().removesuffix("\n") if value == "-" else value
    changed = config_door.set_keys({key: schema.read_text(kind, text, key)}, cluster=cluster)
    return _changed("config set", key, changed, as_json)


@config.command()
@click.argument("key")
@click.option("--cluster", metavar="NAME", help="Remove it from [clusters.NAME].")
@json_option
def unset(key: str, cluster: str | None, as_json: bool) -> int:
    """Remove TABLE.KEY from the config file."""
    changed = config_door.set_keys({key: None}, cluster=cluster)
    return _changed("config unset", key, changed, as_json)


def _changed(command: str, key: str, changed: tuple[str, ...], as_json: bool) -> int:
    where = config_door.config_path()
    if as_json:
        click.echo(machine.document(command, path=str(where), changed=list(changed)))
    elif not changed:
        click.echo(f"{key} is so already in {where}.")
    else:
        secret = tuple(key.split(".", 1)) in SECRET_KEYS
        click.echo(f"{'; '.join(changed)} changed in {where}{' (a secret)' if secret else ''}.")
    return EXIT_DONE
