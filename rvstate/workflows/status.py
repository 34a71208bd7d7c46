"""Where things stand: account, storage, our state, jobs, what is free; one remote command."""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass

from rvstate.errors import ParseError, RvstateError
from rvstate.model.job import RunRecord
from rvstate.model.site import Site
from rvstate.script import Answer, Script, read_any
from rvstate.shell import join
from rvstate.sitetools import allocations, hdquota
from rvstate.sitetools.allocations import Balance
from rvstate.slurm import sinfo, squeue
from rvstate.workflows import jobs, observe
from rvstate.workflows.session import Session

# A site's own tool may ask a server that hangs.
_PATIENCE = "20"  # seconds


@dataclass(frozen=True, slots=True)
class Storage:
    """How full one place is.

    Args:
        name: What it is.
        path: Where it is.
        size: Bytes that it may hold.
        used: Bytes that it holds.
        inodes: Files and directories that it may hold, or None where nobody knows a limit.
        inodes_used: Those that it holds, or None.
        quota: Whether the bytes are the user's own share, by the site's tool, rather than the
            whole file system.
    """

    name: str
    path: str
    size: int
    used: int
    inodes: int | None
    inodes_used: int | None
    quota: bool


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


def ask(session: Session, questions: dict[str, str]) -> dict[str, tuple[int, bytes]]:
    """Put several questions with one remote command.

    Args:
        session: Which account.
        questions: Name to a command line or a whole script (see `remote/ask.sh`).

    Returns:
        Name to exit status and output.
    """
    words = [word for pair in questions.items() for word in pair]
    answer = session.transport.run(Script("ask", (session.scratch, session.home, *words)))
    found = {}
    for header, body in answer.sections:
        name, _, status = header.rpartition(" ")
        if name in questions:
            found[name] = (int(status) if status.isdigit() else 1, body)
    return found


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
    waiting = _waiting(answers)
    site, settings = session.config.site, session.config.settings
    account = view.observed.account if view is not None else None
    return Status(
        label=session.label,
        node=account.node if account else "",
        paying=settings.defaults.account or site.defaults.account or "",
        balances=balances(answers),
        storage=storage(answers),
        converged=session.state.converged(session.label),
        changes=len(view.plan.changes) if view is not None else None,
        refusals=len(view.plan.refusals) if view is not None else None,
        keepalive=_keepalive(session),
        runs=runs,
        gpus=_gpus(answers, site, waiting, trouble),
        waiting=waiting,
        trouble=tuple(trouble),
        remote_commands=session.transport.commands,
    )


def _keepalive(session: Session) -> str:
    purge = session.config.site.purge
    if purge.clock == "none":
        return "not needed: nothing is purged here"
    days = f" after {purge.days} days" if purge.days else ""
    known = (
        f"files are purged{days} ({purge.clock})"
        if purge.days
        else "it is not known what is purged"
    )
    wanted = session.config.settings.scratch_keepalive.enabled
    return f"{known}; nothing is scheduled against it" + (
        "" if wanted else " (off in the settings)"
    )


def allocations_question() -> dict[str, str]:
    """What asks for the balances of the user's accounts."""
    return {"allocations": join(("timeout", _PATIENCE, *allocations.COMMAND))}


def storage_questions(session: Session) -> dict[str, str]:
    """What asks how full the user's places are (see `storage`)."""
    found = {
        "home": 'printf "%s\n" "$rv_home" && df -Pk "$rv_home" && df -Pi "$rv_home"',
        "scratch": 'printf "%s\n" "$rv_scratch" && df -Pk "$rv_scratch" && df -Pi "$rv_scratch"',
    }
    if session.config.site.scheduler == "process":
        return found
    return {**found, "hdquota": join(("timeout", _PATIENCE, *hdquota.COMMAND))}


def _questions(session: Session, look: Script, runs: Script) -> dict[str, str]:
    found = {"look": look.text, "runs": runs.text, **storage_questions(session)}
    if session.config.site.scheduler == "process":
        return found
    return {
        **found,
        **allocations_question(),
        "nodes": join(sinfo.NODES_COMMAND),
        "waiting": f"{join(squeue.WAITING_COMMAND)} | sort | uniq -c",
    }


def _text(answers: dict[str, tuple[int, bytes]], name: str) -> str | None:
    """What was answered; None where the question failed or was not put."""
    code, body = answers.get(name, (1, b""))
    return body.decode("utf-8", "replace") if code == 0 else None


