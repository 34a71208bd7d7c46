"""Remove what is not needed any more: look, decide, measure, remove; no pyinfra."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rvstate import git, retention
from rvstate.errors import ConvergeError, RvstateError, UnreachableError
from rvstate.model.layout import SYMBOLIC, Account, Layout, branch_component
from rvstate.paths import RemotePath
from rvstate.retention import Verdict
from rvstate.script import Script
from rvstate.workflows.run.scripts import active_jobs
from rvstate.workflows.session import Session

_PATIENCE = "20"
# First what needs no lock, for on a full file system there may be no inode for one; a workspace
# holds its snapshots.
# What is known of an experiment is in its run.
_ORDER = (
    *("log", "experiment", "run", "commit", "snapshot", "generation", "environment", "workspace"),
    "original",
)


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing that may go, with what that frees.

    Args:
        verdict: What was decided, and why.
        kind: As the script calls it.
        path: What is removed.
        size: Bytes on disk that become free, when all before it went.
        inodes: Inodes that become free.
    """

    verdict: Verdict
    kind: str
    path: str
    size: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Pruning:
    """What could be removed.

    Args:
        label: The account, for people.
        removals: What may go, in the order in which it goes.
        kept: What stays, and why.
    """

    label: str
    removals: tuple[Removal, ...]
    kept: tuple[Verdict, ...]

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(removal.size for removal in self.removals)

    @property
    def inodes(self) -> int:
        """Inodes that become free."""
        return sum(removal.inodes for removal in self.removals)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one removal: `word` is done, kept or failed; `text` says why."""

    removal: Removal
    word: str
    text: str = ""


def plan(session: Session, here: Path, tell: Callable[[str], None]) -> Pruning:
    """What may go and what it frees; two remote commands, nothing is written.

    Args:
        session: Which account.
        here: Where the user stands; the project there is known, like those of earlier runs.
        tell: Told what is being done, in a few words.

    Raises:
        RvstateError: The account could not be listed.
        UnreachableError: The scheduler does not say which jobs there are.
    """
    tell(f"looking at {session.label}")
    fixed = ("list", session.scratch, session.home, _queue(session))
    running = session.transport.begin(script := Script("prune", fixed))
    branches = _branches(session, here)
    answer = session.transport.finish(script, running)
    if answer.status != 0:
        raise UnreachableError(_reason(answer.errors), "Try again in a minute.")
    found = retention.read(answer.first("things"))
    settings = session.config.settings
    verdicts = retention.decide(found, settings, branches, int(time.time()))
    going = sorted(_removals(verdicts), key=lambda removal: _ORDER.index(removal.kind))
    kept = [verdict for verdict in verdicts if not verdict.goes]
    tell(f"measuring {len(going)} things")
    removals = _measured(session, tuple(going), kept)
    return Pruning(session.label, removals, tuple(kept))


def _queue(session: Session) -> str:
    # before any look: the local scheduler's place is known by itself
    layout = Layout(SYMBOLIC)
    if session.config.site.scheduler == "process":
        home = RemotePath(session.home)
        layout = Layout(Account("", 0, home, RemotePath(session.scratch)))
    return active_jobs(session, layout)


def _branches(session: Session, here: Path) -> Mapping[str, frozenset[str]]:
    """For each identity of a project that is known on this machine, its branches' directories."""
    roots = {str(found["root"]) for found in session.state.receipts() if found.get("root")}
    known: dict[str, frozenset[str]] = {}
    for root in sorted({*roots, str(here)}):
        try:
            project = git.inspect(Path(root))
        except (RvstateError, OSError):
            # what is no project, or not there any more, says nothing of its branches
            continue
        if not project.in_git:
            continue
        names = frozenset(branch_component(name, None) for name in git.branches(project))
        for identity in (*project.identities, *project.formerly):
            known[identity] = known.get(identity, frozenset()) | names
    return known


def _removals(verdicts: tuple[Verdict, ...]) -> list[Removal]:
    found = []
    for verdict in verdicts:
        if not verdict.goes:
            continue
        thing = verdict.thing
        path = thing.path
        if thing.kind == "original":
            path = retention.record(thing.text).get("original", "")
            if not path:
                continue
        found.append(Removal(verdict, thing.kind, path))
        found += [Removal(verdict, "log", log) for log in verdict.logs]
    return found


def _measured(
    session: Session, going: tuple[Removal, ...], kept: list[Verdict]
) -> tuple[Removal, ...]:
    if not going:
        return ()
    words = (word for removal in going for word in (removal.kind, removal.path))
    answer = session.transport.run(Script("prune", ("measure", *words)))
    if answer.status != 0:
        raise ConvergeError(f"It could not be measured: {_reason(answer.errors)}", "Try again.")
    sizes, foreign = retention.freed(answer.body.decode("utf-8", "replace").splitlines())
    found = []
    for number, removal in enumerate(going):
        verdict = removal.verdict
        if number in foreign:
            why = "its branch is gone, and files lie in it that were not sent from here"
            kept.append(Verdict(verdict.thing, False, why))
        elif number in sizes:
            found.append(Removal(verdict, removal.kind, removal.path, *sizes[number]))
    return tuple(found)


def remove(session: Session, pruning: Pruning, tell: Callable[[str], None]) -> tuple[Done, ...]:
    """Remove it; each thing is looked at once more under its lock.

    Raises:
        RvstateError: The connection, or the scheduler, did not answer; nothing was removed.
    """
    tell(f"removing {len(pruning.removals)} things")
    ours = tuple(r for r in pruning.removals if r.kind != "original")
    originals = tuple(r for r in pruning.removals if r.kind == "original")
    done: tuple[Done, ...] = ()
    if ours:
        words = (word for removal in ours for word in _words(removal))
        fixed = ("remove", session.scratch, session.home, _queue(session))
        done = _results(session, Script("prune", (*fixed, *words)), ours)
    if originals:
        # verified once more against the place where their contents are
        records = Path(originals[0].verdict.thing.path).parent
        lock = (f"{records.parent}/lock", _PATIENCE, str(records), "yes")
        actions = (word for r in originals for word in ("remove", r.path, r.verdict.thing.path, ""))
        done += _results(session, Script("caches", (*lock, *actions)), originals)
    return done


def _words(removal: Removal) -> tuple[str, str, str]:
    kind = "branch" if removal.verdict.branch else removal.kind
    return (kind, removal.path, str(removal.verdict.uses))


def _results(session: Session, script: Script, removals: tuple[Removal, ...]) -> tuple[Done, ...]:
    answer = session.transport.run(script)
    said: dict[int, tuple[str, str]] = {}
    for line in answer.body.decode("utf-8", "replace").splitlines():
        word, _, rest = line.partition(" ")
        number, _, text = rest.partition(" ")
        if word in ("done", "kept", "failed") and number.isdigit():
            said[int(number)] = (word, text.removeprefix("rvstate: ").strip())
    if not said and answer.status != 0:
        raise ConvergeError(_reason(answer.errors), "Try again in a minute.")
    lost = ("failed", "the script ended early; run it again")
    return tuple(Done(r, *said.get(number, lost)) for number, r in enumerate(removals))


def _reason(errors: str) -> str:
    lines = [line.removeprefix("rvstate: ") for line in errors.splitlines() if line.strip()]
    said = lines[-1] if lines else "the cluster gave no reason"
    return f"{said[0].upper()}{said[1:]}."
