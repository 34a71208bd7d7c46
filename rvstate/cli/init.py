"""`rvstate init`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from rvstate import config
from rvstate.cli.common import Progress, agree, json_option, may_ask
from rvstate.errors import EXIT_DONE, ConfigError
from rvstate.model.settings import Preset
from rvstate.transport import LOCAL
from rvstate.views import account as view
from rvstate.views import machine
from rvstate.workflows import init as workflow
from rvstate.workflows.init import Looked, Written

# What each part asks about, beside the cluster's.
_USER = ("email", "notify_url", "job_name")
_PROJECT = ("preset", "wckey", "job_name")


@click.command()
@click.argument("part", required=False, type=click.Choice(("user", "cluster", "project")))
@click.option("--host", metavar="ALIAS", help="ssh alias or address of the login node, or @local.")
@click.option(
    "--hostname", metavar="ADDRESS", help="Its address, where ssh does not know the alias."
)
@click.option("--user", metavar="NAME", help="Your name there; default: as ssh has it.")
@click.option("--ssh-config", metavar="FILE", help="Another ssh configuration (as ssh -F).")
@click.option("--site", metavar="NAME", help="Site profile; default: the one that fits.")
@click.option("--account", metavar="NAME", help="Allocation that pays for jobs.")
@click.option("--scratch", metavar="PATH", help="Scratch directory; default: what is found.")
@click.option("--hf-cache", metavar="PATH", help="Hugging Face cache that your group shares.")
@click.option("--email", metavar="ADDRESS", help="Whom Slurm mails when a job ends.")
@click.option("--notify-url", metavar="URL", help="Where signed events about jobs are sent.")
@click.option(
    "--ssh-config-block/--no-ssh-config-block",
    "ssh_block",
    default=None,
    help="Make the alias known to ssh, in one marked block of its configuration.",
)
@click.option(
    "--presets/--no-presets",
    default=None,
    help="Keep presets that fit what the cluster reports; without either, you are asked once.",
)
@click.option("--preset", metavar="NAME", help="Of the project: the preset that each run has.")
@click.option("--wckey", metavar="KEY", help="Of the project: the key that accounting counts.")
@click.option("--job-name", metavar="TEMPLATE", help="As {name}:{project}:{branch}.")
@click.option("--cluster", metavar="NAME", help="Write to [clusters.NAME], for a second cluster.")
@click.option("--default", "is_default", is_flag=True, help="With --cluster: the one to use.")
@click.option("-y", "--yes", is_flag=True, help="Write without asking.")
@json_option
def init(
    part: str | None,
    host: str | None,
    hostname: str | None,
    user: str | None,
    ssh_config: str | None,
    site: str | None,
    account: str | None,
    scratch: str | None,
    hf_cache: str | None,
    email: str | None,
    notify_url: str | None,
    ssh_block: bool | None,
    presets: bool | None,
    preset: str | None,
    wckey: str | None,
    job_name: str | None,
    cluster: str | None,
    is_default: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Set up rvstate for your account on a cluster.

    Asks for what no option says, tries the connection, looks around, and writes the config file;
    nothing is written before. What is configured already stays: run it again at any time.

    `init cluster`, which is what no word means, is about the account; `init user` about you, and
    `init project` about the project that you stand in. Those two connect to nothing.
    """
    given = {
        "connection.host": host,
        "connection.hostname": hostname,
        "connection.user": user,
        "connection.ssh_config": ssh_config,
        "connection.site": site,
        "defaults.account": account,
        "shared.hf_cache": hf_cache,
        "notifications.email": email,
        "notifications.url": notify_url,
        "defaults.job_name": job_name,
    }
    ask = may_ask() and not as_json and not yes
    mine = {"email": email, "notify_url": notify_url, "job_name": job_name}
    theirs = {"preset": preset, "wckey": wckey, "job_name": job_name}
    if part in ("user", "project"):
        _check_part(click.get_current_context(), part)
        from rvstate.cli import init_parts

        return (
            init_parts.user(mine, ask, as_json)
            if part == "user"
            else init_parts.project(theirs, ask, as_json)
        )
    for name in ("preset", "wckey"):
        if theirs[name] is not None:
            raise ConfigError(
                f"--{name} says something of a project.",
                f"rvstate init project --{name} {theirs[name]}",
            )
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if email or notify_url:
        values["notifications.enabled"] = True
    before = _flat(config.raw(cluster))
    if notify_url and not before.get("notifications.token"):
        values["notifications.token"] = workflow.new_token()
    _connection(values, before, ask)
    block = _wants_block(values, before, ssh_block, ask)
    session = workflow.open_account(values, cluster, interactive=may_ask())
    tell = Progress(quiet=as_json)
    tell(f"connecting to {session.label}")
    looked = workflow.look(session, values, scratch)
    tell.done()
    if not as_json:
        view.show_found(looked)
    values = workflow.complete(looked)
    _defaults(values, before, looked, ask)
    # who was asked once has answered
    fresh = "connection.host" not in before
    values |= _presets(workflow.offered(session, looked), presets, ask=ask, fresh=fresh)
    changes = config.differences(values, config.raw(cluster))
    if ask and changes:
        view.show_changes(changes)
        agree(
            f"Write this to {config.config_path()}?",
            "Nothing was written.",
            "Every question is an option too: `rvstate init --help`.",
            default=True,
        )
    written = workflow.write(
        {**before, **values} if block else values, cluster=cluster, ssh_block=block
    )
    if cluster and is_default:
        config.set_keys({}, more={"default_cluster": cluster})
    _report(written, () if ask else changes, looked, as_json, cluster)
    return EXIT_DONE


