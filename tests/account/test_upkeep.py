"""What is on scratch stays whole and tidy: verify, healing, prune and usage on one machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rvstate import assets
from tests.runkit import Laptop, git, repository


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = Laptop(tmp_path / "laptop")
    laptop.run("converge", "-y")
    return laptop


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project without requirements, so that nothing has to be installed."""
    return repository(tmp_path / "work/app", {"train.py": "print('one')\n", "data/x": "1\n"})


def scratch(laptop: Laptop) -> Path:
    return laptop.home / "local/scratch"


def environment(laptop: Laptop, digest: str = "5fd488511d7a5a2445bd") -> Path:
    """A finished generation as the build leaves it, with the link of its branch."""
    envs = scratch(laptop) / ".rv/envs/app"
    place = envs / ".generations/main" / digest
    (place / "bin").mkdir(parents=True)
    (place / "lib").mkdir()
    (place / ".rvstate").mkdir()
    os.symlink(shutil.which("true") or "/bin/true", place / "bin/python")
    for name in ("one.py", "two.py"):
        (place / "lib" / name).write_text("x = 1\n")
    keep(place, place / ".rvstate/manifest")
    (place / ".rvstate-environment").write_text(f"{digest}\nPython 3\n")
    (envs / "main").unlink(missing_ok=True)
    os.symlink(place, envs / "main")
    return place


def keep(tree: Path, file: Path) -> None:
    text = f'{assets.script("lib")}\n{assets.script("manifest")}\nrv_manifest "$1" "$2"\n'
    subprocess.run(["sh", "-s", "--", str(tree), str(file)], input=text, text=True, check=True)


def verify(laptop: Laptop, status: int) -> dict[str, dict[str, Any]]:
    """Each kind's last thing that `verify --json` tells of."""
    done = laptop.run("verify", "--json", status=status)
    document = json.loads(done.stdout)
    assert document["remote_commands"] == 1
    return {thing["kind"]: thing for thing in document["things"]}


def test_what_is_whole_is_sound(laptop: Laptop, app: Path) -> None:
    """All four kinds; additions and bytecode are no damage; the walk leaves a date."""
    place = environment(laptop)
    laptop.submit("train.py", cwd=app)
    (place / "lib/added.py").write_text("mine")
    (place / "lib/__pycache__").mkdir()
    (place / "lib/__pycache__/one.pyc").write_text("x")
    found = verify(laptop, 0)
    assert {kind: thing["state"] for kind, thing in found.items()} == dict.fromkeys(
        ("environment", "snapshot", "variables", "scripts"), "sound"
    )
    assert (found["environment"]["added"], found["environment"]["missing"]) == (1, 0)
    when, state = (place / ".rvstate/verified").read_text().split()
    assert when.isdigit()
    assert state == "sound"
    assert verify(laptop, 0)["environment"]["added"] == 1


def test_what_a_purge_took_is_named(laptop: Laptop, app: Path) -> None:
    """Single files of each kind; the exit status says so, and each has its remedy."""
    place = environment(laptop)
    run = laptop.submit("train.py", cwd=app)
    laptop.await_state(run["run_id"], "COMPLETED")
    (place / "lib/one.py").unlink()
    (place / "lib/two.py").write_text("")
    (Path(run["snapshot"]) / "data/x").unlink()
    (scratch(laptop) / ".rv/env/user.env").write_text("cut")
    (script,) = (scratch(laptop) / ".rv/lib").glob("*/job.sh")
    script.unlink()
    found = verify(laptop, 1)
    assert {thing["state"] for thing in found.values()} == {"damaged"}
    assert found["environment"]["examples"] == [
        {"what": "missing", "path": "lib/one.py"},
        {"what": "changed", "path": "lib/two.py"},
    ] or found["environment"]["examples"] == [
        {"what": "changed", "path": "lib/two.py"},
        {"what": "missing", "path": "lib/one.py"},
    ]
    assert found["snapshot"]["examples"] == [{"what": "missing", "path": "data/x"}]
    assert "rerun" in found["snapshot"]["remedy"]
    assert found["variables"]["remedy"] == "rvstate converge"
    said = laptop.run("verify", status=1).stdout
    assert "missing lib/one.py" in said
    assert "→ rvstate converge" in said


