"""Runs on the embedded default: this machine, an account in a directory, jobs as processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runkit import ODD_NAMES, Laptop, contents, git, repository, write


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "laptop")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project without requirements, so that nothing has to be installed."""
    return repository(
        tmp_path / "work/app",
        {"train.py": "print('one')\n", "sub/conf.yaml": "x: 1\n", ".gitignore": "*.log\n"},
    )


def log(laptop: Laptop, found: dict[str, str]) -> str:
    laptop.await_state(found["run_id"], "COMPLETED", "FAILED")
    return Path(found["log"]).read_text()


def test_a_script_becomes_a_job_with_its_log(laptop: Laptop, app: Path) -> None:
    """The code of now, its output in the documented place, the document as documented."""
    found = laptop.submit("train.py", cwd=app)
    assert log(laptop, found) == "one\n"
    assert set(found) - {"said"} == {
        *("schema", "command", "run_id", "job_id", "name", "project", "branch", "commit", "dirty"),
        *("snapshot", "environment", "script", "log", "error_log", "submitted", "remote_commands"),
    }
    assert (found["name"], found["project"], found["branch"]) == ("rv-train", "app", "main")
    assert found["commit"] == git(app, "rev-parse", "HEAD").strip()
    assert (found["dirty"], found["submitted"]) == (False, True)
    assert "runs on this machine" not in found["said"]
    said = laptop.run("run", "train.py", cwd=app)
    assert said.stderr.splitlines()[0].startswith("This job runs on this machine")


def test_an_unchanged_project_sends_nothing(laptop: Laptop, app: Path) -> None:
    """The second run is a look and a submission; a changed file is all that travels."""
    first = laptop.submit("train.py", cwd=app)
    second = laptop.submit("train.py", cwd=app)
    assert second["job_id"] != first["job_id"]
    assert second["remote_commands"] == 2
    code = Path(second["snapshot"]).parent.parent / "code"
    before = {name: (code / name).stat().st_mtime_ns for name in ("train.py", "sub/conf.yaml")}
    write(app, {"train.py": "print('two')\n"})
    third = laptop.submit("train.py", cwd=app)
    assert (third["remote_commands"], third["dirty"]) == (3, True)
    after = {name: (code / name).stat().st_mtime_ns for name in before}
    assert after["train.py"] != before["train.py"]
    assert after["sub/conf.yaml"] == before["sub/conf.yaml"]
    assert log(laptop, third) == "two\n"
    assert log(laptop, first) == "one\n"


def test_the_snapshot_is_the_tree(laptop: Laptop, app: Path) -> None:
    """Odd names, links and modes arrive; ignored files stay; deleted files go."""
    write(app, {f"odd/{name}": name for name in ODD_NAMES})
    write(app, {"tool": "#!/bin/sh\n"}, executable=True)
    write(app, {"noise.log": "no"})
    os.symlink("sub", app / "link")
    first = laptop.submit("true", cwd=app)
    expected = {k: v for k, v in contents(app).items() if not k.startswith((".git/", "noise"))}
    assert contents(Path(first["snapshot"])) == expected
    shutil.rmtree(app / "odd")
    (app / "link").unlink()
    (app / "tool").chmod(0o644)
    second = laptop.submit("true", cwd=app)
    expected = {k: v for k, v in contents(app).items() if not k.startswith((".git/", "noise"))}
    assert contents(Path(second["snapshot"])) == expected
    assert not (Path(second["snapshot"]) / "odd").exists()


def test_it_runs_where_the_user_stands(laptop: Laptop, app: Path) -> None:
    """A relative path means in the job what it means here."""
    assert log(laptop, laptop.submit("cat", "conf.yaml", cwd=app / "sub")) == "x: 1\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("A=5", "sh", "-c", "echo $A"), "5\n"),
        (("echo one && echo two",), "one\ntwo\n"),
        (("--", "printf", "%s|", "a b", "$HOME", "it's", "--name"), "a b|$HOME|it's|--name|"),
        (("sh", "-c", "cd sub; pwd | sed 's|.*/||'"), "sub\n"),
    ],
)
def test_each_form_of_a_command_runs_as_meant(
    laptop: Laptop, app: Path, words: tuple[str, ...], expected: str
) -> None:
    """Variables, a shell string, odd words after --, everything else as typed."""
    assert log(laptop, laptop.submit(*words, cwd=app)) == expected


