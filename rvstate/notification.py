"""Telling about runs: what is told, by what way, and how it is signed; pure."""

from __future__ import annotations

import json
import re

from rvstate.errors import ConfigError
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
# sbatch(1), --mail-type: END is every end, FAIL says so in the subject.
_MAIL_TYPES = ("END", "FAIL", "REQUEUE")
# HMAC-SHA256 takes up to 64 bytes as they are (RFC 2104), and remote/notify.sh no more.
_TOKEN = re.compile(r"[!-~]{16,64}")


def by_mail(settings: Settings, site: Site) -> bool:
    """Whether Slurm itself mails: an address is set, and no webhook."""
    told = settings.notifications
    return bool(told.enabled and told.email and not told.url and site.scheduler == "slurm")


def by_webhook(settings: Settings) -> bool:
    """Whether signed events are sent."""
    return bool(settings.notifications.enabled and settings.notifications.url)


def mail_options(settings: Settings, site: Site) -> tuple[tuple[str, ...], str]:
    """`--mail-type` and `--mail-user`; empty where Slurm is not to mail."""
    if not by_mail(settings, site):
        return (), ""
    return _MAIL_TYPES, settings.notifications.email or ""


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
