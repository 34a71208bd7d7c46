"""Runs as the scheduler and their own records know them: list, read logs, end; no pyinfra."""

from rvstate.workflows.jobs.cancel import (
    stop,
)
from rvstate.workflows.jobs.ended import (
    ending,
    exit_status,
    hardware_trouble,
    out_of_use,
)
from rvstate.workflows.jobs.listing import (
    find,
    question,
    read_runs,
    runs,
)
from rvstate.workflows.jobs.live import (
    decided,
    follow,
)
from rvstate.workflows.jobs.logs import (
    Fold,
    Piece,
    Read,
    last_drawn,
    merge,
    pull,
    read,
    run_directory,
    streams,
)
from rvstate.workflows.jobs.records import (
    Facts,
)

__all__ = [
    "Facts",
    "Fold",
    "Piece",
    "Read",
    "decided",
    "ending",
    "exit_status",
    "find",
    "follow",
    "hardware_trouble",
    "last_drawn",
    "merge",
    "out_of_use",
    "pull",
    "question",
    "read",
    "read_runs",
    "run_directory",
    "runs",
    "stop",
    "streams",
]
