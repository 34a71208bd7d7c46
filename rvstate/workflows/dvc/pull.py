"""Experiments brought home: from the remotes, or from what the cluster has kept."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rvstate import git, history
from rvstate.errors import ConfigError, ConvergeError, RvstateError
from rvstate.model.job import JobSpec
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.project import Project
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.slurm.states import FINISHED
from rvstate.workflows import jobs
from rvstate.workflows.dvc.store import program_of
from rvstate.workflows.run.receipt import spec_in
from rvstate.workflows.session import Session

_KEPT = re.compile(r"refs/rvstate/exps/([^/]+)/(\S+)")
_FILE = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?")


@dataclass(frozen=True, slots=True)
class Kept:
    """What the cluster has of a project's experiments.

    Args:
        store: The account's repository of the project.
        cache: DVC's cache there.
        references: For each run (of an array `RUN-INDEX`) the experiments, reference to commit.
        states: For each run what became of its results, as `rv_dvc_tell` said it.
        jobs: The jobs of those whose results are not pushed.
    """

    store: RemotePath
    cache: RemotePath
    references: dict[str, dict[str, str]]
    states: dict[str, str]
    jobs: dict[str, JobSpec]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of it; names of experiments.

    Args:
        remote: That came from the Git remote.
        cluster: That came from the cluster, over ssh.
        had: That were here already.
        pushed: What the login node pushed first, in words.
        files: How many files of theirs came over ssh.
        notices: What the user should know.
    """

    remote: tuple[str, ...]
    cluster: tuple[str, ...]
    had: tuple[str, ...]
    pushed: tuple[str, ...]
    files: int
    notices: tuple[str, ...]


def pull(
    session: Session,
    here: Path,
    runs: tuple[str, ...],
    tell: Callable[[str], None],
    *,
    data: bool = True,
) -> Pulled:
    """Bring the experiments of this project that are not here yet.

    What a job could not push is pushed from the login node first; what cannot be pushed there
    either comes over ssh.

    Args:
        session: Which account.
        here: Where the user stands.
        runs: Ids of runs or jobs' experiments to bring; empty for all.
        tell: Told what is being done, in a few words.
        data: Whether the experiments' files come, too, and not their commits alone.

    Raises:
        ConfigError: There is no repository here, or a run has no experiment.
        RvstateError: The cluster could not say what it has.
    """
    project = git.inspect(here)
    if not project.in_git:
        raise ConfigError(f"{project.root} is in no git repository.", "Stand in the project.")
    tell("looking at what the cluster has kept")
    kept = _chosen(_look(session, project), runs)
    tell("pushing what is not pushed yet")
    pushed, notices = _push(session, kept)
    states = kept.states | {run: f"pushed {words}" for run, words in pushed.items()}
    root = Path(project.root)
    have = history.experiments(root)
    wanted = {
        name: (run, commit)
        for run, references in kept.references.items()
        for name, commit in references.items()
    }
    missing = {name: found for name, found in wanted.items() if name not in have}
    away = {n: c for n, (run, c) in missing.items() if not states[run].startswith("pushed")}
    there = tuple(name for name in missing if name not in away)
    remote: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    if there:
        remote, more = _from_remote(session, project, there, tell, data)
    # a remote that this machine does not reach is no reason to stay without them
    away |= {name: missing[name][1] for name in there if name not in remote}
    count = 0
    last: tuple[str, ...] = ()
    if away:
        tell("bringing commits from the cluster")
        count, last = _from_cluster(session, project, kept, away, data)
    return Pulled(
        remote=tuple(map(_name, remote)),
        cluster=tuple(map(_name, away)),
        had=tuple(_name(name) for name in wanted if name in have),
        pushed=tuple(pushed.values()),
        files=count,
        notices=(*notices, *more, *last),
    )


def _name(reference: str) -> str:
    return reference.split("/", 4)[4]