def test_what_is_probably_not_meant_is_said(laptop: Laptop, app: Path) -> None:
    """Options behind the command, absolute scripts, ignored files, large files; -- quiets one."""
    write(app, {"data.log": "1"})
    (app / "big.bin").write_bytes(b"\0" * (51 << 20))
    said = laptop.submit("train.py", "--gpu", "2", "--data=data.log", cwd=app)["said"]
    assert "--gpu stands after the command" in said
    assert "data.log" in said
    assert "kept back" in said
    assert "big.bin" in said
    assert "51" in said
    said = laptop.submit("--", "train.py", "--gpu", "2", cwd=app)["said"]
    assert "stands after" not in said
    assert "big.bin" not in said  # it is there already
    said = laptop.submit("python", "/scratch/other.py", cwd=app)["said"]
    assert "/scratch/other.py is an absolute path" in said


def test_the_own_package_comes_from_the_snapshot(laptop: Laptop, tmp_path: Path) -> None:
    """src layout, console script and metadata are those of the day of submission."""
    toml = (
        '[project]\nname = "my-tool"\nversion = "1.5"\ndependencies = []\n'
        '[project.scripts]\nmy-tool = "my_tool.cli:main"\n'
    )
    app = repository(
        tmp_path / "work/pkg",
        {
            "pyproject.toml": toml,
            "src/my_tool/__init__.py": "WORD = 'then'\n",
            "src/my_tool/cli.py": "import my_tool\ndef main():\n    print('tool', my_tool.WORD)\n",
            "gate.py": "import time, os\nwhile not os.path.exists(os.environ['GATE']):"
            "\n    time.sleep(0.05)\nimport my_tool, importlib.metadata as m, subprocess\n"
            "print(my_tool.WORD, m.version('my-tool'), flush=True)\nsubprocess.run(['my-tool'])\n",
        },
    )
    gate = tmp_path / "gate"
    first = laptop.submit(f"GATE={gate}", "python", "gate.py", cwd=app)
    write(app, {"src/my_tool/__init__.py": "WORD = 'now'\n"})
    second = laptop.submit(f"GATE={gate}", "python", "gate.py", cwd=app)
    gate.touch()
    assert log(laptop, first) == "then 1.5\ntool then\n"
    assert log(laptop, second) == "now 1.5\ntool now\n"


def test_a_package_that_must_be_compiled_is_refused_by_name(laptop: Laptop, tmp_path: Path) -> None:
    """A job would not find what maturin makes, and the message says so before anything is sent."""
    toml = '[build-system]\nbuild-backend = "maturin"\n[project]\nname = "x"\nversion = "1"\n'
    app = repository(tmp_path / "work/rusty", {"pyproject.toml": toml})
    done = laptop.run("run", "true", cwd=app, status=3)
    assert "maturin" in done.stderr
    assert not (laptop.home / "local/scratch/rv-workspaces/rusty").exists()


def test_require_is_held(laptop: Laptop, app: Path) -> None:
    """Clean means committed, pushed means on a remote; refused before anything is sent."""
    laptop.submit("--require", "clean", "true", cwd=app)
    assert "no remote" in laptop.run("run", "--require", "pushed", "true", cwd=app, status=3).stderr
    write(app, {"new.py": ""})
    done = laptop.run("run", "--require", "clean", "true", cwd=app, status=3)
    assert "new.py" in done.stderr


def test_namesakes_do_not_share_a_workspace(laptop: Laptop, app: Path, tmp_path: Path) -> None:
    """Another project of the same name is refused, with the way out, and nothing is changed."""
    laptop.submit("true", cwd=app)
    other = repository(tmp_path / "elsewhere/app", {"b.py": "print(1)\n"})
    done = laptop.run("run", "b.py", cwd=other, status=3)
    assert "Another project named app" in done.stderr
    assert "Rename this project" in done.stderr
    workspace = laptop.home / "local/scratch/rv-workspaces/app/main"
    assert not (workspace / "code/b.py").exists()


def test_branches_have_workspaces_of_their_own(laptop: Laptop, app: Path) -> None:
    """Switching a branch does not overwrite the code of another."""
    git(app, "checkout", "--quiet", "-b", "feature/foo")
    found = laptop.submit("true", cwd=app)
    assert "/rv-workspaces/app/feature--foo/snapshots/" in found["snapshot"]


