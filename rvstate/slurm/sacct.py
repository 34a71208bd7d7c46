"""sacct(1): the fields asked for, and the parser for exactly those."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rvstate.slurm import duration, jobid, nodelist
from rvstate.slurm.rows import SEPARATOR, epoch, free, number, split_rows
from rvstate.slurm.states import JobState
from rvstate.slurm.states import parse as parse_state

# In the order of the parser below; free text last, see squeue.FIELDS.
FIELDS = (
    "JobID",
    "JobIDRaw",
    "State",
    "ExitCode",
    "Partition",
    "Account",
    "ElapsedRaw",
    "TimelimitRaw",
    "Submit",
    "Start",
    "End",
    "NNodes",
    "NodeList",
    "AllocTRES",
    "MaxRSS",
    "Reason",
    "Comment",
    "JobName",
)

# --parsable, not --parsable2: there the last field, too, is followed by the separator, which marks
# the end of a row even when a name holds a line break.
COMMAND = (
    "env",
    "-u",
    "SACCT_FORMAT",
    "SLURM_TIME_FORMAT=%s",
    "sacct",
    "--noheader",
    "--parsable",
    f"--delimiter={SEPARATOR}",
    "--format=" + ",".join(FIELDS),
)


@dataclass(frozen=True, slots=True)
class AccountingRow:
    """One record of a job or of one of its steps.

    Args:
        job: `12`, `12_3`, `12.batch`, ...
        raw: The id of the record alone, step included (`14`, `14.batch`).
        state: May lag behind the queue by about a second.
        cancelled_by: Numeric user id after `CANCELLED by`; None otherwise.
        exit_code: `code:signal`.
        partition: Empty for steps.
        account: The account that pays.
        elapsed: Seconds of run time.
        time_limit: Seconds; None for no limit, the partition's, or a step.
        submitted: Seconds since 1970.
        start: Seconds since 1970; None when it never started.
        end: Seconds since 1970; None while it runs.
        node_count: Nodes held or asked for.
        nodes: Names of the nodes.
        tres: What was held, as Slurm prints it.
        max_rss: The most memory of one task, as Slurm prints it (`123456K`); only for steps.
        reason: Empty where Slurm says `None`.
        comment: Free text; needs AccountingStoreFlags=job_comment, else empty.
        name: Free text.
    """

    job: jobid.JobId
    raw: str
    state: JobState
    cancelled_by: int | None
    exit_code: str
    partition: str
    account: str
    elapsed: int
    time_limit: int | None
    submitted: int | None
    start: int | None
    end: int | None
    node_count: int
    nodes: tuple[str, ...]
    tres: str
    max_rss: str
    reason: str
    comment: str
    name: str


def command(
    *, jobs: Iterable[str] = (), user: str = "", days: int | None = None, steps: bool = False
) -> tuple[str, ...]:
    """The command whose output `parse` reads.

    Args:
        jobs: Only these jobs.
        user: Only this user's jobs.
        days: Begin that many days ago; sacct's own default without `jobs` is this midnight.
            A count back from now needs no time zone.
        steps: Also the steps of each job.
    """
    wanted = ",".join(jobs)
    return (
        *COMMAND,
        *(() if steps else ("--allocations",)),
        *((f"--jobs={wanted}",) if wanted else ()),
        *((f"--user={user}",) if user else ()),
        *(() if days is None else (f"--starttime=now-{days}days",)),
    )


def parse(text: str) -> tuple[AccountingRow, ...]:
    """Read the output of `command()`.

    Raises:
        ParseError: Not that output.
    """
    return tuple(_row(fields) for fields in split_rows(text, len(FIELDS)))


def _row(fields: tuple[str, ...]) -> AccountingRow:
    job, raw, state, exit_code, partition, account, elapsed, limit, submitted = fields[:9]
    start, end, count, nodes, tres, max_rss, reason, comment, name = fields[9:]
    by = re.fullmatch(r"CANCELLED by ([0-9]+)", state)
    return AccountingRow(
        job=jobid.parse(job),
        raw=raw,
        state=parse_state(state),
        cancelled_by=int(by[1]) if by else None,
        exit_code=exit_code,
        partition=partition,
        account=account,
        elapsed=number(elapsed or "0"),
        time_limit=_limit(limit),
        submitted=epoch(submitted),
        start=epoch(start),
        end=epoch(end),
        node_count=number(count or "0"),
        nodes=nodelist.expand(nodes),
        tres=tres,
        max_rss=max_rss,
        reason="" if reason == "None" else reason,
        comment=free(comment),
        name=free(name),
    )


def _limit(text: str) -> int | None:
    if text in {"", "UNLIMITED", "Partition_Limit", "INVALID"}:
        return None
    return number(text) * duration.MINUTE
