"""Pipelines on the embedded default: stages as processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import envkit
from tests.runkit import Laptop, repository, until, write
from tests.webhook import SECRET, Address

TOML = """[stages.make]
command = "make.py"
inputs = ["raw/numbers.txt"]
outputs = ["data/made.json"]
code = ["make.py"]

[stages.use]
command = "use.py one 'two three'"
inputs = ["data/made.json"]
outputs = ["used.txt"]
code = ["use.py"]
runtime_env = { env_vars = { WHAT = "a b" } }

[stages.tell]
command = "cat used.txt > tell/all.txt && echo $RV_STAGE in $RV_PIPELINE_DIR"
after = ["use"]
outputs = ["tell"]
code = ["tell.py"]
"""
FILES = {
    "rvstate.toml": TOML,
    "make.py": "import json\n"
    "json.dump(open('raw/numbers.txt').read(), open('data/made.json', 'w'))\n",
    # as careful programs do: aside, then renamed
    "use.py": "import json, os, sys\n"
    "made = json.load(open('data/made.json'))\n"
    "open('.used', 'w').write(f\"{made} {sys.argv[1:]} {os.environ['WHAT']}\")\n"
    "os.replace('.used', 'used.txt')\n",
    "tell.py": "",
}


class App:
    """A project with three stages, and the account that it runs in."""

    def __init__(self, root: Path, config: str = "") -> None:
        self.laptop = Laptop(root / "laptop", config)
        self.root = repository(root / "work/app", FILES)
        scratch = self.laptop.home / "local/scratch"
        self.data = scratch / "rv-workspaces/app/main/data"
        self.runs = scratch / ".rv/runs"
        (self.data / "raw").mkdir(parents=True)
        (self.data / "tell").mkdir()
        (self.data / "raw/numbers.txt").write_text("123")

    def run(self, *words: str, status: int = 0) -> dict[str, Any]:
        """A command of `rvstate pipeline`, as its document."""
        done = self.laptop.run("pipeline", *words, "--json", cwd=self.root, status=status)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def plan(self, *words: str) -> dict[str, tuple[str, str]]:
        """What becomes of each stage, and why."""
        return {s["name"]: (s["action"], s["reason"]) for s in self.run("plan", *words)["stages"]}


def runs(found: dict[str, tuple[str, str]]) -> list[str]:
    return [name for name, (action, _) in found.items() if action == "run"]


def states(found: dict[str, Any]) -> dict[str, str]:
    return {s["name"]: s["state"] for s in found["stages"] if "state" in s}


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


def test_content_decides_what_runs_again(app: App) -> None:
    """All once, then nothing; a touch changes nothing, an edit and a removal do, with reasons."""
    first = app.run("run", "--wait")
    assert states(first) == dict.fromkeys(("make", "use", "tell"), "COMPLETED")
    assert (app.data / "used.txt").read_text() == "123 ['one', 'two three'] a b"
    assert (app.data / "tell/all.txt").read_text() == (app.data / "used.txt").read_text()
    log = app.laptop.run("pipeline", "logs", "tell", cwd=app.root).stdout
    assert log == f"tell in {app.data}\n"
    # one snapshot for all of them, which holds no file that a stage made
    (snapshot,) = (app.data.parent / "snapshots").glob("app-*")
    assert snapshot.name == f"app-{first['id']}"
    assert (snapshot / "used.txt").is_symlink()
    again = app.run("run")
    assert (again["id"], again["remote_commands"]) == (None, 2)
    assert {s["action"] for s in again["stages"]} == {"skip"}
    assert again["stages"][0]["reason"] == f"nothing has changed since run {first['id'][:-2]}01"
    # a touch
    for path in (app.data / "data/made.json", app.data / "raw/numbers.txt"):
        os.utime(path)
    assert runs(app.plan()) == []
    # an edit that keeps size and date
    output, before = app.data / "used.txt", (app.data / "used.txt").stat()
    output.write_text(output.read_text().replace("1", "2"))
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    found = app.plan()
    assert runs(found) == ["use", "tell"]
    assert found["use"][1] == "its output used.txt was changed since it was made"
    # a removal
    output.unlink()
    assert app.plan()["use"][1] == "its output used.txt is gone"
    # code that one stage names, and an input
    write(app.root, {"tell.py": "# new\n"})
    assert app.plan()["tell"][1] == "the code has changed"
    (app.data / "raw/numbers.txt").write_text("456")
    assert app.plan()["make"][1] == "its input raw/numbers.txt has changed"
    assert states(app.run("run", "--wait")) == dict.fromkeys(("make", "use", "tell"), "COMPLETED")
    assert (app.data / "tell/all.txt").read_text().startswith("456")
    # resources are no reason
    write(app.root, {"rvstate.toml": TOML + 'resources = { time = "1h" }\n'})
    assert runs(app.plan()) == []
    assert runs(app.plan("--stage-env", "use:none")) == ["use", "tell"]
    assert runs(app.plan("--stage", "make..use", "--force")) == ["make", "use"]
    rerun = app.run("rerun", "--from", "use", "--wait")
    assert [s["action"] for s in rerun["stages"]] == ["skip", "run", "run"]


def test_what_comes_out_the_same_spares_what_reads_it(app: App) -> None:
    """The job behind it ends at once; what follows that without a file of it runs all the same."""
    app.run("run", "--wait")
    before = (app.data / "used.txt").stat()
    told = (app.data / "tell/all.txt").stat().st_mtime_ns
    write(app.root, {"make.py": FILES["make.py"] + "# another comment\n"})
    found = app.run("run", "--wait")
    assert [s["action"] for s in found["stages"]] == ["run"] * 3
    assert states(found) == dict.fromkeys(("make", "use", "tell"), "COMPLETED")
    after = (app.data / "used.txt").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (app.data / "tell/all.txt").stat().st_mtime_ns > told
    log = app.laptop.run("pipeline", "logs", "use", cwd=app.root).stderr
    assert "what stage use reads came out as it was" in log
    assert runs(app.plan()) == []
    # whoever asks for it gets it
    app.run("rerun", "--from", "make", "--wait")
    assert (app.data / "used.txt").stat().st_mtime_ns > before.st_mtime_ns


def test_each_stage_is_told_of(tmp_path: Path) -> None:
    """Its start and its end, and that it was cancelled for another one's failure."""
    address = Address()
    words = f'[notifications]\nenabled = true\nurl = "{address.url}"\ntoken = "{SECRET}"\n'
    app = App(tmp_path, words)
    write(app.root, {"use.py": "raise SystemExit(3)\n"})
    found = app.run("run", "--wait", status=1)
    wanted = {
        found["stages"][0]["run_id"]: ["STARTED", "COMPLETED"],
        found["stages"][1]["run_id"]: ["STARTED", "FAILED"],
        found["stages"][2]["run_id"]: ["CANCELLED"],
    }
    try:
        until(
            lambda: {run: address.names(run) for run in wanted} == wanted,
            30,
            lambda: address.names(),
        )
    finally:
        address.close()