def test_a_dry_run_writes_nothing(laptop: Laptop, app: Path) -> None:
    """Plan and script are shown; the account is as before."""
    found = laptop.submit("true", cwd=app)
    laptop.await_state(found["run_id"], "COMPLETED")
    before = contents(laptop.home / "local")
    said = laptop.run("run", "--dry-run", "-o", "out", "train.py", cwd=app).stdout
    assert "#!/bin/bash" in said
    assert "rv_keep out" in said
    text = laptop.run("render", "-o", "out", "train.py", cwd=app).stdout
    assert text.splitlines()[0] == "#!/bin/bash"
    assert text.splitlines()[-1] == "rv_run python train.py"
    after = contents(laptop.home / "local")
    assert after == before


def test_presets_and_defaults_act(tmp_path: Path, app: Path) -> None:
    """[defaults] and [presets.NAME] decide where no option does; an unknown name is refused."""
    laptop = Laptop(
        tmp_path / "other",
        '[defaults]\ntime = "1:00:00"\n[presets.small]\ntime = "10m"\nmem = "1G"\n'
        'sbatch = ["nice=5"]\n',
    )
    assert "#SBATCH --time=01:00:00" in laptop.run("render", "true", cwd=app).stdout
    text = laptop.run("render", "--preset", "small", "true", cwd=app).stdout
    assert "#SBATCH --time=00:10:00" in text
    assert "#SBATCH --mem=1G" in text
    assert "#SBATCH --nice=5" in text
    text = laptop.run("render", "--preset", "small", "--time", "20m", "true", cwd=app).stdout
    assert "#SBATCH --time=00:20:00" in text
    done = laptop.run("render", "--preset", "smal", "true", cwd=app, status=64)
    assert "Did you mean small?" in done.stderr


def test_gpus_are_refused_by_name(laptop: Laptop, app: Path) -> None:
    """This machine gives a job no GPU, so none is pretended."""
    assert "GPU" in laptop.run("run", "-g", "1", "true", cwd=app, status=3).stderr