def _check_part(context: click.Context, part: str) -> None:
    """Refuse an option that says something of another part.

    Raises:
        ConfigError: There is one.
    """
    own = {"user": _USER, "project": _PROJECT}[part]
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in (*own, "part", "yes", "as_json"):
            raise ConfigError(
                f"{parameter.opts[0]} is no option of `rvstate init {part}`.",
                f"It has --{', --'.join(own).replace('_', '-')}, --yes and --json.",
            )


def _presets(
    offered: Mapping[str, Preset], wanted: bool | None, *, ask: bool, fresh: bool
) -> dict[str, Any]:
    """The settings of the presets that the user takes: all of them, or none."""
    if not offered or wanted is False or (wanted is None and not ask):
        return {}
    if wanted is None and not fresh:
        click.echo(f"`rvstate init --presets` keeps presets: {', '.join(offered)}.", err=True)
        return {}
    if wanted is None:
        view.show_presets(offered)
        question = "Keep these as presets, for `rvstate run --preset NAME`?"
        if not click.confirm(question, default=True, err=True):
            return {}
    return workflow.preset_keys(offered)


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """What the file has, as "table.key"."""
    return {
        f"{name}.{key}": value
        for name, keys in table.items()
        if isinstance(keys, dict) and name != "clusters"
        for key, value in keys.items()
    }


def _connection(values: dict[str, Any], before: Mapping[str, Any], ask: bool) -> None:
    host = values.get("connection.host") or before.get("connection.host")
    ssh_config = values.get("connection.ssh_config") or before.get("connection.ssh_config")
    if "connection.host" not in values and ask:
        known = workflow.known_hosts(ssh_config)
        if known and not host:
            click.echo(f"Your ssh configuration knows: {', '.join(known[:12])}.", err=True)
        usual = host or (LOCAL if workflow.here() else None)
        host = click.prompt("Login node (ssh alias or address)", default=usual, err=True)
        values["connection.host"] = host.strip()
    if not host:
        raise ConfigError(
            "No login node was named, and there is nobody to ask.",
            "Give --host ALIAS (an ssh alias or address; @local on a login node itself).",
        )
    if host == LOCAL or not ask:
        return
    user = values.get("connection.user") or before.get("connection.user")
    if "connection.user" not in values:
        answer = click.prompt(
            "Your user name there (empty: as ssh has it)",
            default=user or "",
            show_default=bool(user),
            err=True,
        )
        if answer.strip():
            values["connection.user"] = answer.strip()
    known_as = workflow.address(host, user, ssh_config)
    has = values.get("connection.hostname") or before.get("connection.hostname")
    if not has and known_as == host and "." not in host:
        answer = click.prompt(
            f"ssh does not know {host!r}; its address (empty: the name itself)",
            default="",
            show_default=False,
            err=True,
        )
        if answer.strip():
            values["connection.hostname"] = answer.strip()


def _wants_block(
    values: Mapping[str, Any], before: Mapping[str, Any], wanted: bool | None, ask: bool
) -> bool:
    if wanted is not None or not ask or not values.get("connection.hostname"):
        return bool(wanted)
    host = values.get("connection.host") or before.get("connection.host")
    path = workflow.ssh_config_path(
        values.get("connection.ssh_config") or before.get("connection.ssh_config")
    )
    return click.confirm(
        f"Also let plain `ssh {host}` work, by one marked block in {path}?",
        default=False,
        err=True,
    )


def _defaults(values: dict[str, Any], before: Mapping[str, Any], looked: Looked, ask: bool) -> None:
    """The allocation: the only one, or the one that is chosen."""
    has = values.get("defaults.account") or before.get("defaults.account")
    accounts = looked.found.accounts
    if has or not accounts:
        return
    usual = looked.found.default_account or accounts[0]
    if len(accounts) > 1 and ask:
        usual = click.prompt(
            "Allocation that pays for jobs",
            type=click.Choice(accounts),
            default=usual if usual in accounts else accounts[0],
            err=True,
        )
    values["defaults.account"] = usual


def _report(
    written: Written,
    changes: Iterable[tuple[str, Any, Any]],
    looked: Looked,
    as_json: bool,
    cluster: str | None,
) -> None:
    which = f" --cluster {cluster}" if cluster else ""
    steps = [f"rvstate converge{which}     # make the account as declared; shows a plan first"]
    if looked.site == "generic":
        steps.insert(0, f"rvstate site draft NAME --write{which}     # describe this cluster")
    if not as_json:
        view.show_changes(changes)
        view.show_written(written, steps)
        return
    found = looked.found
    click.echo(
        machine.document(
            "init",
            config=str(written.path),
            changed=list(written.changed),
            ssh_config=str(written.ssh_config) if written.ssh_config else None,
            site=looked.site,
            account={"user": found.user, "home": found.home, "shell": found.shell},
            accounts=list(found.accounts),
            partitions=[p.name for p in found.partitions],
            scratch=[p.path for p in found.places if p.writable],
            next=[step.split("  ")[0] for step in steps],
        )
    )