def test_stages_run_in_an_environment_that_is_there(app: App) -> None:
    """One by a path, which is only activated; packages of a stage's own are refused, with why."""
    there = app.root.parent / "there"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(there)], check=True)
    table = f'[environment]\npath = "{there}"\n'
    write(app.root, {"rvstate.toml": table + TOML, "tell.py": ""})
    write(app.root, {"make.py": "import sys\nprint(sys.prefix)\n" + FILES["make.py"]})
    found = app.run("run", "--wait")
    assert states(found) == dict.fromkeys(("make", "use", "tell"), "COMPLETED")
    assert app.laptop.run("pipeline", "logs", "make", cwd=app.root).stdout == f"{there}\n"
    assert runs(app.plan()) == []
    done = app.laptop.run("pipeline", "run", "--stage-env", "use:uv=six", cwd=app.root, status=64)
    assert "no environment that rvstate builds to add them to" in done.stderr


SLOW = {
    "pyproject.toml": '[project]\nname = "slow"\nversion = "1.0"\n'
    '[build-system]\nrequires = []\nbuild-backend = "slowly"\nbackend-path = ["."]\n',
    "slowly.py": "import pathlib, time\npathlib.Path({!r}).touch()\ntime.sleep(300)\n",
}


@pytest.mark.parametrize("what", ["the base", "a layer"])
def test_ctrl_c_ends_a_build_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    """At a terminal it reaches every program that we have started here."""
    begun = tmp_path / "begun"
    files = {name: text.format(str(begun)) for name, text in SLOW.items()}
    envkit.sdist(tmp_path / "index", "slow", files)
    envkit.wheel(tmp_path / "index", "tiny", "1.0")
    base, added = ("slow", "tiny") if what == "the base" else ("tiny", "slow")
    app = repository(
        tmp_path / "work/app",
        {
            "requirements.txt": f"--no-index\n--find-links {tmp_path}/index\n{base}\n",
            "rvstate.toml": f'[stages.a]\ncommand = "true"\nruntime_env = {{ uv = ["{added}"] }}\n',
        },
    )
    laptop = Laptop(tmp_path / "laptop")
    process = subprocess.Popen(
        [sys.executable, "-m", "rvstate", "pipeline", "run"],
        cwd=app,
        env=laptop.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(begun.exists, 60, process.poll)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    place = laptop.home / "local/scratch/.rv/envs/app/.generations/main"
    left = {path.name for path in place.iterdir()}
    if what == "a layer":
        (generation,) = (path.name for path in place.iterdir() if len(path.name) == 20)
        left -= {generation, f".{generation}.kept"}
    assert left == set()
    running = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True).stdout
    assert str(tmp_path) not in running


