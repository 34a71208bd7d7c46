"""What may be removed from scratch, and why the rest is kept; pure."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rvstate.errors import ProbeError
from rvstate.model.settings import Settings

_DAY = 86400
_RUN_ID = re.compile(r"(\d{8}-\d{6}-[0-9a-f]{8})\Z")
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")
# A name that no branch has: the workspace of a commit that no branch was on.
_DETACHED = "detached-"


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that rvstate keeps.

    Args:
        kind: `snapshot`, `generation`, `environment`, `run`, `workspace`, `commit`, `experiment` or
            `original`.
        path: Where.
        date: When it was made or begun (seconds since 1970), by rvstate's own record, or None.
        flags: What was found of it, in words of `remote/prune.sh`.
        text: A run's job and receipt, a workspace's identity, the record of an original.
    """

    kind: str
    path: str
    date: int | None = None
    flags: frozenset[str] = frozenset()
    text: str = field(default="", repr=False)

    @property
    def run_id(self) -> str:
        """The run that a snapshot or run belongs to; empty for anything else."""
        if self.kind == "experiment":
            return self.path.partition("/refs/rvstate/exps/")[2][:24]
        found = _RUN_ID.search(self.path)
        return found[1] if found and self.kind in ("snapshot", "run") else ""

    @property
    def name(self) -> str:
        """How output names it."""
        parts = self.path.split("/")
        if self.kind == "generation":
            return f"{parts[-4]}/{parts[-2]} {parts[-1]}"
        if self.kind == "snapshot":
            return f"{parts[-4]}/{parts[-3]} {parts[-1]}"
        if self.kind == "environment":
            return f"{parts[-3]} {parts[-1]}"
        if self.kind in ("commit", "experiment"):
            store, _, name = self.path.partition("/.repository/refs/")
            short = name.rpartition("/")[2]
            return f"{store.rpartition('/')[2]} {short[:10] if self.kind == 'commit' else short}"
        return "/".join(parts[-2:]) if self.kind == "workspace" else parts[-1]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is there.

    Args:
        things: Each thing.
        queue: What the scheduler lists; a run that it names is needed.
        clock: The cluster's clock, in seconds since 1970.
    """

    things: tuple[Thing, ...]
    queue: str
    clock: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one thing.

    Args:
        thing: Which.
        goes: Whether it may be removed.
        reason: Why it goes or stays, in one clause.
        logs: Log files that go with a run.
        uses: How many receipts name a generation.
        branch: Whether the branch of a generation is gone, and its link with it.
    """

    thing: Thing
    goes: bool
    reason: str
    logs: tuple[str, ...] = ()
    uses: int = 0
    branch: bool = False


def read(body: bytes) -> Inventory:
    """The answer of `remote/prune.sh list`.

    Raises:
        ProbeError: It is not of the form it should have.
    """
    fields = body.decode("utf-8", "surrogateescape").rstrip("\n").split("\0")[:-1]
    things, queue, clock = [], "", 0
    try:
        for kind, path, date, flags, text in zip(*[iter(fields)] * 5, strict=True):
            if kind == "clock":
                clock = int(date)
            elif kind == "queue":
                queue = text
            else:
                dates = (int(date) if date.isdigit() else None, _date(kind, path, text))
                things.append(Thing(kind, path, _latest(dates), frozenset(flags.split()), text))
    except ValueError as error:
        raise ProbeError(
            f"The list of what is on scratch cannot be read ({error}).", "Run `rvstate doctor`."
        ) from error
    return Inventory(tuple(things), queue, clock)


def _date(kind: str, path: str, text: str) -> int | None:
    """By the run's id in the name, or by the record; never by the date of a file."""
    found = _RUN_ID.search(path)
    if kind in ("snapshot", "run") and found:
        try:
            when = datetime.datetime.strptime(found[1][:15], "%Y%m%d-%H%M%S")
        except ValueError:
            return None
        return int(when.replace(tzinfo=datetime.UTC).timestamp())
    if kind == "original":
        made = record(text).get("made", "")
        return int(made) if made.isdigit() else None
    return None


def _latest(dates: Iterable[int | None]) -> int | None:
    return max((date for date in dates if date is not None), default=None)


