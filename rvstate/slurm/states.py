"""The states of a job, in every spelling, and the exit code that each ends a follower with."""

from __future__ import annotations

import enum
import re

from rvstate.errors import ParseError


class JobState(enum.StrEnum):
    """A state as squeue(1) and sacct(1) name it, and UNKNOWN for "nobody could tell"."""

    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    DEADLINE = "DEADLINE"
    EXPEDITING = "EXPEDITING"
    FAILED = "FAILED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PENDING = "PENDING"
    POWER_UP_NODE = "POWER_UP_NODE"
    PREEMPTED = "PREEMPTED"
    RECONFIG_FAIL = "RECONFIG_FAIL"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"
    RUNNING = "RUNNING"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    SUSPENDED = "SUSPENDED"
    TIMEOUT = "TIMEOUT"
    UPDATE_DB = "UPDATE_DB"
    UNKNOWN = "UNKNOWN"


# The job may still start: its snapshot and environment are needed.
# SPECIAL_EXIT belongs here as the job was requeued and is held.
WAITING = frozenset(
    {
        JobState.EXPEDITING,
        JobState.LAUNCH_FAILED,
        JobState.PENDING,
        JobState.RECONFIG_FAIL,
        JobState.REQUEUED,
        JobState.REQUEUE_FED,
        JobState.REQUEUE_HOLD,
        JobState.RESV_DEL_HOLD,
        JobState.SPECIAL_EXIT,
    }
)
# The job holds nodes.  COMPLETING too: its processes may still write.
RUNNING = frozenset(
    {
        JobState.COMPLETING,
        JobState.CONFIGURING,
        JobState.POWER_UP_NODE,
        JobState.RESIZING,
        JobState.RUNNING,
        JobState.SIGNALING,
        JobState.STAGE_OUT,
        JobState.STOPPED,
        JobState.SUSPENDED,
        JobState.UPDATE_DB,
    }
)
# Nothing more will happen to the job.
FINISHED = frozenset(
    {
        JobState.BOOT_FAIL,
        JobState.CANCELLED,
        JobState.COMPLETED,
        JobState.DEADLINE,
        JobState.FAILED,
        JobState.NODE_FAIL,
        JobState.OUT_OF_MEMORY,
        JobState.PREEMPTED,
        JobState.REVOKED,
        JobState.TIMEOUT,
    }
)

# squeue(1) and sacct(1), JOB STATE CODES.
_COMPACT = {
    "BF": JobState.BOOT_FAIL,
    "CA": JobState.CANCELLED,
    "CD": JobState.COMPLETED,
    "CF": JobState.CONFIGURING,
    "CG": JobState.COMPLETING,
    "DL": JobState.DEADLINE,
    "F": JobState.FAILED,
    "NF": JobState.NODE_FAIL,
    "OOM": JobState.OUT_OF_MEMORY,
    "PD": JobState.PENDING,
    "PR": JobState.PREEMPTED,
    "R": JobState.RUNNING,
    "RD": JobState.RESV_DEL_HOLD,
    "RF": JobState.REQUEUE_FED,
    "RH": JobState.REQUEUE_HOLD,
    "RQ": JobState.REQUEUED,
    "RS": JobState.RESIZING,
    "RV": JobState.REVOKED,
    "S": JobState.SUSPENDED,
    "SE": JobState.SPECIAL_EXIT,
    "SI": JobState.SIGNALING,
    "SO": JobState.STAGE_OUT,
    "ST": JobState.STOPPED,
    "TO": JobState.TIMEOUT,
}

# What a follower ends with where the program's own code says nothing: 124 as timeout(1) ends,
# 137 = 128 + SIGKILL as the kernel ends a process for memory, 143 = 128 + SIGTERM as Slurm first
# sends on cancelling and preempting; 1 where a node, not the program, was at fault.
_FIXED = {
    JobState.BOOT_FAIL: 1,
    JobState.CANCELLED: 143,
    JobState.DEADLINE: 124,  # --deadline is a clock as --time is
    JobState.NODE_FAIL: 1,
    JobState.OUT_OF_MEMORY: 137,
    JobState.PREEMPTED: 143,
    JobState.REVOKED: 1,  # another cluster runs the sibling; this one did nothing
    JobState.TIMEOUT: 124,
    JobState.UNKNOWN: 1,  # not knowing must never look like success
}


def parse(text: str) -> JobState:
    """Read a state: long, compact, `CANCELLED by 123`, or cut by sacct's column (`CANCELLED+`).

    Returns:
        UNKNOWN for text that is no state, or not of any Slurm known here: a new Slurm must not
        break `ps`.
    """
    words = text.split()
    word = words[0].upper() if words else ""
    if word in JobState.__members__:
        return JobState[word]
    if word.endswith("+"):
        whole = [state for state in JobState if state.startswith(word[:-1])]
        return whole[0] if len(whole) == 1 else JobState.UNKNOWN
    return _COMPACT.get(word, JobState.UNKNOWN)


def exit_status(state: JobState, exitcode_text: str) -> int:
    """The exit code with which somebody who waited for this job should end.

    | State | Code |
    |---|---|
    | COMPLETED | the program's own (0) |
    | FAILED | the program's own, 128 + n after signal n, 1 where Slurm tells neither |
    | TIMEOUT, DEADLINE | 124 |
    | OUT_OF_MEMORY | 137 |
    | CANCELLED, PREEMPTED | 143 |
    | NODE_FAIL, BOOT_FAIL, REVOKED, UNKNOWN | 1 |

    sacct of 22.05 prints an exit code of 128 or more less 128; squeue and scontrol do not.

    Args:
        state: A finished state, or UNKNOWN.
        exitcode_text: `code:signal` (sacct(1), ExitCode); read only where the table needs it.

    Raises:
        ParseError: The text is not of that form.
        ValueError: The job is not finished.
    """
    if state in _FIXED:
        return _FIXED[state]
    if state not in FINISHED:
        raise ValueError(f"a job that is {state} has no exit status")
    match = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,3})", exitcode_text.strip())
    if match is None:
        raise ParseError(f"{exitcode_text!r} is not an exit code as Slurm prints it.")
    code, signal = int(match[1]) & 0xFF, int(match[2])
    if signal:
        # 125 stands for "out of memory" in job records, which is no signal.
        return 137 if signal == 125 else min(128 + signal, 255)
    return code if code or state is JobState.COMPLETED else 1
