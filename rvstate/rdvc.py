"""Settings of rDVC in the words of rvstate; pure.

Its two files have the tables `cluster`, `init`, `run` and `queue`, with sbatch's own names as keys
and an `instance`, which is a preset that its source code holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rvstate.command import check_template
from rvstate.errors import RvstateError
from rvstate.model.settings import Preset
from rvstate.slurm import duration

# The instance types of the published source; a fork has others.
_INSTANCES = {
    "t3.xlarge": ("general", 0, 2),
    "g5.xlarge": ("single-gpu", 1, 2),
    "g5.12xlarge": ("multi-gpu", 4, 24),
}
_SAME = ("begin", "comment", "deadline", "wckey")
_TABLES = frozenset({"cluster", "init", "run", "queue"})


@dataclass(frozen=True, slots=True)
class Translated:
    """What a file of rDVC says.

    Args:
        values: "table.key" to value, as `rvstate config set` takes them.
        left: What has no counterpart: the key, and why or what to do.
    """

    values: dict[str, Any]
    left: tuple[tuple[str, str], ...]


def translated(table: Mapping[str, Any], *, project: bool) -> Translated:
    """A file of rDVC as settings.

    Args:
        table: The file, read as TOML.
        project: Whether it is the project's; code that was cloned does not say where an account is.
    """
    values: dict[str, Any] = {}
    left: list[tuple[str, str]] = []
    for name, keys in table.items():
        if name not in _TABLES or not isinstance(keys, Mapping):
            left.append((name, "rDVC itself does not read it"))
            continue
        for key, value in keys.items():
            found = _one(name, key, value, project)
            if isinstance(found, str):
                left.append((f"{name}.{key}", found))
            else:
                values.update(found)
    if "notifications.email" in values:
        values["notifications.enabled"] = True
    return Translated(values, tuple(left))


def _one(table: str, key: str, value: Any, project: bool) -> dict[str, Any] | str:
    """The settings that one key comes to, or why there are none."""
    if table in ("init", "queue"):
        return "rvstate has no such command"
    text = str(value)
    if key in ("host", "username"):
        if project:
            return "a project does not say where your account is: rvstate init --host and --user do"
        return {f"connection.{'host' if key == 'host' else 'user'}": text}
    if table == "cluster":
        return "rDVC itself does not read it"
    if key in _SAME:
        return {f"defaults.{key}": text}
    return dict(_run(key, value)) or _without(key, value)


def _run(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    text = str(value)
    if key == "instance" and text in _INSTANCES:
        yield "defaults.preset", text
        for name, said in _preset(text).items():
            yield f"presets.{text}.{name}", said
    elif key == "mail-user":
        yield "notifications.email", text
    elif key == "mail-type":
        yield "notifications.mail_type", text
    elif key == "pull" and isinstance(value, bool):
        yield "dvc.pull", value
    elif key == "time" and (time := _time(text)):
        yield "defaults.time", time
    elif key == "job-name" and _is_name(text):
        yield "defaults.job_name", text


def _without(key: str, value: Any) -> str:
    if key == "instance":
        return (
            f"nobody here knows the instance type {value}: write [presets.{value!r}] and set preset"
        )
    if key == "time":
        return f"{value!r} is no walltime"
    if key == "job-name":
        return f"{value!r} cannot be the name of log files"
    if key == "pull":
        return "it is neither true nor false"
    return "rvstate has no such setting"


def _preset(instance: str) -> dict[str, Any]:
    """An instance type as rDVC asks for it: whole nodes with that feature."""
    partition, gpus, cpus = _INSTANCES[instance]
    found = Preset(
        gpus=gpus,
        nodes=1,
        exclusive=True,
        constraint=instance,
        mem="0",
        cpus=cpus,
        partition=partition,
    )
    keys = ("gpus", "nodes", "exclusive", "constraint", "mem", "cpus", "partition")
    return {key: getattr(found, key) for key in keys}


def _time(text: str) -> str | None:
    """A walltime in Slurm's spelling, where a plain number is minutes."""
    if text.isdecimal() and int(text):
        return f"{int(text)}m"
    try:
        seconds = duration.parse_slurm(text)
    except RvstateError:
        return None
    return duration.render(seconds) if seconds else None


def _is_name(text: str) -> bool:
    try:
        check_template(text)
    except RvstateError:
        return False
    return "{" not in text
