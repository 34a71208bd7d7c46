"""What goes and what stays, by rvstate's own dates; nothing that anybody needs ever goes."""

from __future__ import annotations

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import retention
from rvstate.model.settings import Settings
from rvstate.retention import Inventory, Thing, Verdict

NOW = int(datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC).timestamp())
OLD, NEW = "20260101-000000-aaaaaaaa", "20260531-000000-bbbbbbbb"
SCRATCH = "/scratch/u"
ENVS = f"{SCRATCH}/.rv/envs/app/.generations/main"


def snapshot(run_id: str, branch: str = "main") -> Thing:
    path = f"{SCRATCH}/rv-workspaces/app/{branch}/snapshots/rv-train-{run_id}"
    return Thing("snapshot", path, retention._date("snapshot", path, ""))


def run(run_id: str, *flags: str, job: str = "7", environment: str = "") -> Thing:
    path = f"{SCRATCH}/.rv/runs/{run_id}"
    text = json.dumps(
        {"environment": environment, "name": "rv-train", "logs": f"{SCRATCH}/.rv/logs"}
    )
    date = retention._date("run", path, "")
    return Thing("run", path, date, frozenset(flags), f"{job}\n{text}")


def generation(digest: str, *flags: str, days: int | None = 200, branch: str = "main") -> Thing:
    date = None if days is None else NOW - days * 86400
    path = f"{SCRATCH}/.rv/envs/app/.generations/{branch}/{digest}"
    return Thing("generation", path, date, frozenset(flags))


def workspace(branch: str, identity: str = "me") -> Thing:
    return Thing("workspace", f"{SCRATCH}/rv-workspaces/app/{branch}", text=f"{identity}\nother\n")


def decide(
    *things: Thing, queue: str = "", branches: tuple[str, ...] = ("main",), now: int = NOW
) -> list[Verdict]:
    found = Inventory(things, queue, NOW)
    known = {"me": frozenset(branches)}
    return list(retention.decide(found, Settings(), known, now))


def goes(*things: Thing, **more: object) -> list[bool]:
    return [verdict.goes for verdict in decide(*things, **more)]  # type: ignore[arg-type]


def test_snapshots_go_by_the_date_in_their_names() -> None:
    """Old ones go, unless a job in the queue or the user needs them."""
    assert goes(snapshot(OLD), snapshot(NEW)) == [True, False]
    assert goes(snapshot(OLD), queue=f"41 PENDING rvstate:{OLD} rv-train") == [False]
    assert goes(snapshot(OLD), run(OLD, "keep", "exit")) == [False, False]


def test_a_clock_that_is_ahead_makes_nothing_older() -> None:
    """Of the two clocks the earlier one counts."""
    assert goes(snapshot(NEW), now=NOW + 400 * 86400) == [False]
    assert goes(snapshot(OLD), now=NOW - 400 * 86400) == [False]


def test_a_laptop_whose_clock_was_behind_makes_nothing_old() -> None:
    """The cluster's own date of a submission counts, too, for the run and for its snapshot."""
    date = str(NOW - 86400)
    fields = ("run", run(OLD).path, date, "intent exit", "7\n{}")
    thing = (f"{field}\0" for field in fields)
    (read,) = retention.read("".join(thing).encode()).things
    assert read.date == int(date)
    assert goes(read, snapshot(OLD)) == [False, False]


@given(st.integers(-(10**8), 10**8), st.integers(0, 400))
def test_the_wrong_clock_of_two_never_makes_older(skew: int, days: int) -> None:
    """A submission clears away with the rule that prune has."""
    assert retention.oldest(days, NOW, skew) <= NOW - days * 86400
    assert retention.oldest(days, NOW, skew) <= NOW + skew - days * 86400


def test_a_generation_that_is_used_stays() -> None:
    """By its branch, by a job in the queue, by a run that is to be kept, or until lately."""
    one = f"{ENVS}/d1"
    assert goes(generation("d1")) == [True]
    assert goes(generation("d1", "stamped", "pointed")) == [False]
    assert goes(generation("d1", days=3)) == [False]
    assert goes(generation("d1", days=None)) == [False]
    assert goes(generation("d1"), run(NEW, "exit", environment=one))[0] is False
    assert goes(generation("d1"), run(OLD, "exit", environment=one))[0] is True
    assert goes(generation("d1"), run(OLD, "keep", environment=one))[0] is False
    assert goes(generation("d1"), run(OLD, environment=one), queue=OLD)[0] is False


def test_a_layer_goes_by_its_own_use() -> None:
    """A branch's link never leads to one; runs do, and a job in the queue holds it."""
    one = f"{ENVS}/layer-k1"
    assert goes(generation("layer-k1"), generation("d1", "pointed")) == [True, False]
    assert goes(generation("layer-k1", days=3)) == [False]
    assert goes(generation("layer-k1"), run(NEW, "exit", environment=one))[0] is False
    assert goes(generation("layer-k1"), run(OLD, environment=one), queue=OLD)[0] is False
    assert goes(generation("layer-k1"), run(OLD, environment=f"{ENVS}/d1"), queue=OLD)[0] is True


def test_a_run_goes_with_its_logs() -> None:
    """An old one that ended; one whose submission was never answered stays."""
    (verdict,) = decide(run(OLD, "intent", "exit", job="7"))
    assert verdict.logs == (
        f"{SCRATCH}/.rv/logs/rv-train-7.out",
        f"{SCRATCH}/.rv/logs/rv-train-7.err",
    )
    assert goes(run(OLD, "intent", job="")) == [False]
    assert goes(run(OLD, "exit"), queue=f"7 RUNNING rvstate:{OLD}") == [False]
    assert goes(run(NEW, "exit")) == [False]


