"""Telling about runs: what is told, by what way, and how it is signed; pure."""

from __future__ import annotations

import json
import re

from rvstate.errors import ConfigError, nearest
from rvstate.model.settings import Settings
from rvstate.model.site import Site

EVENTS = (
    "STARTED",
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "CANCELLED",
    "RESUBMITTED",
)
TEST = "TEST"
SCHEMA = 1
# sbatch(1), --mail-type.
_MAIL_TYPES = (
    *("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT"),
    *("TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS"),
)
_ADDRESS = re.compile(r"[^\s@,;<>\"]+(?:@[^\s@,;<>\"]+)?")
# HMAC-SHA256 takes up to 64 bytes as they are (RFC 2104), and remote/notify.sh no more.
_TOKEN = re.compile(r"[!-~]{16,64}")


def by_mail(settings: Settings, site: Site) -> bool:
    """Whether Slurm itself mails: an address is set, and no webhook."""
    told = settings.notifications
    return bool(told.enabled and told.email and not told.url and site.scheduler == "slurm")


def by_webhook(settings: Settings) -> bool:
    """Whether signed events are sent."""
    return bool(settings.notifications.enabled and settings.notifications.url)


def mail_options(
    settings: Settings, site: Site, types: str | None = None, user: str | None = None
) -> tuple[tuple[str, ...], str]:
    """`--mail-type` and `--mail-user`; empty where Slurm is not to mail.

    Args:
        settings: Whom to tell where nothing else was asked for.
        site: Where the job runs.
        types: What was asked for, with commas; None for as the settings say.
        user: The same for whom; one of both is enough, and Slurm itself knows its users.

    Raises:
        ConfigError: Slurm knows no such event, or the address is none.
    """
    asked = bool(types or user)
    if site.scheduler != "slurm" or not (asked or by_mail(settings, site)) or types == "":
        return (), ""
    to = settings.notifications.email if user is None else user
    if to and not (_ADDRESS.fullmatch(to) and to.isprintable()):
        raise ConfigError(f"{to!r} is not one mail address.", "For example abc1de@example.org.")
    return mail_types(types or settings.notifications.mail_type), to or ""


def mail_types(text: str) -> tuple[str, ...]:
    """What Slurm is to mail about, from `END,FAIL`.

    Raises:
        ConfigError: Slurm knows no such event.
    """
    found = tuple(word.strip().upper() for word in text.split(","))
    for word in found:
        if word not in _MAIL_TYPES:
            near = nearest(word, _MAIL_TYPES)
            raise ConfigError(
                f"Slurm sends no mail about {word!r}.",
                f"Did you mean {near}?" if near else f"It knows: {', '.join(_MAIL_TYPES)}.",
            )
    return found


def notices(settings: Settings, site: Site) -> tuple[str, ...]:
    """What of the settings does nothing here, in words."""
    told = settings.notifications
    if told.enabled and told.email and not told.url and site.scheduler != "slurm":
        return (
            f"{site.title} has no Slurm to send mail, so nobody is told; set notifications.url",
        )
    return ()


def secret(settings: Settings) -> str:
    """The secret that signs events.

    Raises:
        ConfigError: There is none, or one that cannot be used.
    """
    token = settings.notifications.token
    if token is None:
        raise ConfigError(
            "[notifications] has no token to sign events with.",
            "Run `rvstate init --notify-url ADDRESS`, which makes one.",
        )
    if not _TOKEN.fullmatch(token):
        raise ConfigError(
            "token in [notifications] is not 16 to 64 letters, digits and signs without blanks.",
            "Remove it and run `rvstate init --notify-url ADDRESS`, which makes one.",
        )
    return token


def file_text(settings: Settings) -> str | None:
    """What the account's own file holds: address and secret, a line each.

    Returns:
        Empty where events were wanted once and are no more; None where there is nothing to keep.

    Raises:
        ConfigError: As `secret`.
    """
    if by_webhook(settings):
        return f"{settings.notifications.url}\n{secret(settings)}\n"
    return "" if settings.notifications.url else None


def base(*, run_id: str, name: str, project: str, cluster: str, user: str) -> str:
    """The beginning of an event's JSON object, which `remote/notify.sh` completes."""
    known = {
        "schema": SCHEMA,
        "run": run_id,
        "name": name,
        "project": project,
        "cluster": cluster,
        "user": user,
    }
    return json.dumps(known).removesuffix("}")


def has_after_job(site: Site) -> bool:
    """Whether something runs behind each job here; else the next `rvstate ps` tells."""
    if site.scheduler == "process":
        return True
    return site.scheduling.after_job == "allowed" and site.compute_internet is not False