def test_what_is_read_is_not_made_anew_meanwhile(app: App) -> None:
    """A stage that runs keeps its inputs; and what a failed one has left is read by none."""
    app.run("run", "--wait")
    write(app.root, {"use.py": "import time\ntime.sleep(600)\n"})
    app.run("run", "--stage", "use")
    refused = app.laptop.run(
        "pipeline", "run", "--stage", "make", "--force", cwd=app.root, status=3
    )
    assert "Stage use waits or runs already, as job" in refused.stderr
    app.laptop.run("pipeline", "stop", "-y", cwd=app.root)
    write(app.root, {"make.py": "open('data/made.json', 'w').write('1')\nraise SystemExit(3)\n"})
    app.run("run", "--stage", "make", "--wait", status=1)
    assert (app.data / "data/made.json").read_text() == "1"
    refused = app.laptop.run("pipeline", "run", "--stage", "use", cwd=app.root, status=3)
    assert "make has not succeeded since it last began" in refused.stderr


def test_a_stage_that_fails_cancels_what_needs_it(app: App) -> None:
    """And says so; it is not done, and what was done before it is."""
    write(app.root, {"use.py": "raise SystemExit(3)\n"})
    found = app.run("run", "--wait", status=1)
    assert states(found) == {"make": "COMPLETED", "use": "FAILED", "tell": "CANCELLED"}
    said = {s["name"]: s["reason"] for s in app.run("ps")["stages"]}
    assert said["use"] == "its command ended with exit code 3"
    job = found["stages"][1]["job_id"]
    why = f"it was to follow app-use ({job}) only if that succeeds, and it is FAILED"
    assert why in said["tell"]
    assert why in app.laptop.run("pipeline", "ps", cwd=app.root).stdout
    # from elsewhere by its name, and never by chance
    assert why in app.laptop.run("pipeline", "ps", "app").stdout
    done = app.laptop.run("pipeline", "stop", "-y", status=64)
    assert "No pipeline of this project" in done.stderr
    assert runs(app.plan()) == ["use", "tell"]
    # an output that was not made is a failure, too
    write(app.root, {"use.py": ""})
    found = app.run("run", "--wait", status=1)
    assert states(found)["use"] == "FAILED"
    log = app.laptop.run("pipeline", "logs", "use", cwd=app.root).stderr
    assert "output used.txt is not in" in log