def test_variables_that_are_gone_are_damage(laptop: Laptop) -> None:
    """The whole file, not only what it holds; converge brings it back from here."""
    file = scratch(laptop) / ".rv/env/user.env"
    file.unlink()
    found = verify(laptop, 1)["variables"]
    assert (found["state"], found["reason"]) == ("damaged", "it is gone")
    laptop.run("converge", "-y")
    assert file.is_file()
    assert verify(laptop, 0)["variables"]["state"] == "sound"


def test_former_scripts_are_damage_where_a_job_needs_them(laptop: Laptop) -> None:
    """converge keeps its own only, so what nobody needs is no reason to fail."""
    former = scratch(laptop) / ".rv/lib/0123456789abcdef"
    run = scratch(laptop) / ".rv/runs/20260101-000000-00000000"
    for path, text in (
        (former / "job.sh", "cut"),
        (run / "job", "7"),
        (run / "job.sh", f". {former}/job.sh"),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    states = []
    for status in (1, 0):
        things = json.loads(laptop.run("verify", "--json", status=status).stdout)["things"]
        states += [t["state"] for t in things if t["path"] == str(former)]
        (run / "exit").write_text("0 1\n")
    assert states == ["damaged", "unknown"]


@pytest.mark.parametrize("loss", ["stamp", "interpreter", "manifest", "all", "link"])
def test_an_environment_that_cannot_run_is_damaged(laptop: Laptop, loss: str) -> None:
    """Without stamp, interpreter, manifest, files, or as a whole it is damaged."""
    place = environment(laptop)
    if loss == "stamp":
        (place / ".rvstate-environment").unlink()
    elif loss == "interpreter":
        (place / "bin/python").unlink()
        os.symlink("/nowhere/python3", place / "bin/python")
    elif loss == "manifest":
        (place / ".rvstate/manifest").unlink()
    elif loss == "all":
        shutil.rmtree(place / "lib")
        shutil.rmtree(place / "bin")
    else:
        shutil.rmtree(place)
    assert verify(laptop, 1)["environment"]["state"] == "damaged"


def test_a_build_that_was_killed_is_none(laptop: Laptop) -> None:
    """A generation without a stamp that nothing points to is not looked at."""
    place = environment(laptop)
    (place.parent / "0000").mkdir()
    assert verify(laptop, 0)["environment"]["path"] == str(place)


def test_what_a_job_did_to_its_own_files_is_no_damage(laptop: Laptop, app: Path) -> None:
    """A job appends to a tracked file of its snapshot."""
    run = laptop.submit("sh", "-c", "echo more >>data/x", cwd=app)
    laptop.await_state(run["run_id"], "COMPLETED")
    found = verify(laptop, 0)["snapshot"]
    assert (found["state"], found["changed"]) == ("sound", 1)


def test_converge_takes_a_damaged_environment_out_of_use(laptop: Laptop) -> None:
    """What verify found is mended by converge; the second converge has nothing to do."""
    place = environment(laptop)
    link = scratch(laptop) / ".rv/envs/app/main"
    (place / "lib/one.py").unlink()
    assert laptop.document("converge", "--check")["hosts"][0]["changes"] == []
    verify(laptop, 1)
    (change,) = laptop.document("converge", "--check")["hosts"][0]["changes"]
    assert (change["kind"], change["name"]) == ("environment", "app/main")
    done = laptop.document("converge", "-y")["hosts"][0]
    assert done["verified"] is True
    assert not link.is_symlink()
    assert not (place / ".rvstate-environment").exists()
    assert "Nothing to do" in laptop.run("converge").stdout


def test_converge_leaves_a_sound_environment_alone(laptop: Laptop) -> None:
    """It counts as one more resource that is as declared."""
    before = laptop.document("converge", "--check")["hosts"][0]["recap"]["ok"]
    place = environment(laptop)
    verify(laptop, 0)
    found = laptop.document("converge", "--check")["hosts"][0]
    assert (found["recap"]["ok"], found["changes"]) == (before + 1, [])
    assert place.is_dir()


def test_what_rvstate_did_not_make_is_left_alone(laptop: Laptop, tmp_path: Path) -> None:
    """A link to somewhere else is none of our environments."""
    envs = scratch(laptop) / ".rv/envs/app"
    envs.mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    os.symlink(tmp_path / "mine", envs / "main")
    assert "Nothing to do" in laptop.run("converge").stdout
    assert (envs / "main").is_symlink()


# prune


def old(laptop: Laptop, run: dict[str, Any], days: str = "20240101") -> str:
    """Make a run long past: its id, as everything of it is named, says so."""
    new = days + str(run["run_id"])[8:]
    for path in [
        *scratch(laptop).glob(f".rv/runs/{run['run_id']}"),
        *scratch(laptop).glob(f"rv-workspaces/*/*/snapshots/*{run['run_id']}"),
        *scratch(laptop).glob(f"rv-workspaces/*/*/snapshots/.*{run['run_id']}.manifest"),
    ]:
        to = path.rename(path.with_name(path.name.replace(str(run["run_id"]), new)))
        if (to / "intent").exists():
            (to / "intent").write_text("1704067200\n")
    return new


def prune(laptop: Laptop, app: Path, *words: str) -> dict[str, Any]:
    return laptop.document("prune", *words, cwd=app)


def test_what_is_old_goes_and_what_is_needed_stays(laptop: Laptop, app: Path) -> None:
    """A dry run writes nothing; what it says is what goes; the second time nothing is left."""
    past = laptop.submit("train.py", cwd=app)
    now = laptop.submit("train.py", cwd=app)
    for run in (past, now):
        laptop.await_state(str(run["run_id"]), "COMPLETED")
    gone = old(laptop, past)
    log = Path(str(past["log"]))
    said = prune(laptop, app, "--dry-run")
    assert {(r["kind"], Path(r["path"]).name[-24:]) for r in said["removals"]} == {
        ("snapshot", gone),
        ("run", gone),
        ("log", log.name),
        ("log", log.with_suffix(".err").name),
    }
    assert log.exists()
    refused = laptop.run("prune", cwd=app, status=64)
    assert "--dry-run" in refused.stderr
    done = prune(laptop, app, "-y")
    assert {r["result"] for r in done["removals"]} == {"done"}
    assert done["bytes"] == said["bytes"] > 0
    assert not log.exists()
    left = scratch(laptop).glob("rv-workspaces/app/main/snapshots/[!.]*")
    assert [p.name for p in left] == [Path(str(now["snapshot"])).name]
    assert not list(scratch(laptop).glob(f"rv-workspaces/*/*/snapshots/.*{gone}*"))
    assert prune(laptop, app, "-y")["removals"] == []


def test_a_job_in_the_queue_keeps_what_it_needs(laptop: Laptop, app: Path) -> None:
    """However old it is; and also where it was submitted after the decision."""
    run = laptop.submit("sleep", "60", cwd=app)
    snapshot = Path(str(run["snapshot"]))
    try:
        laptop.env |= {"RVSTATE_SNAPSHOT_KEEP_DAYS": "0", "RVSTATE_RETENTION_RUNS": "0"}
        found = prune(laptop, app, "-y")
        assert found["removals"] == []
        assert {k["reason"] for k in found["kept"] if k["kind"] in ("snapshot", "run")} == {
            "a job in the queue needs it"
        }
        assert snapshot.is_dir()
    finally:
        laptop.run("stop", "-y", str(run["run_id"]))
    laptop.await_state(str(run["run_id"]), "CANCELLED")
    prune(laptop, app, "-y")
    assert not snapshot.exists()


def test_hard_links_are_counted_once(laptop: Laptop, app: Path) -> None:
    """A file that another snapshot shares is not freed; with the last one it is."""
    runs = [laptop.submit("train.py", cwd=app) for _ in range(2)]
    for run in runs:
        laptop.await_state(str(run["run_id"]), "COMPLETED")
    first, second = (Path(str(run["snapshot"])) for run in runs)
    (first / "large").write_bytes(b"x" * 1_000_000)
    os.link(first / "large", second / "large")
    old(laptop, runs[0])
    freed = prune(laptop, app, "--dry-run")["bytes"]
    assert freed < 500_000
    old(laptop, runs[1])
    assert 1_000_000 <= prune(laptop, app, "--dry-run")["bytes"] < 1_500_000


def test_a_branch_that_is_gone_goes_with_its_workspace(laptop: Laptop, app: Path) -> None:
    """Workspace and environment; not where somebody's own files lie in it."""
    git(app, "checkout", "--quiet", "-b", "idea")
    run = laptop.submit("train.py", cwd=app)
    laptop.await_state(str(run["run_id"]), "COMPLETED")
    git(app, "checkout", "--quiet", "main")
    assert prune(laptop, app, "--dry-run")["removals"] == []
    git(app, "branch", "-D", "idea")
    place = scratch(laptop) / "rv-workspaces/app/idea"
    (place / "code/mine.txt").write_text("mine")
    found = prune(laptop, app, "-y")
    assert found["removals"] == []
    assert any("not sent from here" in kept["reason"] for kept in found["kept"])
    (place / "code/mine.txt").unlink()
    (place / "notes").write_text("mine too")
    (removal,) = prune(laptop, app, "-y")["removals"]
    assert (removal["kind"], removal["result"]) == ("workspace", "kept")
    assert [p.name for p in place.iterdir()] == ["notes"]


def test_old_generations_go_and_the_one_in_use_stays(laptop: Laptop, app: Path) -> None:
    """The link's own never goes; one that nothing names goes after its time."""
    former = environment(laptop, "aaaaaaaaaaaaaaaaaaaa")
    current = environment(laptop, "bbbbbbbbbbbbbbbbbbbb")
    for place in (former, current):
        (place / ".rvstate/made").write_text("1600000000\n")
    (removal,) = prune(laptop, app, "-y")["removals"]
    assert (removal["path"], removal["result"]) == (str(former), "done")
    assert not former.exists()
    assert current.is_dir()
    assert not list(former.parent.glob(".gone*"))


# usage


def test_usage_counts_each_file_once(laptop: Laptop, app: Path) -> None:
    """Per project and branch, environment and cache; a file with two names counts once."""
    run = laptop.submit("train.py", cwd=app)
    place = environment(laptop)
    cache = scratch(laptop) / ".cache/uv"
    (cache / "wheel").write_bytes(b"x" * 2_000_000)
    os.link(cache / "wheel", place / "lib/wheel")
    (Path(str(run["snapshot"])) / "large").write_bytes(b"x" * 1_000_000)
    found = laptop.document("usage")
    assert found["remote_commands"] == 1
    sizes = {(p["kind"], p["name"]): p["bytes"] for p in found["places"]}
    assert 2_000_000 <= sizes["environment", "app/main"] < 2_500_000
    assert sizes["cache", "uv"] < 100_000
    assert 1_000_000 <= sizes["code", "app/main"] < 1_500_000
    assert ("logs", "") in sizes
    assert [p["bytes"] for p in found["places"]] == sorted(sizes.values(), reverse=True)
    said = laptop.run("usage").stdout
    assert "environment app/main" in said
    assert "█" in said
    assert "in all" in said


def test_usage_of_an_empty_account(tmp_path: Path) -> None:
    """Nothing there is nothing to count, and no error but where scratch itself is missing."""
    laptop = Laptop(tmp_path / "laptop")
    assert "could not be counted" in laptop.run("usage", status=1).stderr