STORE = f"{SCRATCH}/rv-workspaces/app/.repository/refs"
COMMIT = "c" * 40


def experiment(run_id: str, *flags: str) -> Thing:
    path = f"{STORE}/rvstate/exps/{run_id}/{COMMIT[:2]}/{COMMIT[2:]}/tidy"
    return Thing("experiment", path, None, frozenset(flags))


def test_an_experiment_goes_with_its_run_and_only_if_it_is_pushed() -> None:
    """What no job has said to be pushed stays, whatever became of its run."""
    assert goes(experiment(OLD, "pushed"), run(OLD, "exit")) == [True, True]
    assert goes(experiment(f"{OLD}-3", "pushed"), run(OLD, "exit")) == [True, True]
    assert goes(experiment(OLD), run(OLD, "exit")) == [False, True]
    assert goes(experiment(OLD, "pushed")) == [False]
    assert goes(experiment(NEW, "pushed"), run(NEW, "exit")) == [False, False]
    assert goes(experiment(OLD, "pushed"), run(OLD, "exit"), queue=OLD) == [False, False]
    assert experiment(OLD).name == "app tidy"


def test_a_commit_goes_when_no_run_names_it() -> None:
    """A receipt that does keeps it, as whatever the next run is sent against."""
    commit = Thing("commit", f"{STORE}/rvstate/commits/{COMMIT}")
    newest = Thing("commit", f"{STORE}/rvstate/commits/{'d' * 40}", None, frozenset({"newest"}))
    assert goes(commit, newest, run(OLD, "exit")) == [True, False, True]
    naming = Thing("run", run(OLD).path, run(OLD).date, frozenset({"exit"}), f'7\n["{COMMIT}"]')
    assert goes(commit, naming) == [False, True]


def test_an_environment_of_the_projects_script_goes_by_its_use() -> None:
    """By runs that name its place, or when it was made; a job that waits for it keeps it."""
    place = f"{SCRATCH}/.rv/envs/app/.scripted/d1"

    def made(days: int | None) -> Thing:
        return Thing("environment", place, None if days is None else NOW - days * 86400)

    def user(run_id: str) -> Thing:
        text = f'7\n{{"dvc": {{"place": "{place}"}}}}'
        return Thing("run", run(run_id).path, run(run_id).date, frozenset({"exit"}), text)

    assert goes(made(200)) == [True]
    assert goes(made(2)) == [False]
    assert goes(made(None)) == [False]
    assert goes(made(200), user(NEW))[0] is False
    assert goes(made(None), user(OLD))[0] is True
    assert goes(made(200), user(OLD), queue=OLD)[0] is False


def test_the_workspace_of_a_branch_that_is_gone() -> None:
    """Only of a project that is known here; with its environments, and not while a job needs it."""
    left = workspace("old-idea")
    assert goes(workspace("main"), left) == [False, True]
    assert goes(workspace("old-idea", "somebody")) == [False]
    assert goes(workspace("_default"), workspace("detached-0123456789ab")) == [False, False]
    used = snapshot(NEW, "old-idea")
    assert goes(left, used, queue=NEW) == [False, False]
    env = generation("d1", "stamped", "pointed", branch="old-idea", days=1)
    assert [(v.goes, v.branch) for v in decide(left, env)] == [(True, False), (True, True)]
    running = run(NEW, environment=env.path)
    assert goes(left, env, running, queue=NEW) == [True, False, False]


def test_originals_go_by_their_records() -> None:
    """By the date in the record; one without a date stays."""
    text = "original /home/u/.cache/uv.rvstate-original-1\ntarget /x\nmade {}\nstate aside\n"
    old, new, none = (text.format(when) for when in (NOW - 40 * 86400, NOW - 86400, ""))
    things = (
        Thing("original", "/r/x", retention._date("original", "", t), text=t)
        for t in (old, new, none)
    )
    assert goes(*things) == [True, False, False]


def test_the_list_is_read() -> None:
    """Fields by NUL, so that any name is safe; what is no list is an error."""
    path = f"{SCRATCH}/.rv/runs/{OLD}"
    fields = (
        "clock",
        "",
        "99",
        "",
        "",
        "queue",
        "",
        "",
        "",
        "1 a\n2 b",
        "run",
        path,
        "",
        "exit",
        "7\n{}",
    )
    found = retention.read("".join(f"{f}\0" for f in fields).encode() + b"\n")
    assert (found.clock, found.queue) == (99, "1 a\n2 b")
    assert found.things == (Thing("run", path, run(OLD).date, frozenset({"exit"}), "7\n{}"),)
    with pytest.raises(retention.ProbeError):
        retention.read(b"clock\0\0")


IDS = st.from_regex(
    r"20(2[4-6])(0[1-9]|1[0-2])(0[1-9]|1\d|2[0-8])-000000-[0-9a-f]{8}", fullmatch=True
)


@given(st.sets(IDS, min_size=1, max_size=8), st.data())
def test_whatever_is_in_the_queue_stays(ids: set[str], data: st.DataObject) -> None:
    """No combination of dates and flags lets go what a job or the user needs."""
    queued = data.draw(st.sets(st.sampled_from(sorted(ids))))
    kept = data.draw(st.sets(st.sampled_from(sorted(ids))))
    things = []
    for number, run_id in enumerate(sorted(ids)):
        flags = ("keep",) if run_id in kept else ("exit",)
        things += [
            snapshot(run_id),
            run(run_id, *flags, environment=f"{ENVS}/d{number}"),
            generation(f"d{number}"),
        ]
    for verdict in decide(*things, queue="\n".join(queued)):
        if verdict.goes:
            number = verdict.thing.path.rsplit("/d", 1)[-1]
            run_id = verdict.thing.run_id or sorted(ids)[int(number)]
            assert run_id not in queued | kept