def test_a_run_follows_another_here_too(laptop: Laptop, app: Path) -> None:
    """One that can never start is cancelled and explained; one that waits starts then."""
    gate = app.parent / "gate"
    held = f"while ! [ -e {gate} ]; do sleep 0.05; done; exit 3"
    first = laptop.submit("--name", "first", held, cwd=app)
    never = laptop.submit("--after", "first", "--name", "never", "true", cwd=app)
    mend = laptop.submit("--after", f"{first['job_id']}:failed", "true", cwd=app)
    gate.touch()
    assert laptop.await_state(mend["run_id"], "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert laptop.await_state(never["run_id"], "COMPLETED", "FAILED", "CANCELLED") == "CANCELLED"
    assert "it never started: it was to follow first" in laptop.run("logs", "never").stderr


@pytest.mark.parametrize("options", [("--array", "0-3"), ("--sweep", "lr=1,2")])
def test_arrays_are_refused_by_name(laptop: Laptop, app: Path, options: tuple[str, ...]) -> None:
    """One machine has no scheduler for them, and nothing is submitted."""
    refused = laptop.run("run", *options, "train.py", cwd=app, status=3)
    assert "no scheduler for arrays" in refused.stderr
    assert laptop.document("ps")["runs"] == []


def test_segments_are_refused_by_name(laptop: Laptop, app: Path) -> None:
    """Jobs here end when they are done, and nothing is submitted."""
    options = ("--time", "1h", "--total-time", "3h")
    refused = laptop.run("run", *options, "train.py", cwd=app, status=3)
    assert "no segments (--total-time)" in refused.stderr
    assert laptop.document("ps")["runs"] == []


@pytest.mark.parametrize("options", [("--nodes", "2"), ("--start", "rank"), ("--start", "once")])
def test_a_machine_without_scheduler_is_one_node(
    laptop: Laptop, app: Path, options: tuple[str, ...]
) -> None:
    """What only Slurm could start is refused with the way out, and nothing is submitted."""
    refused = laptop.run("run", *options, "train.py", cwd=app, status=3)
    assert options[0] in refused.stderr
    assert "rvstate init" in refused.stderr
    assert laptop.document("ps")["runs"] == []


def test_following_ends_with_the_programs_exit_code(laptop: Laptop, app: Path) -> None:
    """The log comes on standard output, or with --json on standard error; the code is its own."""
    done = laptop.run("run", "-f", "echo hello; exit 9", cwd=app, status=9)
    assert "hello" in done.stdout
    assert "FAILED, exit code 9" in done.stderr
    done = laptop.run("run", "-f", "--json", "echo hello", cwd=app)
    assert json.loads(done.stdout)["exit_code"] == 0
    assert "hello" in done.stderr


def test_a_time_limit_and_a_stop_have_codes_of_their_own(laptop: Laptop, app: Path) -> None:
    """124 at the limit, 143 when cancelled; what -o names is kept both times."""
    write(app, {"slow.sh": "echo kept >out\ntouch up\nsleep 300\n"})
    done = laptop.run(
        *("run", "-f", "--time", "1s", "-o", "out", "bash", "slow.sh"), cwd=app, status=124
    )
    assert "TIMEOUT" in done.stderr
    found = laptop.submit("-o", "out", "--name", "long", "bash", "slow.sh", cwd=app)
    laptop.await_state(found["run_id"], "RUNNING")
    follower = laptop.start("logs", "-f", "long")
    laptop.run("stop", "-y", "long")
    _, err = follower.communicate(timeout=180)
    assert follower.returncode == 143
    assert "CANCELLED" in err
    outputs = laptop.home / "local/scratch/.rv/outputs"
    assert {p.parent.name.rsplit("-", 1)[0] for p in outputs.glob("*/out")} == {"rv-slow", "long"}


def test_stop_takes_exact_names_and_asks(laptop: Laptop, app: Path) -> None:
    """A part of a number names nothing, and without -y nobody is asked, so nothing ends."""
    found = laptop.submit("sleep 300", cwd=app)
    laptop.await_state(found["run_id"], "RUNNING")
    assert laptop.run("stop", "-y", "rv-slee", status=None).returncode == 64
    assert laptop.run("stop", found["job_id"], status=None).returncode == 64
    assert laptop.state(found["run_id"]) == "RUNNING"
    laptop.run("stop", "-y", found["run_id"])
    laptop.await_state(found["run_id"], "CANCELLED")


def test_logs_fold_progress_bars_and_lose_no_line(laptop: Laptop, app: Path) -> None:
    """A bar is shown as it ended; --raw, --tail and --pull show all, the end, or bring it here."""
    write(
        app,
        {
            "bar.py": "print('a\\r\\nb', end='\\n')\n"
            "print('10%\\r50%\\r100%\\ndone\\nlast', end='')\n"
        },
    )
    found = laptop.submit("bar.py", cwd=app)
    laptop.await_state(found["run_id"], "COMPLETED")
    text = b"a\r\nb\n10%\r50%\r100%\ndone\nlast"
    shown = subprocess.run(
        [sys.executable, "-m", "rvstate", "logs", found["job_id"]],
        env=laptop.env,
        capture_output=True,
        check=True,
    ).stdout
    assert shown == b"a\nb\n100%\ndone\nlast"
    assert laptop.run("logs", "--tail", "2", found["job_id"]).stdout == "done\nlast"
    laptop.run("logs", "--pull", str(app / "here"), found["job_id"])
    assert (app / "here" / Path(found["log"]).name).read_bytes() == text
    raw = laptop.run("logs", "--raw", "rv-bar").stdout
    assert "50%" in raw


def test_a_run_can_be_submitted_again(laptop: Laptop, app: Path) -> None:
    """From the tree in front, from its commit, or from its snapshot; never with other code."""
    first = laptop.submit("--name", "mine", "-o", "x", "train.py", cwd=app)
    again = laptop.document("rerun", first["run_id"])
    assert again["run_id"] != first["run_id"]
    assert log(laptop, again | {}) == "one\n"
    write(app, {"train.py": "print('two')\n"})
    dirty = laptop.submit("train.py", cwd=app)
    write(app, {"train.py": "print('three')\n"})
    from_commit = laptop.document("rerun", first["job_id"])
    assert log(laptop, from_commit) == "one\n"
    assert (from_commit["name"], from_commit["dirty"]) == ("mine", False)
    assert (app / "train.py").read_text() == "print('three')\n"
    from_snapshot = laptop.document("rerun", dirty["run_id"])
    assert log(laptop, from_snapshot) == "two\n"
    assert (from_snapshot["dirty"], from_snapshot["commit"]) == (True, dirty["commit"])
    # of a run that was itself a repeat, all the same
    assert log(laptop, laptop.document("rerun", from_snapshot["job_id"])) == "two\n"
    assert log(laptop, laptop.document("rerun", from_commit["job_id"])) == "one\n"


def test_a_snapshot_that_is_not_what_ran_is_refused(laptop: Laptop, app: Path) -> None:
    """Edited by its job or pruned: nothing is submitted, and the way out is named."""
    write(app, {"train.py": "print('two')\n"})
    dirty = laptop.submit("train.py", cwd=app)
    write(app, {"train.py": "print('three')\n"})
    kept = Path(dirty["snapshot"], "train.py")
    kept.write_text("print('TWO')\n")
    # the workspace still holds what ran
    again = laptop.document("rerun", dirty["run_id"])
    assert log(laptop, again) == "two\n"
    shutil.rmtree(again["snapshot"])
    laptop.submit("train.py", cwd=app)
    before = len(laptop.document("ps", "-a")["runs"])
    done = laptop.run("rerun", dirty["run_id"], status=3)
    assert dirty["snapshot"] in done.stderr
    assert "is not what ran any more" in done.stderr
    shutil.rmtree(dirty["snapshot"])
    done = laptop.run("rerun", dirty["run_id"], status=3)
    assert "was removed" in done.stderr
    assert "never committed" in done.stderr
    assert len(laptop.document("ps", "-a")["runs"]) == before


def test_another_laptop_submits_a_run_again(laptop: Laptop, app: Path, tmp_path: Path) -> None:
    """No receipt and no code there: by any name, with options, subdirectory, package and all."""
    write(
        app,
        {
            "pyproject.toml": '[project]\nname = "mine"\nversion = "1.5"\n'
            '[project.scripts]\nsay-it = "mine:main"\n[tool.rvstate]\n',
            "src/mine.py": "import importlib.metadata as m\n"
            "def main(): print('mine', m.version('mine'))\n",
        },
    )
    first = laptop.submit("--name", "its own", "--env", "none", "say-it", cwd=app / "sub")
    assert log(laptop, first) == "mine 1.5\n"
    write(app, {"src/mine.py": "def main(): print('changed')\n"})
    other = Laptop(tmp_path / "other")
    (other.home / "local").symlink_to(laptop.home / "local")
    for called in (first["job_id"], first["run_id"], "its own"):
        again = other.document("rerun", called)
        assert log(other, again) == "mine 1.5\n"
        assert (again["name"], again["commit"]) == ("its own", first["commit"])
    nobody = other.run("rerun", "rv-nobody", status=64)
    assert "rvstate ps -a" in nobody.stderr


def test_a_repeat_that_was_never_answered_is_taken_up(laptop: Laptop, app: Path) -> None:
    """Of a repeat from its snapshot, too: the job is found, or submitted with that very code."""
    write(app, {"train.py": "print('two')\n"})
    first = laptop.submit("train.py", cwd=app)
    write(app, {"train.py": "print('three')\n"})
    again = laptop.document("rerun", first["run_id"])
    receipt = laptop.home / "runs" / f"{again['run_id']}.json"
    kept = json.loads(receipt.read_text()) | {"job_id": None}
    receipt.write_text(json.dumps(kept))
    found = laptop.document("run", "--resume", cwd=app)
    assert (found["job_id"], found["submitted"]) == (again["job_id"], False)
    lost = json.loads(json.dumps(kept).replace(again["run_id"], "20990101-000000-0a0a0a0a"))
    receipt.with_name("20990101-000000-0a0a0a0a.json").write_text(json.dumps(lost))
    found = laptop.document("run", "--resume", cwd=app)
    assert (found["run_id"], found["submitted"]) == ("20990101-000000-0a0a0a0a", True)
    assert log(laptop, found) == "two\n"


def test_a_repeat_has_the_settings_of_its_project(laptop: Laptop, app: Path) -> None:
    """From anywhere: what its own rvstate.toml says, and the options that the run had."""
    write(app, {"rvstate.toml": '[defaults]\ntime = "3h"\n[snapshot]\nkeep_days = 0\n'})
    first = laptop.submit("train.py", cwd=app)
    write(app, {"rvstate.toml": '[defaults]\ntime = "5h"\n[snapshot]\nkeep_days = 0\n'})
    again = laptop.document("rerun", first["run_id"], cwd=laptop.root)
    script = Path(again["script"]).read_text()
    assert "--time=03:00:00" in script


def test_submodules_come_with_the_commit(laptop: Laptop, app: Path, tmp_path: Path) -> None:
    """A run of a commit with a submodule is made again from git alone."""
    library = repository(tmp_path / "library", {"lib.py": "x = 'of the submodule'\n"})
    git(app, "submodule", "--quiet", "add", str(library), "lib")
    write(app, {"train.py": "import sys; sys.path.append('lib'); import lib; print(lib.x)\n"})
    git(app, "add", "--all")
    git(app, "commit", "--quiet", "-m", "with a submodule")
    first = laptop.submit("train.py", cwd=app)
    assert log(laptop, first) == "of the submodule\n"
    write(app, {"lib/lib.py": "x = 'changed'\n"})
    shutil.rmtree(first["snapshot"])
    assert log(laptop, laptop.document("rerun", first["run_id"])) == "of the submodule\n"


def test_resume_finds_the_job_that_was_never_answered(laptop: Laptop, app: Path) -> None:
    """A receipt without an answer: the run is looked up, and not submitted twice."""
    found = laptop.submit("train.py", cwd=app)
    receipt = laptop.home / "runs" / f"{found['run_id']}.json"
    kept = json.loads(receipt.read_text()) | {"job_id": None}
    receipt.write_text(json.dumps(kept))
    again = laptop.document("run", "--resume", cwd=app)
    assert (again["job_id"], again["submitted"]) == (found["job_id"], False)
    assert "was answered" in laptop.run("run", "--resume", cwd=app, status=64).stderr
    assert len(laptop.document("ps", "-a")["runs"]) == 1


def test_resume_submits_what_never_arrived_and_only_that(laptop: Laptop, app: Path) -> None:
    """Nothing reached the scheduler: the same run is submitted; changed code is not slipped in."""
    found = laptop.submit("train.py", cwd=app)
    receipt = laptop.home / "runs" / f"{found['run_id']}.json"
    kept = json.loads(receipt.read_text())
    lost = kept | {"job_id": None, "run_id": "20990101-000000-0a0a0a0a"}
    path = receipt.with_name(f"{lost['run_id']}.json")
    path.write_text(json.dumps(lost))
    write(app, {"train.py": "print('two')\n"})
    assert "code has changed" in laptop.run("run", "--resume", cwd=app, status=3).stderr
    write(app, {"train.py": "print('one')\n"})
    again = laptop.document("run", "--resume", cwd=app)
    assert (again["run_id"], again["submitted"]) == (lost["run_id"], True)
    assert log(laptop, again) == "one\n"


def test_secrets_are_in_no_file_but_their_own(laptop: Laptop, app: Path) -> None:
    """A variable of the user's reaches the program; no script, receipt or log holds it."""
    secret = "s3cr3t-of-mine"
    process = subprocess.run(
        [sys.executable, "-m", "rvstate", "env", "set", "MY_TOKEN"],
        env=laptop.env,
        input=secret,
        text=True,
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = laptop.submit("sh", "-c", "echo ${#MY_TOKEN}", cwd=app)
    assert log(laptop, found) == f"{len(secret)}\n"
    holders = {
        str(path.relative_to(laptop.home))
        for path in laptop.home.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    }
    assert holders == {"env.json", "local/scratch/.rv/env/user.env"}


def test_code_can_be_brought_without_a_job(laptop: Laptop, app: Path) -> None:
    """A dry run says what a push would do and does nothing; the push does just that, once."""
    laptop.document("sync", "push", cwd=app)
    write(app, {"train.py": "print('two')\n", "sub/conf.yaml": None, "new.py": ""})
    planned = laptop.document("sync", "push", "--dry-run", cwd=app)
    code = Path(planned["code"])
    assert (sorted(planned["sent"]), planned["removed"]) == (
        ["new.py", "train.py"],
        ["sub/conf.yaml"],
    )
    assert (code / "sub/conf.yaml").exists()
    done = laptop.document("sync", "push", cwd=app)
    assert (done["sent"], done["removed"]) == (planned["sent"], planned["removed"])
    assert set(contents(code)) == {".gitignore", "train.py", "new.py"}
    assert laptop.document("sync", "push", cwd=app)["sent"] == []
    assert laptop.document("ps", "-a")["runs"] == []


def test_files_can_be_brought_back_and_overwrite_nothing_unasked(
    laptop: Laptop, app: Path, tmp_path: Path
) -> None:
    """Whole directories of odd names; a file here that differs is refused before any is written."""
    code = Path(laptop.document("sync", "push", cwd=app)["code"])
    write(code, {f"results/{name}": name for name in ODD_NAMES})
    os.symlink("line", code / "results/link")
    listed = laptop.document("sync", "pull", "results", "--dry-run", cwd=app)["files"]
    assert {row["path"]: row["bytes"] for row in listed} == {
        **{name: len(name.encode("utf-8", "surrogateescape")) for name in ODD_NAMES},
        "link": 0,
    }
    target = tmp_path / "here"
    write(target, {"$HOME": "mine"})
    done = laptop.run("sync", "pull", "results", str(target), cwd=app, status=3)
    assert "$HOME" in done.stderr
    assert contents(target) == {"$HOME": ("f", b"mine")}
    laptop.run("sync", "pull", "--overwrite", "results", str(target), cwd=app)
    assert contents(target) == contents(code / "results")
    again = laptop.document("sync", "pull", "results", str(target), cwd=app)
    assert again["files"] == []
    laptop.run("sync", "pull", str(code / "train.py"), str(target), cwd=app)
    assert (target / "train.py").read_text() == "print('one')\n"
    os.symlink("/etc/passwd", code / "results/away")
    done = laptop.run("sync", "pull", "results", str(tmp_path / "other"), cwd=app, status=3)
    assert "away" in done.stderr
    assert not (tmp_path / "other").exists()
    assert "no file or directory" in laptop.run("sync", "pull", "x", cwd=app, status=1).stderr


@pytest.mark.parametrize(
    ("words", "says", "remedy"),
    [
        (("trian.py",), "no script trian.py", "train.py?"),
        (("python", "-u", "main.py"), "no script main.py", "sub/main.py?"),
        (("../outside.py",), "outside the project", "cd "),
        (("secret.py",), "ignore rule", ".gitignore"),
        (("python", "{app}/train.py"), "path of this machine", "Write train.py"),
    ],
)
def test_a_script_that_would_not_be_there_is_refused(
    laptop: Laptop, app: Path, words: tuple[str, ...], says: str, remedy: str
) -> None:
    """Misspelt, outside, ignored, or a path of this machine: nothing is sent, and why is said."""
    write(
        app, {".gitignore": "secret.py\n", "secret.py": "", "../outside.py": "", "sub/main.py": ""}
    )
    done = laptop.run("run", *(w.format(app=app) for w in words), cwd=app, status=3)
    assert says in done.stderr
    assert remedy in done.stderr
    assert not list(laptop.home.rglob("rv-workspaces/app"))


def test_a_script_of_the_cluster_is_left_alone(laptop: Laptop, app: Path, tmp_path: Path) -> None:
    """An absolute path is the cluster's; a linked directory leads to a script that is sent."""
    write(tmp_path, {"there.py": "print('there')\n"})
    assert log(laptop, laptop.submit("python", f"{tmp_path}/there.py", cwd=app)) == "there\n"
    write(app, {"sub/main.py": "print('linked')\n"})
    os.symlink("sub", app / "link")
    assert log(laptop, laptop.submit("link/main.py", cwd=app)) == "linked\n"
    assert log(laptop, laptop.submit("../train.py", cwd=app / "sub")) == "one\n"


def test_scripts_without_a_project(laptop: Laptop, tmp_path: Path) -> None:
    """A few scripts in a directory are run as they are; a directory full of things is refused."""
    place = tmp_path / "scripts"
    write(place, {"hello.py": "print('hello')\n"})
    assert log(laptop, laptop.submit("hello.py", cwd=place)) == "hello\n"
    write(place, {f"photos/{n}.jpg": "" for n in range(300)})
    done = laptop.run("run", "hello.py", cwd=place, status=3)
    assert "Nothing marks" in done.stderr
    assert "git init" in done.stderr


def test_no_value_of_a_variable_is_ever_shown_or_kept(laptop: Laptop, app: Path) -> None:
    """Not by a dry run, the rendered script, a run, its receipts, a run again, nor by a failure."""
    secret = "s3cr3t 'quoted' value"
    subprocess.run(
        [sys.executable, "-m", "rvstate", "env", "set", "MY_TOKEN"],
        env=laptop.env,
        input=secret,
        text=True,
        check=True,
        capture_output=True,
    )
    write(app, {"train.py": "import os\nassert len(os.environ['MY_TOKEN']) == 21\n"})
    said = [
        laptop.run(*words, cwd=app, status=None)
        for words in (
            ("run", "--dry-run", "--json", "train.py"),
            ("run", "--dry-run", "train.py"),
            ("render", "train.py"),
            ("run", "-f", "--json", "train.py"),
            ("rerun", "rv-train"),
            ("ps", "-a", "--json"),
            ("converge", "--check", "--diff"),
        )
    ]
    assert [done.returncode for done in said] == [0] * 7
    # what cannot be written is an error whose script holds the value
    file = laptop.home / "local/scratch/.rv/env/user.env"
    file.unlink()
    file.mkdir()
    (file / "in the way").touch()
    failed = laptop.run("run", "train.py", cwd=app, status=None)
    assert failed.returncode != 0
    told = "".join(done.stdout + done.stderr for done in (*said, failed))
    assert "s3cr3t" not in told
    held = [p for p in laptop.home.rglob("*") if p.is_file() and b"s3cr3t" in p.read_bytes()]
    assert {p.name for p in held} == {"env.json"}


def test_a_large_push_can_be_broken_off(laptop: Laptop, app: Path) -> None:
    """Ctrl-C while gigabytes travel: what was there stays whole, nothing runs, and the next run
    sends all of it."""
    first = laptop.submit("train.py", cwd=app)
    root = Path(first["snapshot"]).parent.parent
    before = contents(root / "code"), (root / "manifest").read_text()
    (app / "weights").write_bytes(os.urandom(1 << 20) * 60)
    process = laptop.start("run", "train.py", cwd=app)
    while not list(root.glob("incoming/code/weights")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130, errors
    assert (root / "manifest").read_text() == before[1]
    assert contents(root / "code") == before[0]
    assert len(laptop.document("ps")["runs"]) == 1
    again = laptop.submit("train.py", cwd=app)
    assert Path(again["snapshot"], "weights").stat().st_size == 60 << 20
    assert not (root / "incoming").exists()


def test_sync_reads_the_settings_of_the_whole_project(laptop: Laptop, app: Path) -> None:
    """From a subdirectory, too: what is wrong in the root's settings is said there."""
    write(app, {"rvstate.toml": "[snapshot]\nkeep_dayz = 1\n"})
    for words in (("push", "--dry-run"), ("pull", "train.py"), ("push",)):
        done = laptop.run("sync", *words, cwd=app / "sub", status=64)
        assert "keep_dayz" in done.stderr
    write(app, {"rvstate.toml": "[snapshot]\nkeep_days = 1\n"})
    sent = laptop.document("sync", "push", cwd=app / "sub")["sent"]
    assert "train.py" in sent


def test_a_path_from_the_root_needs_no_project(laptop: Laptop, app: Path, tmp_path: Path) -> None:
    """It is brought to wherever one stands, the home directory included; others say what they
    need."""
    code = Path(laptop.document("sync", "push", cwd=app)["code"])
    home = tmp_path / "home"
    home.mkdir()
    laptop.env |= {"HOME": str(home)}
    laptop.run("sync", "pull", str(code / "train.py"), cwd=home)
    assert (home / "train.py").read_text() == "print('one')\n"
    done = laptop.run("sync", "pull", "train.py", cwd=home, status=3)
    assert "in a project's workspace" in done.stderr


def test_a_job_without_an_environment_needs_no_uv(laptop: Laptop, app: Path) -> None:
    """Nothing is installed for a run that builds nothing."""
    found = laptop.submit("train.py", cwd=app)
    assert log(laptop, found) == "one\n"
    plan = json.loads((laptop.home / "runs" / f"{found['run_id']}.json").read_text())["plan"]
    assert not [line for line in plan if " tool " in line]


def test_a_script_of_another_project_is_not_run_without_it(laptop: Laptop, app: Path) -> None:
    """From a plain directory above it its own settings, environment and directory count."""
    done = laptop.run("run", "-f", "app/train.py", cwd=app.parent)
    assert done.stdout.endswith("\none\n")
    assert f"the script is of the project {app}" in done.stderr
    refused = laptop.run("run", "--dry-run", "python app/train.py", cwd=app.parent, status=3)
    assert f"cd {app}" in refused.stderr
    write(app.parent, {"own.py": "print('mine')\n"})
    laptop.run("run", "--dry-run", "own.py", cwd=app.parent)


def test_ctrl_c_while_following_ends_no_job(laptop: Laptop, app: Path) -> None:
    """It says that the job goes on and how to end it, and never to run it again."""
    process = laptop.start("run", "-f", "bash", "-c", "echo ready; sleep 60", cwd=app)
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    (run,) = laptop.document("ps")["runs"]
    assert (process.returncode, run["state"]) == (130, "RUNNING")
    assert f"Job {run['job_id']} goes on." in errors
    assert f"rvstate stop {run['job_id']}" in errors
    assert "run it again" not in errors
    laptop.run("stop", "-y", run["job_id"])