def _look(session: Session, project: Project) -> Kept:
    symbolic = Layout(SYMBOLIC)
    cache = session.config.settings.dvc.cache or symbolic.dvc_cache
    asked = (session.scratch, session.home, symbolic.repository(project.name), symbolic.runs)
    own = f"{cache}/projects/{project.name}"
    answer = session.transport.run(Script("dvc_kept", ("list", *asked, own)))
    if answer.status != 0:
        said = answer.errors.strip() or "it gave no reason"
        raise RvstateError(f"The cluster does not say what it has kept: {said}", "Try again.")
    store, there = answer.first("places").decode("utf-8", "surrogateescape").splitlines()[:2]
    references: dict[str, dict[str, str]] = {}
    for line in answer.first("references").decode("utf-8", "replace").splitlines():
        commit, _, reference = line.partition(" ")
        found = _KEPT.fullmatch(reference)
        if found and history.is_experiment(f"refs/exps/{found[2]}"):
            references.setdefault(found[1], {})[f"refs/exps/{found[2]}"] = commit
    states = {}
    for line in answer.first("states").decode("utf-8", "replace").splitlines():
        path, _, text = line.removeprefix("./").partition(":")
        states[_run(path.removesuffix("/dvc"))] = text
    unpushed = {}
    for name, body in answer.sections:
        word, _, path = name.partition(" ")
        spec = _job(body) if word == "receipt" else None
        if spec is not None and spec.dvc is not None and spec.dvc.store == store:
            unpushed[_run(path)] = spec
    # what is not known to be pushed, is not
    known = dict.fromkeys(references, "") | states
    return Kept(RemotePath(store), RemotePath(there), references, known, unpushed)


def _run(path: str) -> str:
    return path.replace("/elements/", "-")


def _job(body: bytes) -> JobSpec | None:
    try:
        return spec_in(json.loads(body))
    except (ValueError, ConfigError):
        # of another version: it is brought, and not pushed
        return None


def _chosen(kept: Kept, runs: tuple[str, ...]) -> Kept:
    """What belongs to these runs.

    Raises:
        ConfigError: One of them has left nothing.
    """
    if not runs:
        return kept
    chosen = set()
    for called in runs:
        found = {
            run
            for run in {*kept.references, *kept.jobs}
            if called in (run, run[:24])
            or any(_name(name) == called for name in kept.references.get(run, ()))
        }
        if not found:
            raise ConfigError(
                f"The cluster has kept no experiment of {called!r}.",
                "`rvstate dvc pull` without a name brings all that there are.",
            )
        chosen |= found
    return replace(
        kept,
        references={run: found for run, found in kept.references.items() if run in chosen},
        jobs={run: found for run, found in kept.jobs.items() if run in chosen},
    )


def _push(session: Session, kept: Kept) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the login node could push, run to words; and why the rest could not be."""
    done: dict[str, str] = {}
    notices = []
    # what a job is still at it pushes itself
    busy = _going_on(session) if kept.jobs else frozenset()
    for run, job in kept.jobs.items():
        if run in busy:
            continue
        found = job.dvc
        assert found is not None
        program = program_of(job, found)
        if not found.url or program is None:
            continue
        index = run[len(job.run_id) + 1 :]
        place = job.run_directory / f"elements/{index}" if index else job.run_directory
        # of DVC's queue each experiment has its own
        commit = found.queued[int(index)][0] if found.queued and index else found.commit
        args = (found.store, place, program, commit, found.remote, found.url, found.cache)
        answer = session.transport.run(
            Script("dvc_kept", ("push", *args, job.variables_file or ""))
        )
        said = answer.body.decode("utf-8", "replace").strip()
        if answer.status == 0 and said.startswith("pushed "):
            done[run] = said.removeprefix("pushed ")
        else:
            why = _why(answer.errors)
            notices.append(f"the login node could not push the results of run {run}: {why}")
    return done, tuple(notices)


def _from_remote(
    session: Session,
    project: Project,
    names: tuple[str, ...],
    tell: Callable[[str], None],
    data: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The experiments that came from the Git remote, and what the user should know."""
    root, remote = Path(project.root), session.config.settings.dvc.remote
    tell(f"fetching from {remote}")
    if not history.fetch(root, remote, names):
        return (), (f"Git remote {remote!r} does not give them to this machine",)
    if not data:
        return names, ()
    program = history.dvc(root)
    if program is None:
        return names, (
            "there is no dvc on this machine, so only commits came; `dvc exp pull` brings files",
        )
    options = ("exp", "pull", "--force", remote, *map(_name, names))
    status, said = history.run_dvc(program, root, *options)
    if status != 0:
        return names, (f"commits came, and `dvc exp pull` did not bring the files: {_why(said)}",)
    return names, ()


