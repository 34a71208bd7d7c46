"""Experiments brought home: from the remotes, or from what the cluster has kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rvstate import git, history
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.job import JobSpec
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.project import Project
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.slurm.states import FINISHED
from rvstate.workflows import jobs
from rvstate.workflows.dvc import bring
from rvstate.workflows.dvc.store import program_of
from rvstate.workflows.run.receipt import spec_in
from rvstate.workflows.session import Session

# as DVC lists what it could not fetch
_MISSING = re.compile(r"^md5: ([0-9a-f]{32}(?:\.dir)?)$", re.M)
_KEPT = re.compile(r"refs/rvstate/exps/([^/]+)/(\S+)")


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
    wanted = _named(kept, have)
    missing = [found for found in wanted if have.get(found.here) != found.commit]
    away = {f.here: f.commit for f in missing if not _is_remotes(f, states)}
    there = {f.here: f for f in missing if f.here not in away}
    remote: tuple[str, ...] = ()
    more = tuple(_said(found) for found in missing if found.here != found.name)
    bare: frozenset[str] | None = None
    if there:
        remote, bare, why = _from_remote(session, project, tuple(there), tell, data)
        # somebody may have put another result in the place of the job's
        came = history.experiments(root)
        other = [there[name] for name in remote if came.get(name) != there[name].commit]
        away |= {found.other: found.commit for found in other}
        more = (*more, *why, *map(_said, other))
    # a remote that this machine does not reach is no reason to stay without them
    away |= {name: found.commit for name, found in there.items() if name not in remote}
    count = 0
    last: tuple[str, ...] = ()
    if away:
        tell("bringing commits from the cluster")
        bring.commits(session, root, kept.store, away)
    place = (session, root, kept.store, kept.cache)
    if data and away:
        tell("bringing files from the cluster")
        count, last = bring.files(*place, away.values())
    if bare is not None:
        tell("bringing files that the DVC remote does not give")
        more_files, said = bring.files(*place, (f.commit for f in there.values()), bare)
        count, last = count + more_files, (*last, *said)
    return Pulled(
        remote=tuple(map(_name, remote)),
        cluster=tuple(map(_name, away)),
        had=tuple(_name(f.here) for f in wanted if f not in missing),
        pushed=tuple(pushed.values()),
        files=count,
        notices=(*notices, *more, *last),
    )


class _Found(NamedTuple):
    """An experiment that a run has left.

    Args:
        run: The run.
        name: Its reference, over there and on the Git remote.
        here: What it is called here: where another result has that name, another one.
        commit: The full hash.
    """

    run: str
    name: str
    here: str
    commit: str

    @property
    def other(self) -> str:
        """A name that no other run's has (as remote/dvc_settle.sh makes it)."""
        return f"{self.name}-{self.run[16:24]}"


def _named(kept: Kept, have: dict[str, str]) -> list[_Found]:
    """The experiments of all runs, each under a name of its own; the oldest first."""
    taken = dict(have)
    every: list[_Found] = []
    for run, references in kept.references.items():
        for name, commit in references.items():
            found = _Found(run, name, name, commit)
            if taken.setdefault(name, commit) != commit:
                found = found._replace(here=found.other)
            every.append(found)
    return list({found.here: found for found in every}.values())


def _is_remotes(found: _Found, states: dict[str, str]) -> bool:
    return found.here == found.name and states[found.run].startswith("pushed")


def _said(found: _Found) -> str:
    name = _name(found.name)
    return (
        f"run {found.run} has another result of {name} than the one that has that name; it is "
        f"{_name(found.other)} here"
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
) -> tuple[tuple[str, ...], frozenset[str] | None, tuple[str, ...]]:
    """What came from the Git remote, which files did not, and what the user should know.

    The files are None where all of them came or none is wanted, and empty where none came.
    """
    root, remote = Path(project.root), session.config.settings.dvc.remote
    tell(f"fetching from {remote}")
    if not history.fetch(root, remote, names):
        return (), None, (f"Git remote {remote!r} does not give them to this machine",)
    if not data:
        return names, None, ()
    program = history.dvc(root)
    if program is None:
        why = "there is no dvc on this machine, so only commits came; `dvc exp pull` brings files"
        return names, None, (why,)
    # by reference: experiments of two commits may have one name
    status, said = history.run_dvc(program, root, "exp", "pull", "--force", remote, *names)
    if status != 0:
        why = f"`dvc exp pull` did not bring the files, so the cluster's came: {_why(said)}"
        return names, frozenset(), (why,)
    missing = frozenset(_MISSING.findall(said)) if "Missing cache files" in said else frozenset()
    if not missing:
        return names, None, ()
    why = (
        "the DVC remote does not give all files to this machine; what the cluster has of them came"
    )
    # which files are in a directory that did not come, DVC does not say
    whole = any(name.endswith(".dir") for name in missing)
    return names, frozenset() if whole else missing, (why,)


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