def framed(answers: dict[str, tuple[int, bytes]], name: str) -> Answer | None:
    """The answer of a script that was asked; None where it gave none."""
    return read_any(answers.get(name, (1, b""))[1])


def _view(
    look: observe.Look, answers: dict[str, tuple[int, bytes]], trouble: list[str]
) -> observe.View | None:
    try:
        answer = framed(answers, "look")
        return look.read(answer) if answer is not None else None
    except RvstateError as error:
        trouble.append(error.message)
        return None


def _runs(
    session: Session, answers: dict[str, tuple[int, bytes]], trouble: list[str]
) -> tuple[RunRecord, ...] | None:
    try:
        answer = framed(answers, "runs")
        return jobs.read_runs(session, answer) if answer is not None else None
    except RvstateError as error:
        trouble.append(error.message)
        return None


def balances(answers: dict[str, tuple[int, bytes]]) -> tuple[Balance, ...] | None:
    """The balances among the answers; None where the site tells none."""
    text = _text(answers, "allocations")
    return (allocations.parse(text) or None) if text is not None else None


def _waiting(answers: dict[str, tuple[int, bytes]]) -> dict[str, int] | None:
    # a pipeline's status is its last program's, so squeue's own failure shows as an empty answer
    text = _text(answers, "waiting")
    nodes = _text(answers, "nodes")
    return squeue.parse_waiting(text) if text is not None and nodes else None


def _gpus(
    answers: dict[str, tuple[int, bytes]],
    site: Site,
    waiting: dict[str, int] | None,
    trouble: list[str],
) -> tuple[GpuSupply, ...] | None:
    text = _text(answers, "nodes")
    if text is None:
        if "nodes" in answers:
            trouble.append("Slurm did not say what is free; its controller may be down.")
        return None
    try:
        return supply(sinfo.parse_nodes(text), site, waiting)
    except ParseError as error:
        trouble.append(error.message)
        return None


def supply(
    nodes: tuple[sinfo.Node, ...], site: Site, waiting: dict[str, int] | None
) -> tuple[GpuSupply, ...]:
    """How much there is of each type of GPU, in the order of the site data, then of the nodes."""
    total: dict[str, int] = {}
    free: dict[str, int] = {}
    for node in nodes:
        for has, left in zip(node.gres, node.free_gres(), strict=True):
            if has.name == "gpu" and node.in_service:
                total[has.type] = total.get(has.type, 0) + has.count
                free[has.type] = free.get(has.type, 0) + left.count
    named: dict[str, str] = {}
    for kind in total:
        found = site.gpu(kind)
        named[found[0] if found else kind or "gpu"] = kind
    order = [name for name in site.gpu_names() if name in named]
    order += [name for name in named if name not in order]
    rows = []
    for name in order:
        known = (site.gpus or {}).get(name)
        partition = known.partition if known else ""
        count = None if waiting is None or not partition else waiting.get(partition, 0)
        rows.append(GpuSupply(name, partition, total[named[name]], free[named[name]], count))
    return tuple(rows)


_DF = re.compile(r".*?\s([0-9]+)\s+([0-9]+)\s+(-?[0-9]+)\s+(?:[0-9]+%|-)\s+/.*")


def storage(answers: dict[str, tuple[int, bytes]]) -> tuple[Storage, ...]:
    """The site's own figures where there are any; the file system's for the rest and for inodes."""
    own = {quota.path: quota for quota in hdquota.parse(_text(answers, "hdquota") or "")}
    found = []
    for name in ("home", "scratch"):
        path, *lines = (_text(answers, name) or "").splitlines() or [""]
        rows = [m for line in lines if (m := _DF.fullmatch(line)) is not None]
        if len(rows) != 2:
            continue
        limit, held = int(rows[1][1]), int(rows[1][2])
        place = Storage(
            name=name,
            path=path,
            size=int(rows[0][1]) * 1024,
            used=int(rows[0][2]) * 1024,
            # file systems without a fixed number of them say zero
            inodes=limit or None,
            inodes_used=held if limit else None,
            quota=False,
        )
        quota = own.pop(path, None)
        if quota is not None:
            place = dataclasses.replace(place, size=quota.size, used=quota.used, quota=True)
        found.append(place)
    rest = (Storage(q.name, q.path, q.size, q.used, None, None, True) for q in own.values())
    return (*found, *rest)


def age(seconds: int) -> str:
    """How long ago a moment was, in one unit."""
    passed = max(0, round(time.time()) - seconds)
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if passed >= size:
            count = passed // size
            return f"{count} {word}{'' if count == 1 else 's'} ago"
    return "just now"
