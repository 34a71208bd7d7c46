"""The parts of `rvstate init` that connect to nothing: the user's own and the project's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from rvstate import config
from rvstate.cli.common import agree, project_root
from rvstate.errors import EXIT_DONE, ConfigError
from rvstate.views import account as view
from rvstate.views import machine
from rvstate.workflows import init as workflow

_Set = Callable[[Mapping[str, Any]], tuple[str, ...]]


def user(given: Mapping[str, str | None], ask: bool, as_json: bool) -> int:
    """What is the same on every cluster: whom to tell, what jobs are called."""
    before = config.raw()
    told = before.get("notifications", {})
    email = given["email"]
    if email is None and ask:
        email = _asked("Whom Slurm mails when a job ends (empty: nobody)", told.get("email"))
    values: dict[str, Any] = {}
    if email:
        values["notifications.email"] = email
    if given["notify_url"]:
        values["notifications.url"] = given["notify_url"]
        if not told.get("token"):
            values["notifications.token"] = workflow.new_token()
    if values:
        values["notifications.enabled"] = True
    if given["job_name"] is not None:
        values["defaults.job_name"] = given["job_name"]
    config.preview(values)
    return _written("user", config.config_path(), values, before, ask, as_json, config.set_keys)


def project(given: Mapping[str, str | None], ask: bool, as_json: bool) -> int:
    """What counts for everybody who works on the project that the user stands in."""
    root = project_root(Path.cwd())
    if root is None:
        raise ConfigError(
            f"{Path.cwd()} is no project.", "Stand in the project's own directory, and try again."
        )
    before = config.raw_project(root)
    said = before.get("defaults", {})
    presets = config.load(project=root).settings.presets
    preset, wckey = given["preset"], given["wckey"]
    if preset is None and ask and presets:
        usual = said.get("preset", "")
        click.echo(f"Presets: {', '.join(presets)}.", err=True)
        preset = _asked("The preset that each run has (empty: none)", usual)
    if preset and preset not in presets:
        raise ConfigError(
            f"There is no preset {preset!r}.",
            f"Known: {', '.join(presets) or 'none'}; write [presets.{preset}] first, or let "
            "`rvstate init --presets` propose some.",
        )
    if wckey is None and ask:
        wckey = _asked("The key that accounting counts it under (empty: none)", said.get("wckey"))
    found = {"preset": preset, "wckey": wckey, "job_name": given["job_name"]}
    values = {f"defaults.{key}": value for key, value in found.items() if value}
    path, _ = config.project_file(root)

    def keep(values: Mapping[str, Any]) -> tuple[str, ...]:
        return config.set_project_keys(root, values)[1]

    return _written("project", path, values, before, ask, as_json, keep)


def _asked(question: str, usual: str | None) -> str:
    answer: str = click.prompt(question, default=usual or "", show_default=bool(usual), err=True)
    return answer.strip()


def _written(
    part: str,
    path: Path,
    values: Mapping[str, Any],
    before: dict[str, Any],
    ask: bool,
    as_json: bool,
    keep: _Set,
) -> int:
    """Show what would be set, ask, set it, and say so."""
    changes = config.differences(values, before)
    if not as_json:
        view.show_changes(changes)
    if ask and changes:
        agree(
            f"Write this to {path}?",
            "Nothing was written.",
            "Every question is an option too: `rvstate init --help`.",
            default=True,
        )
    changed = keep(values)
    if as_json:
        click.echo(machine.document("init", part=part, config=str(path), changed=list(changed)))
    else:
        click.echo(f"Written: {path}" if changed else view.nothing_changed(path))
    return EXIT_DONE