def _going_on(session: Session) -> frozenset[str]:
    """Runs, and elements of arrays as `RUN-INDEX`, that have not ended."""
    going: set[str] = set()
    for run in jobs.runs(session):
        if run.is_over:
            continue
        over = {e.index for e in run.elements if e.state in FINISHED}
        indices = run.array.indices if run.array else ()
        going |= {run.run_id, *(f"{run.run_id}-{i}" for i in indices if i not in over)}
    return frozenset(going)


def _why(said: str) -> str:
    """The line of a program's output that says why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith(("ERROR:", "fatal:", "rvstate:"))]
    return (wrong or lines or ["it gave no reason"])[-1].removeprefix("rvstate: ")


def _from_cluster(
    session: Session, project: Project, kept: Kept, wanted: dict[str, str], data: bool
) -> tuple[int, tuple[str, ...]]:
    """Commits, and where DVC is here their files, over ssh; how many files came."""
    root = Path(project.root)
    commits = "\n".join(wanted.values())
    # an experiment's reference names the commit that it started from
    bases = ("".join(name.split("/")[2:4]) for name in wanted)
    have = "\n".join(history.known(root, bases))
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        packed = Path(folder) / "packed"
        _stream(session, Script("dvc_kept", ("commits", kept.store, have, commits)), packed)
        history.take(root, packed, wanted)
        if not data:
            return 0, ()
        program = history.dvc(root)
        status, said = history.run_dvc(program, root, "cache", "dir") if program else (1, "")
        if status != 0:
            return 0, ("there is no dvc on this machine, so only commits came",)
        _stream(session, Script("dvc_kept", ("files", kept.store, kept.cache, commits)), packed)
        return _unpack(packed, Path(said.strip().splitlines()[-1])), ()


def _stream(session: Session, script: Script, target: Path) -> None:
    with target.open("wb") as file:
        status = session.transport.stream(script, None, file.write)
    if status != 0:
        raise ConvergeError("What was asked for did not arrive whole.", "Run the command again.")


def _unpack(packed: Path, cache: Path) -> int:
    """Put files into DVC's cache, each only where it is what its name says; how many were new."""
    count = 0
    with tarfile.open(packed, "r:") as archive:
        for member in archive:
            found = _FILE.fullmatch(member.name)
            source = archive.extractfile(member) if found and member.isfile() else None
            if found is None or source is None:
                continue
            target = cache / "files" / "md5" / found[1] / f"{found[2]}{found[3] or ''}"
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.rvstate-part")
            total = hashlib.md5(usedforsecurity=False)
            with part.open("wb") as file:
                while piece := source.read(1 << 20):
                    total.update(piece)
                    file.write(piece)
            if total.hexdigest() != found[1] + found[2]:
                part.unlink()
                raise ConvergeError(
                    f"{member.name} is damaged on the cluster.",
                    "Run the experiment again with `dvc exp run --force`.",
                )
            # as DVC keeps its cache
            part.chmod(0o444)
            part.replace(target)
            count += 1
    return count
