"""Moments as sbatch(1) reads them in `--begin` and `--deadline`, checked before a run is sent."""

from __future__ import annotations

import datetime
import re

from rvstate.errors import ConfigError

_WORDS = frozenset({"now", "today", "tomorrow", "midnight", "noon", "fika", "teatime"})
_FROM_NOW = re.compile(r"now\+[0-9]{1,9}(?:(?:second|minute|hour|day|week)s?)?", re.IGNORECASE)
_TIME = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?(?: ?(?P<half>[ap]m))?"
_DATES = (
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})(?:T(?P<at>.+))?",
    r"(?P<month>[0-9]{1,2})/(?P<day>[0-9]{1,2})(?:/(?P<year>[0-9]{2}))?(?:-(?P<at>.+))?",
    r"(?P<month>[0-9]{1,2})\.(?P<day>[0-9]{1,2})(?:\.(?P<year>[0-9]{2}))?(?:-(?P<at>.+))?",
    r"(?P<month>[0-9]{2})(?P<day>[0-9]{2})(?P<year>[0-9]{2})?(?:-(?P<at>.+))?",
)
_REMEDY = "Write for example now+2hours, 16:00, tomorrow or 2026-12-01T08:00."


def check(option: str, text: str) -> None:
    """Refuse what Slurm would read as no moment; which day it means is Slurm's to say.

    Args:
        option: What it is for, for the message.
        text: For example `now+1hour`, `16:00`, `2026-12-01T08:00`.

    Raises:
        ConfigError: It is none of the forms that sbatch(1) lists.
    """
    plain = text.strip().lower()
    if plain in _WORDS or _FROM_NOW.fullmatch(plain) or _is_time(plain):
        return
    for form in _DATES:
        found = re.fullmatch(form, text.strip(), re.IGNORECASE)
        if found is not None and _is_day(found) and (found["at"] is None or _is_time(found["at"])):
            return
    raise ConfigError(f"{option} {text!r} is no moment that Slurm understands.", _REMEDY)


def _is_time(text: str) -> bool:
    found = re.fullmatch(_TIME, text, re.IGNORECASE)
    if found is None:
        return False
    hour, least, most = (
        int(found["hour"]),
        (1 if found["half"] else 0),
        (12 if found["half"] else 23),
    )
    return least <= hour <= most and int(found["minute"]) < 60 and int(found["second"] or 0) < 60


def _is_day(found: re.Match[str]) -> bool:
    year = int(found["year"] or 2000)
    try:
        # without a year any may be meant, a leap year too
        datetime.date(year if year > 99 else 2000 + year, int(found["month"]), int(found["day"]))
    except ValueError:
        return False
    return True
