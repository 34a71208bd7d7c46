"""The steps of a job that runs DVC, with real git and a stand-in for dvc."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rvstate import assets, git, history
from rvstate.script import Script
from rvstate.shell import quote
from tests import dvckit, runkit
from tests.runkit import until

STEPS = """#!/bin/bash
. {lib}/job.sh || exit 1
rv_begin {rv} {run} rv-dvc
rv_environment {place}/env
{directory}
rv_enter
{more}
. {lib}/dvc.sh || exit 1
rv_dvc_repository {how} {source} {commit} {branch} origin {url} '' ''
rv_dvc_author A a@example.org
rv_dvc_places {store} {place}/cache/projects/app copy {place}/near
{steps}
rv_dvc yes {words}
"""


class Place:
    """An account with our scripts, a project of two commits, and its Git remote."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lib", "rv/logs", "runs/one", "env/bin", "snapshot", "workspaces/app"):
            (root / name).mkdir(parents=True)
        for name in ("job", "dvc", "lib"):
            (root / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
        (root / "env/bin/python").symlink_to("/bin/true")
        text = dvckit.STAND_IN.format(log=root / "log", place=root)
        runkit.write(root, {"env/bin/dvc": text}, executable=True)
        runkit.write(root, {"status": "0", "remotes": "there\n", "pushes": ""})
        files = {"a.py": "1\n", "b.py": "2\n", "link.py": "3\n", ".dvc/config": ""}
        self.app = runkit.repository(root / "app", files)
        self.bare = root / "remote.git"
        runkit.git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        runkit.git(self.app, "remote", "add", "origin", str(self.bare))
        runkit.git(self.app, "push", "--quiet", "origin", "main")
        self.commit = runkit.git(self.app, "rev-parse", "HEAD").strip()
        self.store = root / "workspaces/app/.repository"
        self.reference = ""

    def take(self, have: tuple[str, ...] = ()) -> Script:
        """What brings the commit to the account's repository."""
        project = git.inspect(self.app)
        assert project.commit is not None
        args = (str(self.store) + ".lock", "5", str(self.store), "one", "", project.commit)
        return Script("dvc_store", ("take", *args), history.pack(self.app, project.commit, have))

    def script(self, how: str = "clone", *steps: str, words: str = "", more: str = "") -> Path:
        """A batch script."""
        path = self.root / "job.sh"
        snapshot = f"rv_directory {self.root}/snapshot '' ''" if how == "snapshot" else ""
        source = self.bare if how == "clone" else self.store
        path.write_text(
            STEPS.format(
                lib=self.root / "lib",
                rv=self.root / "rv",
                run=self.root / "runs/one",
                place=self.root,
                directory=snapshot,
                more=more,
                how=how,
                source=source,
                commit=self.commit,
                branch="main",
                url=self.bare,
                store=self.store,
                steps="\n".join(steps),
                words=words,
            )
        )
        return path

    @property
    def env(self) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "HOME": str(self.root), "RV_JOB_ID": "41"}
        return found | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}

    def job(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a job to its end."""
        done = subprocess.run(
            ["bash", str(self.script(*args, **more))],
            capture_output=True,
            text=True,
            env=self.env,
            stdin=subprocess.DEVNULL,
            cwd=self.root,
        )
        # on every way out
        assert list((self.root / "near").glob("*")) == []
        return done

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a job whose experiment goes on until it is ended."""
        (self.root / "waits").touch()
        process = subprocess.Popen(
            ["bash", str(self.script(*args))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=self.root,
            start_new_session=True,
        )
        until((self.root / "started").exists)
        return process

    @property
    def asked(self) -> list[list[str]]:
        """What dvc was asked, call by call."""
        words = (self.root / "log").read_text().split("\0")[:-1]
        calls = []
        while words:
            count = int(words.pop(0))
            calls.append(words[:count])
            words = words[count:]
        return calls

    @property
    def told(self) -> str:
        """What `ps` will read."""
        return (self.root / "runs/one/dvc").read_text().strip()

    def kept(self) -> list[str]:
        """Experiments in the account's repository."""
        said = runkit.git(self.store, "for-each-ref", "--format=%(refname)", "refs/rvstate/exps")
        return said.split()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An account and a project."""
    return Place(tmp_path)


def test_a_clone_is_of_the_submitted_commit_though_the_branch_moved(place: Place) -> None:
    """On the branch of that name; the experiment is kept, pushed, and the workspace is gone."""
    runkit.git(place.app, "commit", "--quiet", "--allow-empty", "-m", "later")
    runkit.git(place.app, "push", "--quiet", "origin", "main")
    done = place.job(words=quote("it's $HOME\n*"))
    assert done.returncode == 0, done.stderr
    seen = place.root / "seen"
    assert runkit.git(seen, "rev-parse", "HEAD").strip() == place.commit
    assert runkit.git(seen, "symbolic-ref", "--short", "HEAD").strip() == "main"
    assert place.asked[0] == ["exp", "run", "--pull", "--allow-missing", "it's $HOME\n*"]
    assert place.told == "pushed experiment tidy-name"
    base = f"{place.commit[:2]}/{place.commit[2:]}/tidy-name"
    assert place.kept() == [f"refs/rvstate/exps/one/{base}"]
    assert base in runkit.git(place.bare, "for-each-ref")
    assert "EXEC_HEAD" not in runkit.git(place.bare, "for-each-ref")
    config = (place.root / "config").read_text()
    assert f'dir = "{place.root}/cache/projects/app"' in config
    assert (place.root / "cache/projects/app/files").resolve() == place.root / "cache/files"


def test_a_commit_that_is_not_to_be_had_is_not_run(place: Place) -> None:
    """No other commit runs in its place."""
    place.commit = "f" * 40
    done = place.job()
    assert done.returncode == 1
    assert "no workspace of commit ffff" in done.stderr
    assert not (place.root / "log").exists()
    assert (place.root / "runs/one/exit").read_text().startswith("1 ")


def test_what_is_not_committed_goes_along(place: Place) -> None:
    """Changed, new, deleted, links, modes: the workspace is what lay there, HEAD the commit."""
    ran = runkit.run(place.take())
    assert ran.lines == [f"stored {place.commit}"], ran.errors
    snapshot = place.root / "snapshot"
    runkit.write(snapshot, {"a.py": "changed\n", "new dir/-n w.py": "new\n", ".dvc/config": ""})
    (snapshot / "link.py").symlink_to("a.py")
    runkit.write(snapshot, {"tool": "#!/bin/sh\n"}, executable=True)
    (snapshot / "a.py").chmod(0o444)
    (place.root / "runs/one/deleted").write_bytes(b"./b.py\0")
    done = place.job("snapshot", more="rv_read_only")
    assert done.returncode == 0, done.stderr
    seen = place.root / "seen"
    assert runkit.git(seen, "rev-parse", "HEAD").strip() == place.commit
    status = runkit.git(seen, "status", "--porcelain", "-z").split("\0")
    assert sorted(filter(None, status)) == [
        *("A  new dir/-n w.py", "A  tool"),
        *("D  b.py", "M  a.py", "T  link.py"),
    ]
    assert (seen / "a.py").stat().st_mode & 0o200
    assert (snapshot / "a.py").read_text() == "changed\n"
    assert not (snapshot / "result.txt").exists()


@pytest.mark.parametrize("status", [1, 255])
def test_a_failure_leaves_its_run_cache_on_the_remote(place: Place, status: int) -> None:
    """And the exit code is DVC's own."""
    (place.root / "status").write_text(str(status))
    done = place.job()
    assert done.returncode == status
    assert place.asked[-1] == ["push", "--run-cache"]
    assert place.told == "pushed the run cache"


def test_a_push_that_fails_changes_no_exit_code(place: Place) -> None:
    """The experiment stays in the account's repository, and log and `ps` say so."""
    runkit.write(place.root, {"more": "", "steps": ""})
    steps = ("rv_dvc_url=/nowhere/at/all", "sleep() { :; }")
    done = place.job("clone", *steps)
    assert done.returncode == 0
    assert place.told.startswith("kept experiment tidy-name is on the cluster")
    assert "rvstate dvc pull" in done.stderr
    assert len(place.kept()) == 1
    (place.root / "status").write_text("7")
    (place.root / "pushes").unlink()
    (place.root / "runs/one/made").unlink()
    done = place.job()
    assert done.returncode == 7
    assert place.told.startswith("kept the run cache")


def test_what_scratch_does_not_take_goes_to_the_home_directory(place: Place) -> None:
    """Scratch is full and the push fails: the experiment is not lost."""
    steps = ("rv_dvc_url=/nowhere/at/all", f"rv_dvc_store={place.root}/job.sh/x", "sleep() { :; }")
    done = place.job("clone", *steps)
    assert done.returncode == 0
    bundle = place.root / "rvstate-one.bundle"
    assert str(bundle) in done.stderr
    assert "tidy-name" in runkit.git(place.app, "bundle", "list-heads", str(bundle))


def test_a_push_that_another_one_was_in_the_way_of_is_tried_again(place: Place) -> None:
    """Elements of an array push to the same remotes at the same time."""
    program, busy = place.root / "env/bin/dvc", place.root / "busy"
    busy.touch()
    way = f"'exp push'*) if [ -e {busy} ]; then rm {busy}; exit 255; fi\n"
    program.write_text(program.read_text().replace("'exp push'*)\n", way))
    done = place.job("clone", "sleep() { :; }")
    assert done.returncode == 0, done.stderr
    assert place.told == "pushed experiment tidy-name"
    assert [words[:2] for words in place.asked].count(["exp", "push"]) == 2


@pytest.mark.parametrize(("times", "status"), [(2, 0), (9, 255)])
def test_a_job_that_another_one_had_ended_runs_again(place: Place, times: int, status: int) -> None:
    """DVC removes what another job is just writing to the run cache, and that one ends by it."""
    program, log = place.root / "env/bin/dvc", place.root / "rv/logs/rv-dvc-41.err"
    said = "ERROR: unexpected error - [Errno 2] No such file or directory: '/c/runs/ab/abc/.Xy.tmp'"
    left = place.root / "left"
    left.write_text("x" * times)
    log.write_text(said)
    way = f"'exp run'*) if [ -s {left} ]; then truncate -s -1 {left}; "
    way += f'echo "{said}" >>{log}; exit 255; fi\n'
    program.write_text(program.read_text().replace("'exp run'*)\n", way))
    done = place.job()
    assert done.returncode == status
    assert [words[:2] for words in place.asked].count(["exp", "run"]) == 3
    assert done.stderr.count("at the same moment") == 2


def test_another_failure_is_not_repeated(place: Place) -> None:
    """Whatever an earlier start of the job has written to the log."""
    log = place.root / "rv/logs/rv-dvc-41.err"
    log.write_text("[Errno 2] No such file or directory: '/c/runs/ab/abc/.Xy.tmp'\n")
    (place.root / "status").write_text("255")
    assert place.job().returncode == 255
    assert [words[:2] for words in place.asked].count(["exp", "run"]) == 1


def other_result(place: Place, text: str) -> str:
    """Somebody's experiment of the same name on the Git remote; its commit."""
    runkit.write(place.app, {"result.txt": text})
    runkit.git(place.app, "add", "--all")
    tree = runkit.git(place.app, "write-tree").strip()
    commit = runkit.git(place.app, "commit-tree", "-p", place.commit, "-m", "x", tree).strip()
    place.reference = f"refs/exps/{place.commit[:2]}/{place.commit[2:]}/tidy-name"
    runkit.git(place.app, "push", "--quiet", "origin", f"{commit}:{place.reference}")
    return commit


def test_another_result_of_the_same_name_is_not_in_the_way(place: Place) -> None:
    """DVC pushes nothing then and succeeds; ours gets a name of its own, in both repositories."""
    theirs = other_result(place, "another\n")
    done = place.job("clone", "sleep() { :; }")
    assert done.returncode == 0, done.stderr
    assert place.told == "pushed experiment tidy-name-one"
    assert "has another result named tidy-name" in done.stderr
    there = dict(
        line.split()[::-1]
        for line in runkit.git(place.bare, "show-ref").splitlines()
        if "exps" in line
    )
    assert there[place.reference] == theirs
    assert runkit.git(place.bare, "show", f"{place.reference}-one:result.txt") == "result\n"
    assert [name.rpartition("/")[2] for name in place.kept()] == ["tidy-name-one"]


def test_the_same_result_is_not_there_twice(place: Place) -> None:
    """A repetition whose files are the same: the remote's experiment is its own."""
    theirs = other_result(place, "result\n")
    done = place.job("clone", "sleep() { :; }")
    assert done.returncode == 0, done.stderr
    assert place.told == "pushed experiment tidy-name"
    assert "has this result of tidy-name already" in done.stderr
    (kept,) = place.kept()
    assert runkit.git(place.store, "rev-parse", kept).strip() == theirs
    assert runkit.git(place.bare, "for-each-ref", "refs/exps").count("\n") == 1


def test_a_job_that_is_started_again_goes_on_where_it_was(place: Place) -> None:
    """What it has made is not made a second time: pushed then, if it was not; what failed runs."""
    assert place.job("clone", "rv_dvc_url=/nowhere/at/all", "sleep() { :; }").returncode == 0
    first = runkit.git(place.store, "rev-parse", *place.kept())
    (place.root / "log").unlink()
    (place.root / "seen").rename(place.root / "before")
    done = place.job()
    assert done.returncode == 0, done.stderr
    assert [words[:2] for words in place.asked] == [["remote", "list"], ["exp", "push"]]
    assert "not run a second time" in done.stderr
    assert place.told == "pushed experiment tidy-name"
    assert runkit.git(place.store, "rev-parse", *place.kept()) == first
    # nothing is told that is not so while the third start has not got that far
    assert place.job("clone", "rv_dvc_source=/nowhere/at/all", "sleep() { :; }").returncode == 1
    assert place.told == "pushed experiment tidy-name"
    # where the account's repository has lost it, it is made again
    runkit.git(place.store, "update-ref", "-d", *place.kept())
    assert place.job().returncode == 0
    assert ["exp", "run"] in [words[:2] for words in place.asked]


def test_a_pointer_of_git_lfs_is_not_taken_for_its_contents(place: Place) -> None:
    """The job ends and names it; where git-lfs is there it brings the contents first."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    runkit.write(place.app, {".gitattributes": "*.bin filter=lfs\n", "in/a b.bin": pointer})
    runkit.git(place.app, "add", "--all")
    runkit.git(place.app, "commit", "--quiet", "-m", "lfs")
    runkit.git(place.app, "push", "--quiet", "origin", "main")
    place.commit = runkit.git(place.app, "rev-parse", "HEAD").strip()
    done = place.job()
    assert done.returncode == 1
    assert "in/a b.bin" in done.stderr
    assert "git-lfs is not on this node" in done.stderr
    assert not (place.root / "log").exists()
    brings = "[ $1 = install ] || printf contents >'in/a b.bin'"
    lfs = f"#!/bin/sh\n{brings}\necho $* >>{place.root}/lfs\n"
    runkit.write(place.root, {"env/bin/git-lfs": lfs}, executable=True)
    done = place.job()
    assert done.returncode == 0, done.stderr
    assert (place.root / "seen/in/a b.bin").read_text() == "contents"
    said = (place.root / "lfs").read_text()
    assert said == "install --local --skip-repo\npull origin\n"


def test_other_parameters_have_other_checkpoints(place: Place) -> None:
    """The same ones have the same, as in a sweep; files of DVC's queue count as they are."""
    program = place.root / "env/bin/dvc"
    tells = f"case $* in 'exp run'*) echo $RV_CHECKPOINT_DIR >>{place.root}/places ;; esac"
    program.write_text(f"#!/bin/bash\n{tells}\nexit 1\n")
    one, two = "rv_dvc_parameters lr=1 n=2", "rv_dvc_parameters lr=1 n=3"
    element = ("RV_ARRAY_INDEX=0", "RV_CHECKPOINT_DIR=$RV_CHECKPOINT_DIR/0")
    swept = (*element, "rv_values='lr=1 n=2'")
    partly = (*element, "rv_values=lr=1")
    for steps in ((one,), (two,), (one,), (one, *swept), (one, *partly), ("true",)):
        assert place.job("clone", *steps).returncode == 1
    found = (place.root / "places").read_text().split()
    base = str(place.root / "rv/checkpoints/rv-dvc")
    assert found[0] == found[2] == found[4]
    assert found[0] != found[1]
    assert found[3] == f"{base}/0"
    assert found[5] == base
    assert {Path(name).parent.as_posix() for name in found[:3]} == {base}


def test_submodules_are_in_the_clone(place: Place) -> None:
    """Also one whose address is relative to the remote's; else the job ends before it begins."""
    runkit.repository(place.root / "library", {"lib.py": "x = 1\n"})
    runkit.git(place.app, "submodule", "--quiet", "add", "../library", "lib")
    runkit.git(place.app, "commit", "--quiet", "-m", "with a submodule")
    runkit.git(place.app, "push", "--quiet", "origin", "main")
    place.commit = runkit.git(place.app, "rev-parse", "HEAD").strip()
    allowed = (
        "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=protocol.file.allow GIT_CONFIG_VALUE_0=always"
    )
    done = place.job("clone", allowed)
    assert done.returncode == 0, done.stderr
    assert (place.root / "seen/lib/lib.py").read_text() == "x = 1\n"
    (place.root / "library").rename(place.root / "gone")
    (place.root / "log").unlink()
    done = place.job("clone", allowed)
    assert done.returncode == 1
    assert "submodules could not be cloned" in done.stderr
    assert not (place.root / "log").exists()


def test_who_enters_the_job_is_in_its_workspace(place: Place) -> None:
    """With its variables, as long as it is there; on another node it is said where it is."""
    runkit.write(place.root, {"lib/inside.sh": assets.job_scripts()["inside.sh"]})
    process = place.start()
    marks = place.root / "runs/one/inside"
    line = "pwd; echo $RV_SNAPSHOT; echo $RV_DVC_WORKSPACE; command -v dvc"

    def entered() -> subprocess.CompletedProcess[str]:
        runkit.write(place.root, {"line": line})
        words = ("file", str(place.root / "line"))
        script = ["bash", str(place.root / "lib/inside.sh"), str(place.root / "runs/one"), *words]
        return subprocess.run(script, env=place.env, capture_output=True, text=True, cwd="/")

    (place.root / "runs/one/job.sh").write_text((place.root / "job.sh").read_text())
    code = (place.root / "where").read_text().strip()
    dvc = str(place.root / "env/bin/dvc")
    assert entered().stdout.split() == [code, f"{code}/", code, dvc]
    runkit.write(place.root, {"runs/one/inside": marks.read_text().replace(code, "/none")})
    assert "is on node" in entered().stderr
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert not marks.exists()


def test_a_dvc_that_does_not_know_its_arguments_is_named(place: Place) -> None:
    """They are those of DVC 3; the exit code is argparse's."""
    (place.root / "status").write_text("254")
    done = place.job()
    assert done.returncode == 254
    assert "3 or later is needed" in done.stderr
    assert ["--version"] in place.asked


def test_an_element_runs_what_was_queued_for_it(place: Place) -> None:
    """Its files on top of its baseline, which is what the branch is at, and its own arguments."""
    runkit.write(place.app, {"a.py": "queued\n", "new.py": "n\n"})
    runkit.git(place.app, "rm", "--quiet", "b.py")
    runkit.git(place.app, "add", "--all")
    tree = runkit.git(place.app, "write-tree").strip()
    files = runkit.git(place.app, "commit-tree", "-p", place.commit, "-m", "q", tree).strip()
    runkit.git(place.root, "init", "--quiet", "--bare", str(place.store))
    runkit.git(place.app, "push", "--quiet", str(place.store), f"{files}:refs/rvstate/q")
    base, place.commit = place.commit, "f" * 40
    steps = (
        "RV_ARRAY_INDEX=1",
        f"rv_dvc_queued 0 {base} {base} --wrong",
        f"rv_dvc_queued 1 {base} {files} --force -- {quote('a $b')}",
    )
    done = place.job("queued", *steps, words="-n q-1")
    assert done.returncode == 0, done.stderr
    given = ["-n", "q-1", "--force", "--", "a $b"]
    assert place.asked[0] == ["exp", "run", "--pull", "--allow-missing", *given]
    seen = place.root / "seen"
    assert runkit.git(seen, "rev-parse", "HEAD").strip() == base
    said = runkit.git(seen, "status", "--porcelain").split("\n")
    assert sorted(filter(None, said)) == ["A  new.py", "D  b.py", "M  a.py"]
    assert place.kept() == [f"refs/rvstate/exps/one-1/{base[:2]}/{base[2:]}/tidy-name"]


def test_without_a_remote_of_dvc_commits_are_pushed_alone(place: Place) -> None:
    """There is nothing to push files to, which is said."""
    (place.root / "remotes").write_text("")
    done = place.job()
    assert done.returncode == 0
    assert place.asked[-1] == ["exp", "push", "--no-cache", "origin", "tidy-name"]
    assert "no DVC remote" in done.stderr


def test_a_node_without_remotes_keeps_what_it_made(place: Place) -> None:
    """It asks no remote for data, and pushes nothing."""
    assert runkit.run(place.take()).status == 0
    script = place.script("store")
    script.write_text(script.read_text().replace("rv_dvc yes", "rv_dvc offline"))
    done = subprocess.run(["bash", str(script)], env=place.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verbs = [words[:2] for words in place.asked]
    assert verbs == [["checkout", "--quiet"], ["exp", "run"]]
    assert "--pull" not in place.asked[1]
    assert place.told.endswith("this node reaches no remote")
    assert len(place.kept()) == 1


def test_a_program_that_listens_may_end_by_itself(place: Place) -> None:
    """The warning reaches it, and its experiment counts; nobody ends it meanwhile."""
    listens = "trap 'exit 0' USR1; touch $0.listens; while :; do sleep 0.1; done"
    text = (place.root / "env/bin/dvc").read_text()
    stage = f"bash -c {quote(listens)} {place.root}/stage & wait $!; "
    text = text.replace(
        "if [ -e", f"if [ -e {place.root}/stages ]; then {stage}fi\n        if [ -e"
    )
    runkit.write(place.root, {"env/bin/dvc": text, "stages": ""}, executable=True)
    script = place.script("clone", "rv_dvc_warning 240")
    with subprocess.Popen(["bash", str(script)], env=place.env, stderr=subprocess.PIPE) as process:
        until((place.root / "stage.listens").exists)
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"in 120 s" in errors
    assert place.told == "pushed experiment tidy-name"


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_an_ended_job_pushes_its_run_cache_and_cleans_up(place: Place, name: str) -> None:
    """By scancel, and by the warning ahead of the time limit."""
    process = place.start()
    started = time.monotonic()
    if name == "TERM":
        # to all that belongs to the job, as Slurm does it
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert process.returncode != 0, errors
    assert place.asked[-1] == ["push", "--run-cache"], errors
    assert place.told == "pushed the run cache"
    assert list((place.root / "near").glob("*")) == []


def test_what_a_killed_job_left_goes_with_the_next(place: Place) -> None:
    """A workspace whose lock is held is another job's, and stays."""
    near = place.root / "near"
    for name in ("dead", "alive"):
        runkit.write(near, {f"rvstate-dvc-{os.getuid()}-{name}/lock": ""})
    lock = near / f"rvstate-dvc-{os.getuid()}-alive/lock"
    with subprocess.Popen(["flock", str(lock), "sleep", "60"]) as holder:
        try:
            until(lambda: subprocess.run(["flock", "-n", str(lock), "true"]).returncode)
            script = place.script()
            done = subprocess.run(["bash", str(script)], env=place.env, capture_output=True)
            assert done.returncode == 0
            assert [p.name for p in near.iterdir()] == [lock.parent.name]
        finally:
            holder.terminate()


def test_the_projects_script_makes_the_environment_once(place: Place) -> None:
    """Its result serves later jobs; one that failed is made again."""
    text = (
        f"#!/bin/sh\necho ran >>{place.root}/ran\n[ -e {place.root}/good ] || exit 3\n"
        f"mkdir -p .venv/bin && cp {place.root}/env/bin/* .venv/bin/\n"
    )
    runkit.write(place.app, {"init.sh": text})
    runkit.git(place.app, "add", "--all")
    runkit.git(place.app, "commit", "--quiet", "-m", "script")
    runkit.git(place.app, "push", "--quiet", "origin", "main")
    place.commit = runkit.git(place.app, "rev-parse", "HEAD").strip()
    step = f"rv_dvc_environment {place.root}/made init.sh .venv"
    done = place.job("clone", step)
    assert done.returncode == 1
    assert "init.sh failed" in done.stderr
    (place.root / "good").touch()
    for _ in range(2):
        done = place.job("clone", step)
        assert done.returncode == 0, done.stderr
    assert (place.root / "ran").read_text().split() == ["ran", "ran"]
    assert (place.root / "seen/.venv").readlink() == place.root / "made/code/.venv"


def test_outputs_are_copied_out_of_the_workspace(place: Place) -> None:
    """`-o` names a path in it; it is gone when the job has ended."""
    done = place.job("clone", more="rv_keep result.txt")
    assert done.returncode == 0, done.stderr
    assert (place.root / "rv/outputs/rv-dvc-41/result.txt").read_text() == "result\n"


def test_commits_arrive_and_arrive_again(place: Place) -> None:
    """Twice, as a difference, killed on the way, into a repository that lost them, once more."""
    assert runkit.run(place.take()).status == 0
    assert runkit.run(place.take((place.commit,))).status == 0
    runkit.git(place.app, "commit", "--quiet", "--allow-empty", "-m", "next")
    first, place.commit = place.commit, runkit.git(place.app, "rev-parse", "HEAD").strip()
    thin = place.take((first,))
    for dies_at in range(8, 90, 7):
        runkit.run(thin, dies_at=dies_at)
        runkit.age_locks(place.root)
    ran = runkit.run(thin)
    assert ran.lines == [f"stored {place.commit}"], ran.errors
    assert (place.store / "rvstate-commits").read_text().split()[-1] == place.commit
    # a purge took them
    subprocess.run(["rm", "-rf", str(place.store / "objects")], check=True)
    runkit.git(place.app, "commit", "--quiet", "--allow-empty", "-m", "third")
    ran = runkit.run(place.take((place.commit,)))
    assert ran.status == 1
    assert "the next time all of them are sent" in ran.errors
    assert not (place.store / "rvstate-commits").exists()
    assert runkit.run(place.take()).status == 0


def test_another_projects_repository_is_not_touched(place: Place) -> None:
    """Two projects of one name do not share their commits."""
    assert runkit.run(place.take()).status == 0
    script = place.take()
    args = [*script.args]
    args[4] = "another"
    ran = runkit.run(Script("dvc_store", tuple(args), script.payload))
    assert ran.status == 1
    assert "another project" in ran.errors


def test_the_login_node_pushes_what_a_job_could_not(place: Place) -> None:
    """With the environment's own dvc; then it is told as pushed, and listed so."""
    place.job("clone", "rv_dvc_url=/nowhere/at/all", "sleep() { :; }")
    assert place.told.startswith("kept")
    base = f"{place.commit[:2]}/{place.commit[2:]}/tidy-name"
    asked = (str(place.root), str(place.root), str(place.store), str(place.root / "runs"), "/c")
    (place.root / "runs/one/receipt.json").write_text("{}")
    told = runkit.run(Script("dvc_kept", ("list", *asked))).answer
    assert told is not None
    assert base in told.first("references").decode()
    assert told.first("states").decode().startswith("./one/dvc:kept experiment")
    assert told.first("receipt one") == b"{}"
    run, cache = str(place.root / "runs/one"), str(place.root / "cache/projects/app")
    program = str(place.root / "env/bin/dvc")
    args = (str(place.store), run, program, place.commit, "origin", str(place.bare), cache, "")
    ran = runkit.run(Script("dvc_kept", ("push", *args)), env=place.env)
    assert ran.lines == ["pushed experiment tidy-name"], ran.errors
    assert place.told == "pushed experiment tidy-name"
    assert base in runkit.git(place.bare, "for-each-ref")
    assert not list(place.store.parent.glob(".repository.push-*"))


def test_what_the_login_node_pushes_takes_nothings_place(place: Place) -> None:
    """Somebody pushed another result of that name meanwhile."""
    place.job("clone", "rv_dvc_url=/nowhere/at/all", "sleep() { :; }")
    other_result(place, "another\n")
    run, cache = str(place.root / "runs/one"), str(place.root / "cache/projects/app")
    program = str(place.root / "env/bin/dvc")
    args = (str(place.store), run, program, place.commit, "origin", str(place.bare), cache, "")
    ran = runkit.run(Script("dvc_kept", ("push", *args)), env=place.env)
    assert ran.lines == ["pushed experiment tidy-name-one"], ran.errors
    assert runkit.git(place.bare, "show", f"{place.reference}:result.txt") == "another\n"
    assert [name.rpartition("/")[2] for name in place.kept()] == ["tidy-name-one"]


def test_the_login_node_fetches_for_nodes_that_cannot(place: Place) -> None:
    """Into the cache that the job has, in a workspace that is gone then; what fails is said."""
    assert runkit.run(place.take()).status == 0
    program, cache = place.root / "env/bin/dvc", place.root / "cache/projects/app"
    # what is not committed counts, and files that say nothing of data do not travel twice
    code = {"data/new.dvc": "outs:\n", "dvc.yaml": "stages:\n", "a.py": "changed\n"}
    runkit.write(place.root / "code", code)
    text = program.read_text()
    seen = f"'fetch --run-cache') cp -R . {place.root}/fetched ;;\n    'exp push'*)"
    program.write_text(text.replace("'exp push'*)", seen))
    args = (
        str(place.store),
        str(program),
        place.commit,
        str(cache),
        "",
        str(place.root / "code"),
        "",
    )
    ran = runkit.run(Script("dvc_kept", ("fetch", *args)), env=place.env)
    assert (ran.status, ran.lines) == (0, []), ran.errors
    assert (place.root / "fetched/data/new.dvc").read_text() == "outs:\n"
    assert (place.root / "fetched/a.py").read_text() == "1\n"
    assert place.asked == [["fetch", "--run-cache"]]
    assert (cache / "files").is_dir()
    runkit.write(place.root, {"fails": "#!/bin/sh\necho ERROR: no such host; exit 1\n"})
    program.write_text((place.root / "fails").read_text())
    ran = runkit.run(Script("dvc_kept", ("fetch", *args)), env=place.env)
    assert ran.status == 0
    assert "did not fetch all data" in ran.lines[0]
    assert "no such host" in ran.lines[0]
    assert not list(place.store.parent.glob(".repository.push-*"))
