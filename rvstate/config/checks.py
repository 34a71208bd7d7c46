"""What cannot be right in one layer, said with its name before anything is done."""

from __future__ import annotations

import re

from rvstate import schema
from rvstate.config.values import Layer
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.settings import SCHEDULES, SECRET_KEYS, SECURITY, Settings
from rvstate.model.site import MODES
from rvstate.slurm import duration

OWN_KEYS = ("clusters", "default_cluster")
# Where the account is, who is told, and what is secret: code that was cloned says none of that.
_PERSONAL = frozenset({"connection", "paths", "receiver"})
_PERSONAL_KEYS = frozenset(
    {
        ("notifications", "url"),
        ("defaults", "ai_naming"),
        ("scratch_keepalive", "permission"),
        ("scratch_keepalive", "schedule"),
        ("scratch_keepalive", "time"),
        *SECRET_KEYS,
    }
)


def check_layer(layer: Layer) -> None:
    """Raise ConfigError for the first thing in it that cannot be right."""
    for key in layer.table:
        if key not in schema.keys(Settings):
            raise schema.unknown_key((key,), (*schema.keys(Settings), *OWN_KEYS), layer.name)
    settings = schema.build(Settings, layer.table, layer.name)
    connection, paths = settings.connection, settings.paths
    for key, text in (("host", connection.host), ("user", connection.user)):
        if text is not None and (not text or text.startswith("-") or not text.isprintable()):
            raise _bad(f"connection.{key}", layer, "a name", "Give a name, for example rivanna.")
    for key, text in (("host", connection.host), ("hostname", connection.hostname)):
        if text is not None and (" " in text or text.startswith("-")):
            raise _bad(f"connection.{key}", layer, "one name without blanks", "Mend it.")
    for key, text in (("scratch", paths.scratch), ("home", paths.home)):
        if text is not None and not text.startswith(("/", "{home}", "{state}")):
            raise _bad(f"paths.{key}", layer, "an absolute path", "Write it from / on.")
    if connection.ssh_config is not None and not connection.ssh_config.startswith(("/", "~")):
        raise _bad("connection.ssh_config", layer, "an absolute path", "Write it from / or ~ on.")
    if settings.scratch_keepalive.mode not in (None, *MODES):
        raise _bad("scratch_keepalive.mode", layer, f"one of {', '.join(MODES)}", "Mend it.")
    _check_schedule(settings, layer)
    if settings.defaults.time is not None:
        _check_time(settings.defaults.time, layer)
    if settings.defaults.cpus is not None and settings.defaults.cpus < 1:
        raise _bad("defaults.cpus", layer, "at least 1", "Mend it.")
    _check_notifications(settings, layer)


def check_project(layer: Layer) -> None:
    """Raise ConfigError where a project would choose where the user's files and secrets go."""
    for table, keys in layer.table.items():
        for key in keys if isinstance(keys, dict) else ():
            if table in _PERSONAL or (table, key) in _PERSONAL_KEYS:
                raise ConfigError(
                    f"{table}.{key} is set in {layer.name}, and a project may not set it: code "
                    "from elsewhere would choose where your files and secrets go.",
                    f"Remove it there, and set it for yourself: `rvstate config set {table}.{key} "
                    "VALUE`.",
                )


def _check_schedule(settings: Settings, layer: Layer) -> None:
    found = settings.scratch_keepalive
    if found.schedule not in (None, "auto", "none", *SCHEDULES):
        wanted = f"one of auto, none, {', '.join(SCHEDULES)}"
        raise _bad("scratch_keepalive.schedule", layer, wanted, "Mend it, or leave it out.")
    if found.time is not None and not re.fullmatch(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", found.time):
        raise _bad("scratch_keepalive.time", layer, "a time of the day", "For example 04:17.")


# An address without what a shell, a line of curl's settings or a header could take for its own.
_URL = re.compile(r"https://[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+")
_LOOPBACK = re.compile(r"http://(?:127\.[0-9.]+|localhost|\[::1\])(?::[0-9]+)?(?:/\S*)?")
_ADDRESS = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+")


def _check_notifications(settings: Settings, layer: Layer) -> None:
    told, receiver = settings.notifications, settings.receiver
    for key, text in (("notifications.url", told.url), ("receiver.chat_url", receiver.chat_url)):
        plain = text is not None and _URL.fullmatch(text.replace("http://", "https://", 1))
        if text is not None and not (plain and (_URL.fullmatch(text) or _LOOPBACK.fullmatch(text))):
            wanted = "an https address (http only on this machine itself)"
            raise _bad(key, layer, wanted, "For example https://notify.example.org/.")
    for key, text in (
        ("notifications.email", told.email),
        ("receiver.sender", receiver.sender),
        ("receiver.recipient", receiver.recipient),
    ):
        if text is not None and not (_ADDRESS.fullmatch(text) and text.isprintable()):
            raise _bad(key, layer, "one mail address", "For example abc1de@example.org.")
    if receiver.smtp_security not in SECURITY:
        raise _bad("receiver.smtp_security", layer, f"one of {', '.join(SECURITY)}", "Mend it.")


def _check_time(text: str, layer: Layer) -> None:
    try:
        duration.parse(text)
    except RvstateError as error:
        raise _bad("defaults.time", layer, "a walltime", "For example 2h or 2:59:00.") from error


def _bad(key: str, layer: Layer, wanted: str, remedy: str) -> ConfigError:
    return ConfigError(f"{key} in {layer.name} is wrong: it should be {wanted}.", remedy)
