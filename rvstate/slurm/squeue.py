"""squeue(1): the fields asked for, the parser for exactly those, and reasons in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rvstate.errors import ParseError
from rvstate.slurm import duration, jobid, nodelist
from rvstate.slurm.rows import SEPARATOR, epoch, free, number, split_rows
from rvstate.slurm.states import JobState
from rvstate.slurm.states import parse as parse_state

# Names of `--Format`, in the order of the parser below.  The free text is last; the comment stands
# before the name, as ours holds no separator, so a strange name can only spoil itself.
FIELDS = (
    "JobArrayID",
    "JobID",
    "State",
    "Reason",
    "Partition",
    "Account",
    "QOS",
    "TimeUsed",
    "TimeLimit",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "NumNodes",
    "NodeList",
    "tres-per-node",
    "tres-alloc",
    "exit_code",
    "RestartCnt",
    "Comment",
    "Name",
)

# A user's own defaults would filter or reorder what we read (squeue(1), ENVIRONMENT VARIABLES).
_UNSET = (
    "SQUEUE_ACCOUNT",
    "SQUEUE_ALL",
    "SQUEUE_ARRAY",
    "SQUEUE_ARRAY_UNIQUE",
    "SQUEUE_FORMAT",
    "SQUEUE_FORMAT2",
    "SQUEUE_LICENSES",
    "SQUEUE_NAMES",
    "SQUEUE_PARTITION",
    "SQUEUE_PRIORITY",
    "SQUEUE_QOS",
    "SQUEUE_SORT",
    "SQUEUE_STATES",
    "SQUEUE_USERS",
)

# A field is "type:[size][suffix]" (squeue(1), --Format).  Without a size but with a suffix nothing
# is cut or padded, and the suffix is printed as it stands.
COMMAND = (
    "env",
    *(word for name in _UNSET for word in ("-u", name)),
    "SLURM_TIME_FORMAT=%s",
    # else long lists of array elements are cut
    "SLURM_BITSTR_LEN=0",
    "squeue",
    "--noheader",
    "--Format=" + ",".join(f"{field}:{SEPARATOR}" for field in FIELDS),
)

# Everybody's jobs that wait, one partition list a line: how long the queue is.
WAITING_COMMAND = (*COMMAND[:-2], "--noheader", "--all", "--states=PENDING", "--format=%P")


@dataclass(frozen=True, slots=True)
class JobRow:
    """One line of the queue.

    Args:
        job: The id as people write it: `12`, `12_3`, `12_[4-9]`, `12+1`.
        number: The id of this record alone (differs from `job.base` in arrays).
        state: Never the text "nobody knows": a job that is not in the queue has no row.
        reason: Slurm's word, or sentence, for why it is not running.
        partition: One name, or several with commas while pending.
        account: The account that pays.
        qos: Quality of service.
        time_used: Seconds of run time so far; None where Slurm's clocks disagree.
        time_limit: Seconds; None for no limit or one not set yet.
        submitted: Seconds since 1970.
        start: Seconds since 1970, expected while pending; None when not known.
        end: Seconds since 1970, expected while running; None when not known.
        node_count: Nodes held, or the least that are asked for.
        nodes: Names of the nodes held.
        gres: Generic resources per node as asked for (`gpu:a100:2`); empty for none.
        tres: Everything held or asked for, as Slurm prints it (`cpu=4,mem=16G,...`).
        exit_code: `code:signal`, meaningful when finished.
        restarts: How often it was requeued.
        comment: Free text, with our submission token.
        name: Free text.
    """

    job: jobid.JobId
    number: int
    state: JobState
    reason: str
    partition: str
    account: str
    qos: str
    time_used: int | None
    time_limit: int | None
    submitted: int | None
    start: int | None
    end: int | None
    node_count: int
    nodes: tuple[str, ...]
    gres: str
    tres: str
    exit_code: str
    restarts: int
    comment: str
    name: str


def command(*, jobs: Iterable[str] = (), user: str = "", finished: bool = False) -> tuple[str, ...]:
    """The command whose output `parse` reads.

    Args:
        jobs: Only these jobs; squeue fails when it knows none of them.
        user: Only this user's jobs.
        finished: Also jobs that ended within the controller's memory (MinJobAge, often 5 minutes).
    """
    wanted = ",".join(jobs)
    return (
        *COMMAND,
        *((f"--jobs={wanted}",) if wanted else ()),
        *((f"--user={user}",) if user else ()),
        *(("--states=all",) if finished else ()),
    )


def parse(text: str) -> tuple[JobRow, ...]:
    """Read the output of `command()`.

    Raises:
        ParseError: Not that output.
    """
    return tuple(_row(fields) for fields in split_rows(text, len(FIELDS)))


def parse_waiting(text: str) -> dict[str, int]:
    """Count the jobs that wait for each partition; one that may go to several waits for each.

    Args:
        text: The output of `WAITING_COMMAND`, behind `sort | uniq -c`.
    """
    counts: dict[str, int] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*([0-9]{1,9}) (\S+)\s*", line)
        for name in match[2].split(",") if match else ():
            counts[name] = counts.get(name, 0) + int(match[1] if match else 0)
    return counts


def _row(fields: tuple[str, ...]) -> JobRow:
    (job, record, state, reason, partition, account, qos, used, limit, submitted, start, end) = (
        fields[:12]
    )
    count, nodes, gres, tres, exit_code, restarts, comment, name = fields[12:]
    return JobRow(
        job=jobid.parse(job),
        number=number(record),
        state=parse_state(state),
        reason="" if reason in {"None", "(null)"} else reason,
        partition=free(partition),
        account=free(account),
        qos=free(qos),
        time_used=None if used == "INVALID" else duration.parse_slurm(used),
        time_limit=None if limit in {"NOT_SET", "INVALID"} else duration.parse_slurm(limit),
        submitted=epoch(submitted),
        start=epoch(start),
        end=epoch(end),
        node_count=number(count),
        nodes=nodelist.expand(nodes),
        # 22.05 prints gres:gpu:2, 23.02 and later gres/gpu:2.
        gres="" if gres in {"N/A", "(null)"} else re.sub(r"\bgres[:/]", "", gres),
        tres="" if tres in {"N/A", "(null)"} else tres,
        exit_code=_exit_code(exit_code),
        restarts=number(restarts),
        comment=free(comment),
        name=free(name),
    )


def _exit_code(text: str) -> str:
    """`code:signal`; squeue prints the number that wait(2) gave (22.05: `256` for code 1)."""
    if re.fullmatch(r"[0-9]+:[0-9]+", text):
        return text
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ParseError(f"{text!r} is not an exit code as squeue prints it.")
    status = int(text)
    return f"{status >> 8 & 0xFF}:{status & 0x7F}"


_REASONS = {
    "None": "It has not been looked at yet.",
    "Priority": "Jobs with a higher priority are ahead of it.",
    "Resources": "It is next in line and waits for enough free resources.",
    "Dependency": "It waits for another job to end.",
    "DependencyNeverSatisfied": "The job it depends on ended in a way that it can never start;"
    " cancel it.",
    "BeginTime": "Its earliest start time has not come yet.",
    "JobHeldUser": "It is held by its user; release it with scontrol release.",
    "JobHeldAdmin": "It is held by an administrator; ask the site's support.",
    "JobHoldMaxRequeue": "It was requeued too often and is held.",
    "JobArrayTaskLimit": "As many tasks of its array as allowed run already.",
    "Licenses": "It waits for a license.",
    "Cleaning": "It was requeued and its previous run is still being cleaned up.",
    "Prolog": "The nodes are being prepared for it.",
    "Reservation": "It waits for its reservation to begin.",
    "ReservationDeleted": "Its reservation was deleted; submit it again without one.",
    "ReqNodeNotAvail": "A node it needs is not available now: down, reserved, or kept free for"
    " maintenance. A shorter time limit may help.",
    "NodeDown": "A node it needs is down.",
    "FrontEndDown": "No front-end node is available.",
    "PartitionDown": "Its partition is closed.",
    "PartitionInactive": "Its partition does not start jobs now.",
    "PartitionNodeLimit": "It asks for more nodes than its partition gives, or they are down.",
    "PartitionTimeLimit": "Its time limit is longer than its partition allows; ask for less time.",
    "PartitionConfig": "It asks for something that its partition does not allow.",
    "BadConstraints": "No node has what it asks for; it will not start as it is.",
    "InvalidAccount": "Its account is not valid.",
    "InvalidQOS": "Its quality of service is not valid.",
    "QOSNotAllowed": "Its quality of service may not be used in this partition.",
    "AccountNotAllowed": "Its account may not use this partition.",
    "QOSUsageThreshold": "Too little was used of what its quality of service requires.",
    "QOSMaxJobsPerUserLimit": "You have as many jobs running as its quality of service allows.",
    "QOSMaxSubmitJobPerUserLimit": "You have as many jobs submitted as its quality of service"
    " allows.",
    "QOSJobLimit": "Its quality of service has as many jobs running as allowed.",
    "QOSResourceLimit": "Its quality of service uses as much as allowed.",
    "QOSTimeLimit": "Its quality of service has used its time.",
    "AssocMaxJobsLimit": "As many jobs as allowed run under this account already.",
    "AssocMaxSubmitJobLimit": "As many jobs as allowed are submitted under this account already.",
    "AssociationJobLimit": "As many jobs as allowed run under this account already.",
    "AssociationResourceLimit": "Its account uses as much as allowed.",
    "AssociationTimeLimit": "Its account has used its time.",
    "MaxJobsPerAccount": "As many jobs as allowed run under this account already.",
    "MaxMemPerLimit": "It asks for more memory than a job may have here.",
    "DeadLine": "It cannot end before its deadline any more.",
    "SystemFailure": "Slurm itself failed; ask the site's support.",
    "JobLaunchFailure": "It could not be started; look at the node and its output directory.",
    "SchedDefer": "The scheduler looks at it with its next round.",
    "BurstBufferResources": "It waits for burst buffer space.",
    "BurstBufferStageIn": "Its data is being copied in.",
    "NonZeroExitCode": "Its program ended with an error.",
    "TimeLimit": "It reached its time limit.",
    "InactiveLimit": "It did nothing for too long.",
    "OutOfMemory": "It used more memory than it asked for.",
    "RaisedSignal": "Its program was ended by a signal.",
}

_SENTENCES = (
    ("nodes required for job are down", "The nodes it could use are down, drained or reserved."),
    ("launch failed requeued held", "It could not be started, was requeued and is held; release"
     " it with scontrol release."),
    ("job requeued in held state", "It was requeued and is held; release it with scontrol"
     " release."),
)  # fmt: skip

_THINGS = (
    ("billing", "billing units"),
    ("cpu", "CPUs"),
    ("mem", "memory"),
    ("gres", "GPUs or other generic resources"),
    ("node", "nodes"),
    ("energy", "energy"),
    ("license", "licenses"),
    ("bb", "burst buffer space"),
    ("submitjobs", "submitted jobs"),
    ("jobs", "jobs"),
    ("wall", "run time"),
)
_LIMIT = re.compile(r"(Assoc|QOS)(Grp|Max|Min)(.+)", re.IGNORECASE)


def reason_in_words(reason: str) -> str:
    """Say in plain English why a job is not running (squeue(1), JOB REASON CODES).

    Args:
        reason: Slurm's word; may carry details (`ReqNodeNotAvail, UnavailableNodes:n1`) or be a
            sentence already.

    Returns:
        One or two sentences; the reason itself where it is not known here.
    """
    plain = reason.strip().removeprefix("(").removesuffix(")")
    for start, sentence in _SENTENCES:
        if plain.lower().startswith(start):
            return sentence
    word, _, detail = plain.partition(",")
    sentence = _REASONS.get(word) or _limit_in_words(word) or ""
    if not sentence:
        return plain
    # Some details are a second reason (merged array tasks), others name nodes.
    more = detail.strip()
    if not more:
        return sentence
    return f"{sentence} {_REASONS.get(more, f'({more})')}"


def _limit_in_words(word: str) -> str:
    match = _LIMIT.fullmatch(word) or re.fullmatch(r"()(Max)(.+)PerAccount", word)
    if match is None:
        return ""
    owner = "quality of service" if match[1].upper() == "QOS" else "account"
    kind, rest = match[2].lower(), match[3].lower()
    thing = next((words for key, words in _THINGS if key in rest), "resources")
    if kind == "min":
        return f"It asks for fewer {thing} than its {owner} requires."
    if "minutes" in rest and "run" in rest:
        return f"The running jobs of its {owner} hold as much of its {thing} and time as allowed."
    if kind == "grp" and "minutes" in rest:
        return f"Its {owner} has used up its budget of {thing} and time."
    if kind == "grp":
        return f"The jobs of its {owner} use as many {thing} together as allowed."
    if "peruser" in rest:
        return f"Your jobs use as many {thing} as its {owner} allows one user."
    if "peraccount" in word.lower():
        return f"The jobs of its account use as many {thing} as allowed."
    return f"It asks for more {thing} than its {owner} allows one job."
