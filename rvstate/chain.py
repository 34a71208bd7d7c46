"""Runs longer than a job may be: how many segments, warned when; pure."""

from __future__ import annotations

import re
from math import ceil

from rvstate.errors import ConfigError
from rvstate.model.job import Chain
from rvstate.slurm import duration

SIGNALS = ("USR1", "USR2")
_LEAD = 300  # seconds to save in, at most a tenth of a segment where nothing is said
_LEAST_LEAD = 60  # Slurm looks at the clock every 30 s or so
_MOST = 1000
# Segments beyond those that the time needs: what Slurm interrupts is begun again.
_SPARE = 10


def chain(total: str, signal: str, retries: int | None, walltime: int | None) -> Chain | None:
    """The segments of a run; None where it is one job.

    Args:
        total: `--total-time`, or empty.
        signal: `--signal`: `USR1`, `USR2@10m`; or empty.
        retries: `--retries`, or None.
        walltime: Seconds of one segment; None where nothing says so.

    Raises:
        ConfigError: They do not fit each other.
    """
    if not total:
        if signal or retries is not None:
            raise ConfigError(
                f"{'--signal' if signal else '--retries'} belongs to a run of several segments.",
                "Add --total-time, for example --total-time 3d.",
            )
        return None
    seconds = duration.parse(total)
    if walltime is None:
        raise ConfigError(
            f"--total-time {total} is made of segments, and how long one is was not said.",
            "Add --time, for example --time 3h.",
        )
    if seconds is None or walltime >= seconds:
        raise ConfigError(
            f"--total-time {total} is not longer than one segment of {duration.render(walltime)}.",
            "Leave it out, or ask for a shorter --time.",
        )
    name, lead = _warning(signal, walltime)
    segments = ceil(seconds / (walltime - lead))
    if segments > _MOST:
        raise ConfigError(
            f"--total-time {total} takes {segments} segments of {duration.render(walltime)}.",
            f"At most {_MOST} are possible: ask for a longer --time.",
        )
    again = retries or 0
    return Chain(seconds, lead, name, again, segments * 2 + again + _SPARE)


def _warning(text: str, walltime: int) -> tuple[str, int]:
    """The signal, and how many seconds ahead of the end it comes."""
    name, at, ahead = text.partition("@")
    if (name or "USR1") not in SIGNALS or (at and not ahead):
        raise ConfigError(
            f"--signal {text!r} is no warning.", f"Use {' or '.join(SIGNALS)}, as USR1@10m."
        )
    if ahead:
        lead = int(ahead) if re.fullmatch(r"[0-9]{1,6}", ahead) else duration.parse(ahead)
    else:
        lead = max(_LEAST_LEAD, min(_LEAD, walltime // 10))
    if lead is None or lead < _LEAST_LEAD or lead * 2 > walltime:
        raise ConfigError(
            f"A warning {ahead or f'{lead} s'} ahead does not fit a segment of "
            f"{duration.render(walltime)}.",
            f"Give at least {_LEAST_LEAD} seconds, and at most half of the segment.",
        )
    return name or "USR1", lead
