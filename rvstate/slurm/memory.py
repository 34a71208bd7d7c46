"""Sizes of memory: what people write, what Slurm writes, and MiB.

Slurm counts in powers of 1024 whatever the spelling, and takes `16G` and `16GB` for the same
(sbatch(1), `--mem`).  So does this, and `16GiB`, which Slurm itself refuses, is one more spelling.
"""

from __future__ import annotations

import math
import re

from rvstate.errors import ConfigError

_KIB_PER = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_REMEDY = "Write for example 500M, 16G or 1.5T."


def parse(text: str) -> int:
    """Read a size of memory.

    A plain number is refused, as Slurm would read megabytes and people mean gigabytes; only `0` is
    taken, which means all the memory of each node (sbatch(1), `--mem`).

    Args:
        text: For example `16G`, `1.5T`, `512 MiB`.

    Returns:
        MiB, rounded up.

    Raises:
        ConfigError: Not a size, no unit, or less than nothing.
    """
    plain = text.strip()
    if plain == "0":
        return 0
    if re.fullmatch(r"[0-9]+", plain):
        raise ConfigError(f"The memory {text!r} has no unit (Slurm would read megabytes).", _REMEDY)
    match = _SIZE.fullmatch(plain)
    if match is None:
        raise ConfigError(f"{text!r} is not a size of memory.", _REMEDY)
    from fractions import Fraction  # slow to load, and seldom needed

    mib = math.ceil(Fraction(match[1]) * _KIB_PER[match[2].upper()] / 1024)
    if mib == 0:
        raise ConfigError(
            f"The memory {text!r} is zero.", "Write 0 for all the memory of each node."
        )
    return mib


def render(mib: int) -> str:
    """Write MiB in the largest unit that needs no fraction: `16G`, `1500M`; `0` for zero.

    Raises:
        ValueError: Less than zero.
    """
    if mib < 0:
        raise ValueError(f"no size of memory: {mib} MiB")
    if mib == 0:
        return "0"
    for unit, size in (("T", 1024**2), ("G", 1024)):
        if mib % size == 0:
            return f"{mib // size}{unit}"
    return f"{mib}M"