def test_what_was_killed_is_not_done(app: App) -> None:
    """Stopped while it runs: what it made before counts for nothing, and nothing runs twice."""
    assert states(app.run("run", "--wait"))["use"] == "COMPLETED"
    write(app.root, {"use.py": FILES["use.py"] + "import time\ntime.sleep(600)\n"})
    found = app.run("run")
    assert [s["action"] for s in found["stages"]] == ["skip", "run", "run"]
    end = time.monotonic() + 60
    while (now := {s["name"]: s["state"] for s in app.run("ps")["stages"]})["use"] != "RUNNING":
        assert time.monotonic() < end, now
        time.sleep(0.2)
    refused = app.laptop.run("pipeline", "run", cwd=app.root, status=3)
    assert "Stage use waits or runs already, as job" in refused.stderr
    ended = json.loads(
        app.laptop.run("pipeline", "stop", "-y", "--json", cwd=app.root, status=0).stdout
    )
    assert [r["name"] for r in ended["ended"]] == ["app-use", "app-tell"]
    for run in ended["ended"]:
        app.laptop.await_state(run["run_id"], "CANCELLED")
    write(app.root, {"use.py": FILES["use.py"]})
    found = app.plan()
    assert found["use"] == ("run", "it has not succeeded since it last began")
    assert runs(found) == ["use", "tell"]


def test_an_answer_that_never_came_is_looked_up(app: App) -> None:
    """The jobs are found, none is submitted twice; what was not submitted is."""
    found = app.run("run", "--wait")
    for stage in found["stages"]:
        kept = app.laptop.home / "runs" / f"{stage['run_id']}.json"
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"job_id": None}))
    # `run --resume` is about runs of their own
    assert app.laptop.run("run", "--resume", cwd=app.root, status=64).stderr.count("answered") == 1
    again = app.run("run", "--resume")
    assert [s["job_id"] for s in again["stages"]] == [s["job_id"] for s in found["stages"]]
    assert len(list(app.runs.iterdir())) == 3
    done = app.laptop.run("pipeline", "run", "--resume", cwd=app.root, status=64)
    assert "was answered" in done.stderr
    # a run whose records are gone is not one that was skipped
    shutil.rmtree(app.runs / found["stages"][0]["run_id"])
    (app.laptop.home / "runs" / f"{found['stages'][0]['run_id']}.json").unlink()
    assert states(app.run("ps")) == {"make": "UNKNOWN", "use": "COMPLETED", "tell": "COMPLETED"}


def test_what_is_wrong_is_said_before_anything_is_submitted(app: App) -> None:
    """A missing input, an output among the code, a project without stages, a name that is none."""
    (app.data / "raw/numbers.txt").unlink()
    done = app.laptop.run("pipeline", "run", cwd=app.root, status=3)
    assert f"there is nothing at {app.data}/raw/numbers.txt" in done.stderr
    write(app.root, {"data/keep": ""})
    done = app.laptop.run("pipeline", "plan", cwd=app.root, status=64)
    assert "data/keep is sent" in done.stderr
    done = app.laptop.run("pipeline", "run", "--stage", "mak", cwd=app.root, status=64)
    assert "Did you mean make?" in done.stderr
    twice = ("--stage-env", "use:none", "--stage-env", "use:uv=six")
    done = app.laptop.run("pipeline", "plan", *twice, cwd=app.root, status=64)
    assert "--stage-env names use twice" in done.stderr
    write(app.root, {"rvstate.toml": ""})
    done = app.laptop.run("pipeline", "run", cwd=app.root, status=64)
    assert "declares no stages" in done.stderr
    assert not app.runs.exists()


