"""`rvstate config`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rvstate import config as config_door
from rvstate import schema
from rvstate.cli.common import account_options, agree, json_option, may_ask, project_root
from rvstate.errors import EXIT_DONE, ConfigError
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


@config.command("import-rdvc")
@click.option("--dry-run", is_flag=True, help="Show what it comes to; write nothing.")
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@json_option
def import_rdvc(dry_run: bool, yes: bool, as_json: bool) -> int:
    """Take over the settings of rDVC: yours, and those of the project that you stand in.

    Its files are only read. What you have configured already stays, and what has no counterpart is
    listed.
    """
    from rvstate.workflows import import_rdvc as workflow

    here = Path.cwd()
    found = workflow.imports(here, project_root(here))
    if not as_json:
        for one in found:
            click.echo(f"{one.source} → {one.target}")
            view.show_changes(one.changes)
            view.show_left("Without a counterpart:", one.left)
    pending = any(one.changes for one in found)
    if pending and not dry_run and not yes:
        if as_json or not may_ask():
            raise ConfigError(
                "Nobody is here to be asked, so nothing was written.",
                "Add -y, or --dry-run to look.",
            )
        agree("Write this?", "Nothing was written.", "--dry-run only shows it.", default=True)
    written = [one for one in found if one.changes and not dry_run]
    for one in written:
        one.keep(one.values)
    if as_json:
        files = [
            {
                "source": str(one.source),
                "target": str(one.target),
                "set": {key: value for key, value, _ in one.changes},
                "left": dict(one.left),
            }
            for one in found
        ]
        click.echo(machine.document("config import-rdvc", files=files, written=bool(written)))
    elif not pending:
        click.echo("Nothing to take over: all of it is so already.")
    else:
        for one in written:
            click.echo(f"Written: {one.target}")
    return EXIT_DONE


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
