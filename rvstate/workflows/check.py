"""One thing that `rvstate doctor` looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
WARN = "warn"
FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What it is.
        status: `ok`, `warn` or `fail`.
        text: What was found.
        remedy: What to do; empty where nothing needs doing.
    """

    name: str
    status: str
    text: str
    remedy: str = ""