def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """Features by one version of a package, training by another, evaluation in the base."""
    example = Path(__file__).parents[2] / "examples/stages"
    files = {path.name: path.read_text() for path in example.iterdir() if path.is_file()}
    root = repository(tmp_path / "work/stages", files)
    laptop = Laptop(tmp_path / "laptop")
    done = laptop.run("pipeline", "run", "--wait", "--json", cwd=root)
    found = json.loads(done.stdout)
    assert states(found) == dict.fromkeys(("featurise", "train", "evaluate"), "COMPLETED")
    # what there is to know of the layers is in the way of no document, and told all the same
    assert done.stderr.count("rvstate: a layer has") == 2
    report = json.loads((Path(found["data"]) / "report.json").read_text())
    assert report == {
        "accuracy": 1.0,
        "versions": {"featurise": "2.1.0", "train": "2.2.0", "evaluate": "3.0.1"},
    }
    # and what people read of it
    said = laptop.run("pipeline", "run", cwd=root).stdout.splitlines()
    assert said[0].startswith(" = featurise  nothing has changed since run ")
    assert said[0].endswith("[uv: snowballstemmer==2.1.0]")
    assert said[-2:] == [
        "Plan: 0 to run, 3 skipped.",
        "Nothing to do: every stage is as it was made.",
    ]
    dry = laptop.run("pipeline", "run", "--stage", "evaluate", "--force", "--dry-run", cwd=root)
    assert "Plan: 1 to run, 0 skipped, 2 not selected." in dry.stdout
    assert "stage evaluate:\n#!/bin/bash\n" in dry.stdout
    assert len(list((laptop.home / "local/scratch/.rv/runs").iterdir())) == 3
    # a stage is its pipeline's to run
    again = laptop.run("rerun", found["stages"][0]["job_id"], cwd=root, status=3)
    assert "This run is stage featurise of a pipeline" in again.stderr
    assert "rvstate pipeline rerun --from featurise" in again.stderr


CODE = """from rvstate.stages import Pipeline, Stage

class Double(Stage):
    def process(self, batch):
        return [2 * one for one in batch]

class Add(Stage):
    code = ["other.py"]
    batch_size = 2
    def process(self, batch):
        assert len(batch) <= 2
        return [one + self.by for one in batch]

one = Add("one")
one.by = 1
pipeline = Pipeline("numbers", [Double(), one], items=[1, 2, 3])
broken = Pipeline("broken", [Double("a"), Double("a")])
"""


def test_a_pipeline_as_code_runs_as_jobs_that_hand_over_items(app: App) -> None:
    """Nothing of rvstate need be installed over there; what has not changed is skipped."""
    write(app.root, {"lib/flow.py": CODE})
    first = app.run("run", "--wait", "lib/flow.py")
    assert first["pipeline"] == "numbers"
    assert states(first) == {"Double": "COMPLETED", "one": "COMPLETED"}
    kept = {p.name: p.read_text().split() for p in (app.data / "stages").iterdir()}
    assert kept == {"Double.jsonl": ["2", "4", "6"], "one.jsonl": ["3", "5", "7"]}
    assert runs(app.plan("lib/flow.py:pipeline")) == []
    # the file itself is code of every stage, whatever else a stage names
    write(app.root, {"lib/flow.py": CODE.replace("[1, 2, 3]", "[5]")})
    assert runs(app.plan("lib/flow.py")) == ["Double", "one"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("lib/none.py", "There is no file lib/none.py in the project app."),
        ("../../elsewhere.py", "There is no file ../../elsewhere.py in the project app."),
        ("lib/flow.py:broken", "broken has two stages a: give one another name"),
        ("lib/flow.py:other", "lib/flow.py has no pipeline named other"),
        ("lib/needs.py", "No module named 'not_on_this_machine'"),
    ],
)
def test_code_that_makes_no_pipeline_is_said_before_anything_is_sent(
    app: App, named: str, said: str
) -> None:
    """In the words of the Python that read it, with what to do."""
    write(app.root, {"lib/flow.py": CODE, "lib/needs.py": "import not_on_this_machine\n"})
    done = app.laptop.run("pipeline", "run", named, cwd=app.root, status=None)
    assert done.returncode != 0
    assert said in done.stderr
    assert "→" in done.stderr