def oldest(days: int, here: int, skew: int) -> int:
    """Until when, in seconds since 1970, a thing must have been made to be older than it is kept.

    Args:
        days: How long it is kept.
        here: This machine's clock in seconds since 1970.
        skew: The cluster's clock minus this machine's, in seconds: the earlier one counts, so that
            a wrong clock removes nothing.
    """
    return min(here, here + skew) - days * _DAY


def record(text: str) -> dict[str, str]:
    """The record of a migration's original (remote/caches.sh): words and their values."""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def decide(
    found: Inventory, settings: Settings, branches: Mapping[str, frozenset[str]], now: int
) -> tuple[Verdict, ...]:
    """What goes and what stays.

    Args:
        found: What is there.
        settings: `[snapshot] keep_days` and `[retention]`.
        branches: For each project that is known on this machine, by its identity, the directories
            of the branches that it has.
        now: This machine's clock in seconds since 1970; where the two differ, things count as
            younger.
    """
    deciding = _Deciding(found, settings, branches, now)
    return tuple(deciding.verdict(thing) for thing in found.things)


class _Deciding:
    """The rules, with what several of them look up."""

    def __init__(
        self,
        found: Inventory,
        settings: Settings,
        branches: Mapping[str, frozenset[str]],
        now: int,
    ) -> None:
        self._queue = found.queue
        self._now = now
        self._skew = found.clock - now
        self._days = {
            "snapshot": settings.snapshot.keep_days,
            "generation": settings.retention.environments,
            "environment": settings.retention.environments,
            "run": settings.retention.runs,
            "original": settings.retention.originals,
        }
        self._runs = {t.run_id: t for t in found.things if t.kind == "run"}
        self._users: dict[str, list[Thing]] = {}
        for run in self._runs.values():
            self._users.setdefault(str(receipt(run).get("environment")), []).append(run)
        self._commits = {
            commit for run in self._runs.values() for commit in _COMMIT.findall(run.text)
        }
        self._busy = {_workspace(t) for t in found.things if self._needed(t)}
        self._gone = {
            _workspace(t): reason
            for t in found.things
            if t.kind == "workspace" and (reason := self._no_branch(t, branches))
        }

    def verdict(self, thing: Thing) -> Verdict:
        """One thing."""
        match thing.kind:
            case "workspace":
                return self._about_workspace(thing)
            case "generation":
                return self._about_generation(thing)
            case "run":
                return self._about_run(thing)
            case "environment":
                return self._about_environment(thing)
            case "experiment":
                return self._about_experiment(thing)
            case "commit":
                return self._about_commit(thing)
            case "snapshot":
                run = self._runs.get(thing.run_id)
                # its name tells the date of the laptop, whose clock may have been wrong
                date = _latest((thing.date, run.date if run else None))
                return self._by_age(thing, self._needed(thing), date)
            case _:
                return self._by_age(thing, self._needed(thing), thing.date)

    def _needed(self, thing: Thing) -> str:
        """Why a run or its snapshot is needed; empty where it is not."""
        run = self._runs.get(thing.run_id)
        if not thing.run_id:
            return ""
        if thing.run_id in self._queue:
            return "a job in the queue needs it"
        return "it is to be kept" if run is not None and "keep" in run.flags else ""

    def _by_age(self, thing: Thing, needed: str, date: int | None) -> Verdict:
        days = self._days[thing.kind]
        if needed:
            return Verdict(thing, False, needed)
        if date is None:
            return Verdict(thing, False, "nobody knows how old it is")
        age = (oldest(0, self._now, self._skew) - date) // _DAY
        if date > oldest(days, self._now, self._skew):
            return Verdict(thing, False, f"{max(age, 0)} of {days} days old")
        return Verdict(thing, True, f"{age} days old")

    def _about_run(self, run: Thing) -> Verdict:
        needed = self._needed(run)
        if not needed and "intent" in run.flags and not _job(run):
            needed = "nobody answered its submission; rvstate run --resume looks it up"
        found = self._by_age(run, needed, run.date)
        return Verdict(run, found.goes, found.reason, _logs(run) if found.goes else ())

    def _about_generation(self, thing: Thing) -> Verdict:
        users = self._users.get(thing.path, [])
        for user in users:
            if needed := self._needed(user):
                return Verdict(thing, False, f"run {user.run_id}: {needed}")
        place = "/".join(thing.path.split("/")[-4::2][:2])
        if place in self._gone:
            return Verdict(thing, True, self._gone[place], uses=len(users), branch=True)
        if "pointed" in thing.flags:
            return Verdict(thing, False, "its branch uses it")
        date = _latest((thing.date, *(user.date for user in users)))
        found = self._by_age(thing, "", date)
        return Verdict(thing, found.goes, f"last used {found.reason}", uses=len(users))

    def _about_environment(self, thing: Thing) -> Verdict:
        """An environment that a project's own script made (remote/dvc.sh)."""
        place = f'/envs/{thing.path.partition("/envs/")[2]}"'
        users = [run for run in self._runs.values() if place in run.text]
        for user in users:
            if needed := self._needed(user):
                return Verdict(thing, False, f"run {user.run_id}: {needed}")
        found = self._by_age(thing, "", _latest((thing.date, *(user.date for user in users))))
        return Verdict(thing, found.goes, f"last used {found.reason}", uses=len(users))

    def _about_experiment(self, thing: Thing) -> Verdict:
        """What a job has made, in the account's repository: it goes with its run."""
        run = self._runs.get(thing.run_id)
        if "pushed" not in thing.flags:
            return Verdict(thing, False, "it is not known to be pushed")
        if run is None or not self._about_run(run).goes:
            return Verdict(thing, False, "its run is kept")
        return Verdict(thing, True, "it is pushed, and its run goes")

    def _about_commit(self, thing: Thing) -> Verdict:
        """What jobs start from, in the account's repository."""
        if thing.path.rsplit("/", 1)[-1] in self._commits:
            return Verdict(thing, False, "a run names it")
        if "newest" in thing.flags:
            return Verdict(thing, False, "new commits are sent as a difference to it")
        return Verdict(thing, True, "no run names it")

    def _about_workspace(self, thing: Thing) -> Verdict:
        place = _workspace(thing)
        if place in self._gone:
            return Verdict(thing, True, self._gone[place])
        if place in self._busy:
            return Verdict(thing, False, "a job in the queue needs it, or a run is to be kept")
        return Verdict(thing, False, "its branch exists, or its project is not known here")

    def _no_branch(self, thing: Thing, branches: Mapping[str, frozenset[str]]) -> str:
        """Why a workspace's branch counts as gone; empty where it does not."""
        known = [branches[line] for line in thing.text.split() if line in branches]
        there = frozenset().union(*known) if known else None
        name = thing.path.rsplit("/", 1)[-1]
        if there is None or name in there or name == "_default" or name.startswith(_DETACHED):
            return ""
        return "" if _workspace(thing) in self._busy else "its branch is gone from the project here"


