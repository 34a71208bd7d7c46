"""What the files of a run say of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from rvstate import holding
from rvstate.holding import Held

# what is read of a run's own records, as remote/jobs.sh tells it
_RECORDS = frozenset(
    {
        *("job", "exit", "intent", "receipt.json", "notify/due", "hold/state", "ended", "copies"),
        *("chain", "dvc", "stages"),
    }
)
_ELEMENT = re.compile(r"elements/([0-9]+)/dvc")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one run from each witness."""

    job: str | None
    exit_status: int | None
    receipt: dict[str, Any]
    begun: bool = False
    untold: bool = False
    held: Held | None = None
    marks: tuple[tuple[int, int | None], ...] = ()
    """Of an array: elements that have begun, with their exit codes where they have ended."""
    copies: str = ""
    segments: tuple[int, int] = (0, 0)
    """How many segments have begun, and how many seconds those took that have ended."""
    used_up: bool = False
    """Whether the time of all segments is used up."""
    results: str = ""
    """What became of the results of a run of DVC (remote/dvc.sh, rv_dvc_tell)."""
    element_results: tuple[tuple[int, str], ...] = ()
    """The same of the elements of an array, by index."""
    stages: tuple[tuple[str, str], ...] = ()
    """Of a pipeline on Ray: stages that have begun, each with `begun` or `done`."""


def read_facts(text: str) -> dict[str, Facts]:
    """The records of all runs, as `jobs.sh` tells them."""
    raw: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        path, _, value = line.partition(":")
        run_id, _, name = path.partition("/")
        if name in _RECORDS or _ELEMENT.fullmatch(name):
            raw.setdefault(run_id, {})[name] = value
    return {run_id: _fact(files) for run_id, files in raw.items()}


def _fact(files: dict[str, str]) -> Facts:
    status = files.get("exit", "").split(" ")[0]
    try:
        receipt = json.loads(files.get("receipt.json", "{}"))
    except ValueError:
        # a scratch file system may lose or cut single files; the run is still listed
        receipt = {}
    code = int(status) if status.isdigit() else None
    pairs = (mark.partition("-") for mark in files.get("ended", "").split())
    # `begun` sorts behind any code, and says less
    codes = sorted(((i, c) for i, _, c in pairs if i.isdigit()), reverse=True)
    marks = tuple((int(i), int(c) if c.isdigit() else None) for i, c in codes)
    held = holding.read(files.get("hold/state", ""))
    begun, untold = "intent" in files, "notify/due" in files
    copies = files.get("copies", "")
    words = files.get("chain", "").split()
    segments = (int(words[0]), int(words[1])) if "".join(words[:2]).isdigit() else (0, 0)
    used_up = files.get("exit", "").split(" ")[2:] == ["total"]
    job = files.get("job") or None
    matches = ((_ELEMENT.fullmatch(name), text) for name, text in files.items())
    told = files.get("stages", "").split()
    return Facts(
        job,
        code,
        receipt,
        begun,
        untold,
        held,
        marks,
        copies,
        segments,
        used_up,
        results=files.get("dvc", ""),
        element_results=tuple((int(match[1]), text) for match, text in matches if match),
        # a later word of a stage replaces the one before
        stages=tuple(dict(zip(told[1::2], told[::2], strict=False)).items()),
    )
