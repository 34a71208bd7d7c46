"""Lengths of time: what people write, what Slurm writes, and seconds.

Slurm keeps limits in whole minutes and rounds seconds *up* (sbatch(1), `--time`).  Here they are
kept as written, so that `1m30s` is shown as such; the job then gets two minutes, never less.
"""

from __future__ import annotations

import math
import re

from rvstate.errors import ConfigError, ParseError

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNIT = {"d": DAY, "h": HOUR, "m": MINUTE, "s": 1}
_WITH_UNITS = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
_FRACTION = re.compile(r"([0-9]+\.[0-9]+)([dhms])")
_DAYS_CLOCK = re.compile(r"([0-9]+)-([0-9]+)(?::([0-9]+))?(?::([0-9]+))?")
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+)")
_ENDLESS = frozenset({"unlimited", "infinite"})
_REMEDY = "Write for example 30m, 2h, 1d12h, 2:30:00 or 1-12:00:00."
_LONGEST_TEXT = 40  # far above any real one; keeps absurd numbers away from int()


def parse(text: str) -> int:
    """Read a length of time as a person writes it.

    A plain number is refused: Slurm reads minutes there, most other tools read seconds.
    `30:00` is thirty minutes, as sbatch(1) has it ("minutes:seconds").

    Args:
        text: For example `2h`, `1.5h`, `1d12h`, `2:59:00`, `1-12`, `1-00:00:00`.

    Returns:
        Seconds, more than zero; a fraction of a second counts as a whole one.

    Raises:
        ConfigError: Not a length of time, or zero (which sbatch takes as "no limit").
    """
    plain = text.strip().lower()
    if len(plain) > _LONGEST_TEXT:
        raise ConfigError("A length of time of that size is not one.", _REMEDY)
    if re.fullmatch(r"[0-9]+", plain):
        raise ConfigError(
            f"The time {text!r} has no unit (Slurm would read minutes).",
            "For thirty minutes write 30m or 0:30:00.",
        )
    seconds = _from_units(plain)
    if seconds is None:
        seconds = _from_clock(plain, strict=True)
    if seconds is None:
        raise ConfigError(f"{text!r} is not a length of time.", _REMEDY)
    if seconds == 0:
        raise ConfigError(f"The time {text!r} is zero, which Slurm takes as no limit.", _REMEDY)
    return seconds


def parse_slurm(text: str) -> int | None:
    """Read a length of time as Slurm prints it.

    Slurm prints more than sbatch accepts: `0:05`, `25:00:00`, thousandths (sacct's TotalCPU).

    Returns:
        Seconds, or None for `UNLIMITED` and `infinite`.

    Raises:
        ParseError: Anything else, `NOT_SET` and `INVALID` included: the caller knows their meaning.
    """
    plain = text.strip().lower()
    if plain in _ENDLESS:
        return None
    short = plain if len(plain) <= _LONGEST_TEXT else ""
    seconds = _from_clock(re.sub(r"\.[0-9]+\Z", "", short), strict=False)
    if seconds is None:
        raise ParseError(f"{text!r} is not a length of time as Slurm prints it.")
    return seconds


def render(seconds: int) -> str:
    """Write seconds as `HH:MM:SS`, or `D-HH:MM:SS` from one day on (sbatch(1), `--time`).

    Raises:
        ValueError: Less than zero.
    """
    if seconds < 0:
        raise ValueError(f"no length of time: {seconds} s")
    days, rest = divmod(seconds, DAY)
    clock = f"{rest // HOUR:02}:{rest % HOUR // MINUTE:02}:{rest % MINUTE:02}"
    return f"{days}-{clock}" if days else clock


def _from_units(plain: str) -> int | None:
    if match := _FRACTION.fullmatch(plain):
        from fractions import Fraction  # slow to load, and seldom needed

        return math.ceil(Fraction(match[1]) * _UNIT[match[2]])
    match = _WITH_UNITS.fullmatch(plain)
    if not plain or match is None:
        return None
    return sum(int(n) * size for n, size in zip(match.groups("0"), _UNIT.values(), strict=True))


def _from_clock(plain: str, *, strict: bool) -> int | None:
    """`strict` refuses 2:90:00 and 1-36, which Slurm would take but nobody means."""
    if match := _DAYS_CLOCK.fullmatch(plain):
        days, hours, minutes, seconds = (int(n) for n in match.groups("0"))
        most_hours = 23
    elif match := _CLOCK.fullmatch(plain):
        days = 0
        hours, minutes, seconds = (int(n) for n in match.groups("0"))
        most_hours = hours
    else:
        return None
    # Without hours, the minutes lead and may be any number: 90:00.
    most_minutes = 59 if match[1] is not None else minutes
    if strict and (hours > most_hours or minutes > most_minutes or seconds > 59):
        return None
    return days * DAY + hours * HOUR + minutes * MINUTE + seconds
