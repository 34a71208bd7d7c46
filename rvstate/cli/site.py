"""`rvstate site`."""

from __future__ import annotations

import click

from rvstate import config
from rvstate.cli.common import Progress, account_options, json_option, session
from rvstate.errors import EXIT_DONE, MissingToolError
from rvstate.views import machine
from rvstate.workflows import discover, site_draft


@click.group()
def site() -> None:
    """Show site profiles, or draft one from a live cluster.

    A profile is what a computing centre offers and allows: partitions, GPUs, modules, scratch and
    its purge. Your own are files in ~/.rv/sites and go before those of the same name in rvstate.
    """


@site.command("list")
@json_option
def list_(as_json: bool) -> int:
    """List the site profiles."""
    names = config.site_names()
    sites = [(name, config.load_site(name), config.site_text(name)[1]) for name in names]
    if as_json:
        rows = [{"name": n, "title": s.title, "checked": s.checked, "from": w} for n, s, w in sites]
        click.echo(machine.document("site list", sites=rows))
    else:
        for name, found, where in sites:
            click.echo(f"{name:<12} {found.title} ({where})")
    return EXIT_DONE


@site.command()
@click.argument("name")
def show(name: str) -> int:
    """Print a site profile."""
    click.echo(config.site_text(name)[0], nl=False)
    return EXIT_DONE


@site.command()
@click.argument("name")
@click.option("--write", is_flag=True, help="Keep it in ~/.rv/sites instead of printing it.")
@click.option("--force", is_flag=True, help="Replace one that is there.")
@json_option
@account_options
def draft(
    name: str,
    write: bool,
    force: bool,
    as_json: bool,
    cluster: str | None,
    site: str | None,
    host: str | None,
) -> int:
    """Draft a site profile from what a live cluster reports.

    NAME is the new profile's. Asks sinfo and `module avail` with one remote command. What no
    command tells, such as the purge, is left `unknown` for you to look up.
    """
    account = session(cluster, site, host)
    tell = Progress(quiet=as_json)
    tell(f"looking at {account.label}")
    found = discover.discover(account, modules=True)
    tell.done()
    if not found.partitions:
        raise MissingToolError(
            f"{account.label} names no partitions, so there is nothing to draft from.",
            "Run it against a login node of a Slurm cluster; `rvstate doctor` looks further.",
        )
    head, table = site_draft.draft(found, name)
    text = config.toml(table, head)
    config.read_site(text, f"the draft of {name}")
    path = config.keep_site(name, text, replace=force) if write else None
    if as_json:
        where = str(path) if path else None
        click.echo(machine.document("site draft", name=name, path=where, profile=table))
    elif path is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"Written: {path}")
        click.echo(f"Next: look it through, then `rvstate config set connection.site {name}`.")
    return EXIT_DONE