def _workspace(thing: Thing) -> str:
    """PROJECT/BRANCH of a workspace or of a snapshot in one."""
    parts = thing.path.split("/")
    if thing.kind == "workspace":
        return "/".join(parts[-2:])
    return "/".join(parts[-4:-2]) if thing.kind == "snapshot" else ""


def _job(run: Thing) -> str:
    return run.text.partition("\n")[0].strip()


def receipt(run: Thing) -> dict[str, Any]:
    """A run's receipt; empty where it is gone or cut."""
    try:
        found = json.loads(run.text.partition("\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _logs(run: Thing) -> tuple[str, ...]:
    """The log files of a run, where its receipt tells of them."""
    found = receipt(run)
    name, folder, job = found.get("name"), found.get("logs"), _job(run)
    if not name or not folder or not job.isdigit() or "/" in str(name):
        return ()
    return tuple(f"{folder}/{name}-{job}.{suffix}" for suffix in ("out", "err"))


def freed(lines: Iterable[str]) -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
    """The answer of `remote/prune.sh measure`: bytes and inodes by number, and what is not ours."""
    sizes: dict[int, tuple[int, int]] = {}
    foreign: set[int] = set()
    for line in lines:
        match line.split():
            case [number, "foreign"]:
                foreign.add(int(number))
            case [number, size, inodes]:
                sizes[int(number)] = (int(size), int(inodes))
            case _:
                continue
    return sizes, frozenset(foreign)
