"""Where things stand: account, storage, our state, jobs, what is free; one remote command."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rvstate.errors import ParseError, RvstateError
from rvstate.model.job import RunRecord
from rvstate.model.resources import Schedule
from rvstate.model.site import Site
from rvstate.script import Script
from rvstate.shell import join
from rvstate.sitetools.allocations import Balance
from rvstate.slurm import sinfo, squeue
from rvstate.workflows import jobs, observe
from rvstate.workflows.questions import (
    Answers,
    Storage,
    allocations_question,
    ask,
    balances,
    site_trouble,
    storage,
    storage_questions,
    storage_trouble,
)
from rvstate.workflows.session import Session


@dataclass(frozen=True, slots=True)
class GpuSupply:
    """How much there is of one type of GPU.

    Args:
        kind: The site's name for it, or Slurm's own.
        partition: Where it is asked for, or empty.
        total: GPUs in nodes that are in service.
        free: Those that a job could get now.
        waiting: Jobs that wait in its partition, or None where the queue was not told.
    """

    kind: str
    partition: str
    total: int
    free: int
    waiting: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """Where things stand; None is what nobody could tell.

    Args:
        label: The account, for people.
        node: The login node that answered.
        slurm: Whether jobs are Slurm's; on this machine nobody pays, waits or holds GPUs.
        paying: The account that pays for jobs, by the settings, or empty.
        balances: What the site's `allocations` says.
        storage: Places and how full they are.
        converged: When and with how many changes this machine last converged.
        changes: How many changes `converge` would make now.
        refusals: How many resources it would refuse.
        keepalive: What is done against the purge of scratch, in words.
        runs: Our runs, newest first.
        gpus: Supply by type.
        waiting: Jobs of everybody that wait, by partition.
        trouble: What could not be had, and why.
        remote_commands: How many it took.
    """

    label: str
    node: str
    slurm: bool
    paying: str
    balances: tuple[Balance, ...] | None
    storage: tuple[Storage, ...]
    converged: tuple[int, int] | None
    changes: int | None
    refusals: int | None
    keepalive: str
    runs: tuple[RunRecord, ...] | None
    gpus: tuple[GpuSupply, ...] | None
    waiting: dict[str, int] | None
    trouble: tuple[str, ...]
    remote_commands: int

    @property
    def balance(self) -> Balance | None:
        """What the paying account has, where that is known."""
        return next((b for b in self.balances or () if b.account == self.paying), None)


def status(session: Session) -> Status:
    """Ask for all of it with one remote command, and read what came.

    Raises:
        RvstateError: The account cannot be reached.
    """
    look = observe.prepare(session)
    answers = ask(session, _questions(session, look.script, jobs.question(session)))
    trouble: list[str] = []
    view = _view(look, answers, trouble)
    runs = _runs(session, answers, trouble)
    nodes = _nodes(answers, trouble)
    waiting = _waiting(answers, trouble)
    site, settings = session.config.site, session.config.settings
    slurm = site.scheduler != "process"
    if slurm:
        trouble += (*storage_trouble(answers), *site_trouble(answers))
    account = view.observed.account if view is not None else None
    return Status(
        label=session.label,
        node=account.node if account else "",
        slurm=slurm,
        paying=settings.defaults.account or site.defaults.account or "",
        balances=balances(answers),
        storage=storage(answers),
        converged=session.state.converged(session.label),
        changes=len(view.plan.changes) if view is not None else None,
        refusals=len(view.plan.refusals) if view is not None else None,
        keepalive=keepalive_words(session, view, answers["kept"].text),
        runs=runs,
        gpus=None if nodes is None else supply(nodes, site, waiting),
        waiting=waiting,
        trouble=tuple(dict.fromkeys(trouble)),
        remote_commands=session.transport.commands,
    )


def keepalive_words(session: Session, view: observe.View | None, last: str | None) -> str:
    """What is done against the purge of scratch.

    Args:
        session: Which account.
        view: What is scheduled and what should be; None where nobody could tell.
        last: When the last run succeeded, in seconds since 1970; empty for never, None where
            nobody could tell.
    """
    purge = session.config.site.purge
    if purge.clock == "none":
        return "not needed: nothing is purged here"
    days = f"files are purged after {purge.days} days ({purge.clock})"
    known = days if purge.days else "it is not known what is purged"
    if last is not None:
        last = f"; last success {age(int(last))}" if last.strip().isdigit() else "; it never ran"
    return f"{known}; {_scheduled(session, view)}{last or ''}"


def _scheduled(session: Session, view: observe.View | None) -> str:
    if view is None:
        return "what is scheduled against it is not known"
    kinds = [look["record"].split()[0] for look in view.observed.schedules if "record" in look]
    pending = any(
        isinstance(c.resource, Schedule) for c in (*view.plan.changes, *view.plan.refusals)
    )
    if kinds:
        return f"{kinds[0]} runs keepalive" + (
            ", and converge would change that" if pending else ""
        )
    if pending:
        return "a schedule is declared and not there yet"
    wanted = session.config.settings.scratch_keepalive.enabled
    return "nothing is scheduled against it" + ("" if wanted else " (off in the settings)")


def _questions(session: Session, look: Script, runs: Script) -> dict[str, str]:
    success = '"$rv_scratch/.rv/keepalive/success"'
    found = {
        "look": look.text,
        "runs": runs.text,
        "kept": f"if [ -e {success} ]; then date -r {success} +%s; fi",
        **storage_questions(session),
    }
    if session.config.site.scheduler == "process":
        return found
    # a pipeline's status would be that of its last program
    waiting = f"all=$({join(squeue.WAITING_COMMAND)})"
    return {
        **found,
        **allocations_question(),
        "nodes": join(sinfo.NODES_COMMAND),
        "waiting": f'{waiting} && printf "%s\n" "$all" | sort | uniq -c',
    }


def _view(look: observe.Look, answers: Answers, trouble: list[str]) -> observe.View | None:
    try:
        answer = answers["look"].framed
        if answer is not None:
            return look.read(answer)
        trouble.append("The look at the account gave no answer.")
    except RvstateError as error:
        trouble.append(error.message)
    return None


def _runs(session: Session, answers: Answers, trouble: list[str]) -> tuple[RunRecord, ...] | None:
    try:
        answer = answers["runs"].framed
        if answer is not None:
            return jobs.read_runs(session, answer)
        trouble.append("The records of runs gave no answer.")
    except RvstateError as error:
        trouble.append(error.message)
    return None


def _nodes(answers: Answers, trouble: list[str]) -> tuple[sinfo.Node, ...] | None:
    if "nodes" not in answers:
        return None
    text = answers["nodes"].text
    if text is None:
        trouble.append(answers["nodes"].trouble("sinfo"))
        return None
    try:
        return sinfo.parse_nodes(text)
    except ParseError as error:
        trouble.append(error.message)
        return None


def _waiting(answers: Answers, trouble: list[str]) -> dict[str, int] | None:
    if "waiting" not in answers:
        return None
    text = answers["waiting"].text
    if text is None:
        trouble.append(answers["waiting"].trouble("squeue"))
        return None
    return squeue.parse_waiting(text)


def supply(
    nodes: tuple[sinfo.Node, ...], site: Site, waiting: dict[str, int] | None
) -> tuple[GpuSupply, ...]:
    """How much there is of each type of GPU, in the order of the site data, then of the nodes."""
    total: dict[str, int] = {}
    free: dict[str, int] = {}
    for node in nodes:
        for has, left in zip(node.gres, node.free_gres(), strict=True):
            if has.name == "gpu" and node.in_service:
                name = _name(site, node, has.type)
                total[name] = total.get(name, 0) + has.count
                free[name] = free.get(name, 0) + left.count
    order = [name for name in site.gpu_names() if name in total]
    order += [name for name in total if name not in order]
    rows = []
    for name in order:
        known = (site.gpus or {}).get(name)
        partition = known.partition if known else ""
        count = None if waiting is None or not partition else waiting.get(partition, 0)
        rows.append(GpuSupply(name, partition, total[name], free[name], count))
    return tuple(rows)


def _name(site: Site, node: sinfo.Node, kind: str) -> str:
    """The site's name for the GPUs of a node; some sites tell two of one name by partitions."""
    for name, gpu in (site.gpus or {}).items():
        if gpu.gres == kind and gpu.partition in node.partitions:
            return name
    found = site.gpu(kind)
    return found[0] if found else kind or "gpu"


def age(seconds: int) -> str:
    """How long ago a moment was, in one unit."""
    passed = max(0, round(time.time()) - seconds)
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if passed >= size:
            count = passed // size
            return f"{count} {word}{'' if count == 1 else 's'} ago"
    return "just now"
