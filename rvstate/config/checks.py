"""What cannot be right in one layer, said with its name before anything is done."""

from __future__ import annotations

import re
from collections.abc import Callable

from rvstate import schema
from rvstate.config.values import Layer
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.settings import (
    SCHEDULES,
    SECRET_KEYS,
    SECURITY,
    Defaults,
    Preset,
    Settings,
)
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
    if "defaults" in layer.table:
        _check_job("defaults", settings.defaults, layer)
        _check_template(settings.defaults.job_name, layer)
    for name, preset in settings.presets.items():
        _check_job(f"presets.{name}", preset, layer)
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
    if "mail_type" in layer.table.get("notifications", {}):
        # these and those below are loaded only where something is to be checked with them
        from rvstate.notification import mail_types

        wanted = "events that Slurm knows, for example END,FAIL"
        _check("notifications.mail_type", told.mail_type, mail_types, wanted, layer)
    if receiver.smtp_security not in SECURITY:
        raise _bad("receiver.smtp_security", layer, f"one of {', '.join(SECURITY)}", "Mend it.")


def _check_job(table: str, found: Defaults | Preset, layer: Layer) -> None:
    """What a job is asked for by settings, before any job is."""
    _check(
        f"{table}.time",
        found.time,
        duration.parse,
        "a walltime",
        layer,
        "For example 2h or 2:59:00.",
    )
    if found.comment is not None:
        from rvstate.slurm import token

        _check(f"{table}.comment", found.comment, token.check, "plain text", layer)
    for key, text in (("begin", found.begin), ("deadline", found.deadline)):
        if text:
            _check_moment(f"{table}.{key}", text, layer)
    for key, least in (("cpus", 1), ("nodes", 1), ("gpus", 0), ("gpus_per_node", 1)):
        count = getattr(found, key, None)
        if count is not None and count < least:
            raise _bad(f"{table}.{key}", layer, f"at least {least}", "Mend it.")


def _check_moment(key: str, text: str, layer: Layer) -> None:
    from rvstate.slurm import when

    def check(text: str) -> None:
        when.check(key, text)

    _check(key, text, check, "a moment", layer, "For example now+2hours.")


def _check_template(text: str | None, layer: Layer) -> None:
    if text is None:
        return
    from rvstate.command import check_template

    wanted = "made of {name}, {project}, {branch}, letters, digits and . _ - : + = @"
    _check("defaults.job_name", text, check_template, wanted, layer)


def _check(
    key: str,
    text: str | None,
    check: Callable[[str], object],
    wanted: str,
    layer: Layer,
    remedy: str = "Mend it.",
) -> None:
    if text is None:
        return
    try:
        check(text)
    except RvstateError as error:
        raise _bad(key, layer, wanted, remedy) from error


def _bad(key: str, layer: Layer, wanted: str, remedy: str) -> ConfigError:
    return ConfigError(f"{key} in {layer.name} is wrong: it should be {wanted}.", remedy)
