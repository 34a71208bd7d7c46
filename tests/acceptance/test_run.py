"""Runs on a real Slurm behind a real sshd; testinfra is the witness."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import runkit
from tests.runkit import ODD_NAMES, Laptop, git, repository, write

pytestmark = pytest.mark.cluster

until = functools.partial(runkit.until, seconds=90)

SCRATCH = "/scratch/abc1de"
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")


@pytest.fixture(scope="module", autouse=True)
def clean(cluster: Any) -> None:
    """A cluster without jobs or files of earlier tests."""
    cluster.reset()


@pytest.fixture
def witness(cluster: Any) -> Any:
    """The account through testinfra, which shares no code with rvstate."""
    import testinfra

    return testinfra.get_host("ssh://abc1de@rv-login", ssh_config=str(cluster.ssh_config))


@pytest.fixture
def laptop(cluster: Any, tmp_path: Path) -> Laptop:
    """rvstate on a machine of its own, pointed at the cluster."""
    return make(cluster, tmp_path / "laptop")


def make(cluster: Any, root: Path, host: str = "rv-login", user: str = "abc1de") -> Laptop:
    return Laptop(
        root,
        f'[connection]\nhost = "{host}"\nuser = "{user}"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )


@pytest.fixture
def app(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A project of this test's own name, without requirements."""
    name = request.node.name.partition("[")[0].replace("_", "-")[-40:]
    return repository(tmp_path / "work" / name, {"train.py": "print('one')\n", "sub/x": "x"})


def jobs_of(cluster: Any, run_id: str) -> list[str]:
    """The numbers of all jobs that the scheduler has of a run, asked past rvstate."""
    rows = cluster.exec("squeue", "--states=all", "--noheader", "--format=%A %k").stdout
    return [row.split()[0] for row in rows.splitlines() if run_id in row]


def receipts(laptop: Laptop) -> set[str]:
    """The receipts that this machine keeps; one is written before anything is sent."""
    return {path.name for path in (laptop.home / "runs").glob("*.json")}


def test_a_job_with_an_environment_ends_with_its_log(
    cluster: Any, laptop: Laptop, witness: Any, tmp_path: Path
) -> None:
    """From a checkout to a Slurm job: code, environment, log, files where they should be."""
    app = repository(
        tmp_path / "work/hello",
        {
            "requirements.txt": "packaging>=24\n",
            "train.py": "import sys, packaging\nprint(sys.executable)\nprint(packaging.__name__)\n",
        },
    )
    found = laptop.submit("train.py", cwd=app)
    assert laptop.await_state(found["run_id"], *FINISHED) == "COMPLETED"
    lines = laptop.run("logs", found["job_id"]).stdout.splitlines()
    assert lines == [f"{found['environment']}/bin/python", "packaging"]
    assert witness.file(found["log"]).content_string.splitlines() == lines
    assert witness.file(found["snapshot"]).is_directory
    assert witness.file(f"{found['snapshot']}/train.py").content_string == (
        (app / "train.py").read_text()
    )
    run = witness.file(f"{SCRATCH}/.rv/runs/{found['run_id']}")
    assert (run.mode, run.user) == (0o700, "abc1de")
    receipt = json.loads(witness.file(f"{run.path}/receipt.json").content_string)
    assert receipt["commit"] == git(app, "rev-parse", "HEAD").strip()
    link = witness.file(f"{SCRATCH}/.rv/envs/hello/main")
    assert link.is_symlink
    assert link.linked_to == found["environment"]
    shown = cluster.exec("scontrol", "show", "job", found["job_id"]).stdout
    assert f"Comment=rvstate:{found['run_id']}" in shown
    assert "Account=mygroup" in shown
    assert "TimeLimit=02:59:00" in shown


def test_an_unchanged_run_is_two_remote_commands(cluster: Any, tmp_path: Path, app: Path) -> None:
    """Counted by sshd: one login, and one session for look and submission, no transfer."""
    laptop = make(cluster, tmp_path / "laptop")
    laptop.submit("train.py", cwd=app)
    mark = cluster.logins()["mark"]
    found = laptop.submit("train.py", cwd=app)
    counts = cluster.logins(mark)
    assert found["remote_commands"] == 2
    assert counts["accepted"].get("abc1de", 0) == 0
    assert counts["sessions"]["abc1de"]["command"] == 1


@pytest.mark.parametrize(("status", "state"), [(0, "COMPLETED"), (7, "FAILED"), (200, "FAILED")])
def test_following_ends_with_the_programs_code(
    laptop: Laptop, app: Path, status: int, state: str
) -> None:
    """Slurm's accounting subtracts from codes over 128; ours is the program's."""
    done = laptop.run("run", "-f", f"echo hello; exit {status}", cwd=app, status=status)
    assert "hello\n" in done.stdout
    assert state in done.stderr


def test_cancelled_and_timed_out_jobs_keep_their_outputs(
    cluster: Any, laptop: Laptop, witness: Any, app: Path
) -> None:
    """143 and 124, each named; -o is copied although Slurm ended the job."""
    write(app, {"slow.sh": "echo half >out\ntrap 'echo saved >out; exit 0' TERM\n"
                           "echo ready\nwhile :; do sleep 0.1; done\n"})  # fmt: skip
    for name, code, state in (("cut", 143, "CANCELLED"), ("late", 124, "TIMEOUT")):
        found = laptop.submit("--name", name, "-o", "out", "bash", "slow.sh", cwd=app)
        job = found["job_id"]
        until(lambda path=found["log"]: witness.file(path).exists
              and "ready" in witness.file(path).content_string)  # fmt: skip
        follower = laptop.start("logs", "-f", job)
        if name == "cut":
            laptop.run("stop", "-y", job)
        else:
            cluster.run_as("abc1de", "scontrol", "update", f"jobid={job}", "EndTime=now+2seconds")
        _, err = follower.communicate(timeout=120)
        assert (follower.returncode, state in err) == (code, True), err
        kept = witness.file(f"{SCRATCH}/.rv/outputs/{name}-{job}/out")
        until(lambda kept=kept: kept.exists)
        assert kept.content_string == "saved\n"
        assert laptop.state(found["run_id"]) == state


def test_a_program_that_ignores_term_loses_no_output(
    cluster: Any, laptop: Laptop, witness: Any, app: Path
) -> None:
    """What there is when TERM comes is kept before KILL comes."""
    write(app, {"deaf.sh": "trap '' TERM\necho half >out\necho ready\n"
                           "while :; do sleep 0.1; done\n"})  # fmt: skip
    found = laptop.submit("-o", "out", "bash", "deaf.sh", cwd=app)
    until(lambda: witness.file(found["log"]).exists
          and "ready" in witness.file(found["log"]).content_string)  # fmt: skip
    laptop.run("stop", "-y", found["job_id"])
    laptop.await_state(found["run_id"], "CANCELLED")
    kept = witness.file(f"{SCRATCH}/.rv/outputs/rv-deaf-{found['job_id']}/out")
    assert kept.content_string == "half\n"


def test_out_of_memory_is_recognised_from_slurms_words(laptop: Laptop, app: Path) -> None:
    """Where the state only says FAILED, the log says why: 137."""
    write(app, {"eat.py": "x = bytearray(900 << 20)\nimport time\n"
                          "x[:] = b'1' * len(x)\ntime.sleep(60)\n"})  # fmt: skip
    done = laptop.run("run", "-f", "--mem", "64M", "eat.py", cwd=app, status=None)
    assert done.returncode == 137, done.stderr
    assert "OUT_OF_MEMORY" in done.stderr


def test_a_waiting_job_says_why_in_words(cluster: Any, laptop: Laptop, app: Path) -> None:
    """PENDING with a reason that a person understands; cancelled before it ran, it is CANCELLED."""
    found = laptop.submit("--sbatch", "nice=0", "--mem", "100M", "sleep 1", cwd=app)
    laptop.await_state(found["run_id"], *FINISHED)
    held = laptop.submit("--sbatch", "hold", "true", cwd=app)
    (run,) = [r for r in laptop.document("ps")["runs"] if r["run_id"] == held["run_id"]]
    assert run["state"] == "PENDING"
    assert "held by its user" in run["reason"]
    laptop.run("stop", "-y", held["job_id"])
    assert laptop.await_state(held["run_id"], *FINISHED) == "CANCELLED"


def test_a_gpu_is_what_was_asked_for(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Type, count and partition as the site's data say; refused with what there is otherwise."""
    found = laptop.submit("-t", "a6000", "-g", "2", "sh", "-c", "echo $SLURM_GPUS_ON_NODE", cwd=app)
    shown = cluster.exec("scontrol", "show", "job", found["job_id"]).stdout
    assert "Partition=gpu-a6000" in shown
    assert "gpu:a6000:2" in shown
    done = laptop.run("run", "-t", "a6000", "-g", "9", "true", cwd=app, status=3)
    assert "8" in done.stderr
    laptop.await_state(found["run_id"], *FINISHED)
    assert laptop.run("logs", found["job_id"]).stdout == "2\n"


def test_what_is_said_of_a_job_reaches_slurm_and_comes_back(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """Slurm has key, mail, comment and moments; the run is known by its token all the same."""
    cluster.reset()
    git(app, "switch", "-q", "-c", "feature/x")
    words = """it's "mine" $HOME `x` #1"""
    name = f"t:rv-train:{app.name}:feature--x"
    config = (laptop.home / "config.toml").read_text()
    extra = 'job_name = "t:{name}:{project}:{branch}"\npreset = "p"\n[presets.p]\nwckey = "k1"\n'
    (laptop.home / "config.toml").write_text(config + extra + 'mail_user = "a@b.c"\n')
    asked = ("--comment", words, "--begin", "now+1hour", "--deadline", "now+3hours", "--time", "1h")
    told = laptop.submit(*asked, "--mail-type", "end,fail", "--exclusive", "train.py", cwd=app)
    job = str(told["job_id"])

    def shown(number: str) -> str:
        return str(cluster.exec("scontrol", "show", "job", number).stdout)

    # scontrol has no workload key where the site counts none; squeue has it all the same
    listed = cluster.exec("squeue", "-h", "-j", job, "-O", "wckey:20,oversubscribe:10").stdout
    assert listed.split() == ["k1", "NO"]
    first = shown(job)
    assert f"Comment=rvstate:{told['run_id']} {words} " in first
    assert f"JobName={name}\n" in first
    assert "MailUser=a@b.c MailType=END,FAIL" in first
    fields = dict(word.partition("=")[::2] for word in first.split())
    submitted, begin, deadline = (
        time.mktime(time.strptime(fields[key], "%Y-%m-%dT%H:%M:%S"))
        for key in ("SubmitTime", "EligibleTime", "Deadline")
    )
    assert abs(begin - submitted - 3600) < 120
    assert abs(deadline - submitted - 3 * 3600) < 120
    # whose answer never came
    receipt = laptop.home / "runs" / f"{told['run_id']}.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"job_id": None}))
    cluster.run_as("abc1de", "rm", f"{SCRATCH}/.rv/runs/{told['run_id']}/job")
    assert [run["job_id"] for run in laptop.document("ps")["runs"]] == [job]
    assert str(laptop.document("run", "--resume", cwd=app)["job_id"]) == job
    # once more by its name, with the same words and a token of its own
    again = laptop.document("rerun", name, cwd=app)
    assert f"Comment=rvstate:{again['run_id']} {words} " in shown(str(again["job_id"]))
    assert cluster.exec("squeue", "-h", "-o", "%i").stdout.split() == [str(again["job_id"]), job]
    assert laptop.run("stop", name, "-y", cwd=app).returncode == 0
    assert cluster.exec("squeue", "-h", "-o", "%i").stdout.split() == [job]


def test_a_dry_run_asks_slurm_and_submits_nothing(cluster: Any, laptop: Laptop, app: Path) -> None:
    """sbatch --test-only answers; what it would refuse is refused with its words."""
    laptop.submit("true", cwd=app)
    before = cluster.exec("squeue", "--states=all", "--noheader").stdout.count("\n")
    said = laptop.run("run", "--dry-run", "--cpus", "1", "train.py", cwd=app).stdout
    assert "to start at" in said
    assert "#SBATCH --cpus-per-task=1" in said
    done = laptop.run("run", "--dry-run", "-A", "nobody", "train.py", cwd=app, status=1)
    assert "account" in done.stderr.lower()
    assert cluster.exec("squeue", "--states=all", "--noheader").stdout.count("\n") == before


def test_large_snapshots_cannot_be_changed_by_an_ordinary_user(
    cluster: Any, laptop: Laptop, witness: Any, app: Path
) -> None:
    """A job that writes to its code is refused and told how; a named file is its own."""
    write(app, {f"data/{n}.txt": str(n) for n in range(1100)})
    write(app, {"rvstate.toml": '[snapshot]\nwritable = ["own/*"]\n', "own/log.txt": "start\n"})
    script = "echo more >>data/1.txt; echo more >>own/log.txt && cat own/log.txt; exit 3"
    first = laptop.submit(script, cwd=app)
    assert laptop.await_state(first["run_id"], *FINISHED) == "FAILED"
    errors = laptop.run("logs", "--err", first["job_id"]).stderr
    assert "Permission denied" in errors
    assert "--writable" in errors
    assert laptop.run("logs", "--out", first["job_id"]).stdout == "start\nmore\n"
    # a second one shares the files, and has its own copy of the named one
    second = laptop.submit("cat own/log.txt", cwd=app)
    laptop.await_state(second["run_id"], "COMPLETED")
    assert laptop.run("logs", second["job_id"]).stdout == "start\n"
    one, two = (f"{found['snapshot']}/data/1.txt" for found in (first, second))
    assert witness.check_output(f"stat -c %i {one}") == witness.check_output(f"stat -c %i {two}")
    assert witness.check_output(f"stat -c %a {one}") == "444"
    third = laptop.submit("--writable", "echo more >>data/1.txt && cat data/1.txt", cwd=app)
    assert laptop.await_state(third["run_id"], *FINISHED) == "COMPLETED"
    assert laptop.run("logs", third["job_id"]).stdout == "1more\n"
    assert witness.file(two).content_string == "1"


def test_a_queued_job_sees_the_code_of_its_day(
    cluster: Any, laptop: Laptop, witness: Any, app: Path
) -> None:
    """Submitted and held, then edited and synced: it prints what was sent with it."""
    held = laptop.submit("--sbatch", "hold", "train.py", cwd=app)
    write(app, {"train.py": "print('two')\n"})
    now = laptop.submit("train.py", cwd=app)
    laptop.await_state(now["run_id"], "COMPLETED")
    cluster.run_as("abc1de", "scontrol", "release", held["job_id"])
    laptop.await_state(held["run_id"], "COMPLETED")
    assert laptop.run("logs", held["job_id"]).stdout == "one\n"
    assert laptop.run("logs", now["job_id"]).stdout == "two\n"


def test_another_laptop_submits_a_run_again(
    cluster: Any, laptop: Laptop, witness: Any, app: Path, tmp_path: Path
) -> None:
    """Of a large tree that was never committed: from its snapshot, in its environment, which is
    built once more where it is gone; as an ordinary user."""
    train = "import packaging\nprint('it was', open('many/7').read())\nopen('made', 'w')\n"
    write(app, {"requirements.txt": "packaging>=24\n", "train.py": train})
    write(app, {f"many/{number}": str(number) for number in range(1001)})
    first = laptop.submit("--time", "17m", "train.py", cwd=app)
    assert laptop.await_state(first["run_id"], *FINISHED) == "COMPLETED"
    cluster.run_as("abc1de", "rm", "-rf", first["environment"])
    app.rename(tmp_path / "elsewhere")
    other = make(cluster, tmp_path / "other")
    again = other.document("rerun", first["job_id"])
    assert other.await_state(again["run_id"], *FINISHED) == "COMPLETED"
    assert other.run("logs", again["job_id"]).stdout == "it was 7\n"
    assert again["environment"] == first["environment"]
    assert not witness.file(f"{again['snapshot']}/many/made").exists
    assert "#SBATCH --time=00:17:00" in witness.file(again["script"]).content_string
    one, two = (
        witness.check_output("stat -c %%i %s/many/7", f["snapshot"]) for f in (first, again)
    )
    assert one == two
    for found in (first, again):
        cluster.run_as("abc1de", "sh", "-c", f"cd {found['snapshot']}/many && rm 7 && echo 8 >7")
    cluster.run_as("abc1de", "rm", f"{first['snapshot']}/../../manifest")
    before = jobs_of(cluster, "rvstate:")
    done = other.run("rerun", first["run_id"], status=3)
    assert "is not what ran any more" in done.stderr
    assert jobs_of(cluster, "rvstate:") == before


def test_prune_spares_what_the_queue_needs(
    cluster: Any, laptop: Laptop, witness: Any, app: Path
) -> None:
    """A snapshot of long ago goes by its name; that of a queued job stays."""
    held = laptop.submit("--sbatch", "hold", "train.py", cwd=app)
    snapshots = held["snapshot"].rpartition("/")[0]
    old = f"{snapshots}/rv-train-20250101-000000-00000000"
    cluster.run_as("abc1de", "mkdir", old)
    config = laptop.home / "config.toml"
    config.write_text(config.read_text() + "[snapshot]\nkeep_days = 0\n")
    time.sleep(1.1)  # ids tell seconds: the held one must be older than now
    laptop.submit("true", cwd=app)
    until(lambda: not witness.file(old).exists)
    assert witness.file(f"{held['snapshot']}/train.py").exists
    laptop.run("stop", "-y", held["job_id"])


def test_cut_at_any_moment_there_is_one_job(cluster: Any, tmp_path: Path, app: Path) -> None:
    """The connection is reset at many points of a run; --resume, or ps alone, finds one job."""
    cluster.latency(40)
    laptop = make(cluster, tmp_path / "far", "rv-far")
    try:
        laptop.submit("true", cwd=app)
        cuts = 0
        for moment in (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.7, 0.9):
            write(app, {"train.py": f"print({moment})\n"})
            before = receipts(laptop)
            process = laptop.start("run", "--json", "train.py", cwd=app)
            end = time.monotonic() + 60
            while process.poll() is None and not receipts(laptop) - before:
                assert time.monotonic() < end
                time.sleep(0.01)
            time.sleep(moment)
            cluster.fault("drop")
            out, err = process.communicate(timeout=120)
            cluster.heal()
            cluster.latency(40)
            (name,) = receipts(laptop) - before
            run_id = name.removesuffix(".json")
            if process.returncode != 0:
                cuts += 1
                assert "--resume" in out + err, (out, err)
                found = laptop.document("run", "--resume", cwd=app)
                assert found["run_id"] == run_id
            else:
                found = json.loads(out)
            assert jobs_of(cluster, run_id) == [found["job_id"]], (moment, err)
            (run,) = [r for r in laptop.document("ps", "-a")["runs"] if r["run_id"] == run_id]
            assert run["job_id"] == found["job_id"]
            laptop.await_state(run_id, "COMPLETED")
            assert laptop.run("logs", found["job_id"]).stdout == f"{moment}\n"
        assert cuts > 0, "no moment was in the middle of anything"
    finally:
        cluster.heal()
        cluster.latency("off")


def test_a_follower_survives_a_lost_connection_without_repeating(
    cluster: Any, tmp_path: Path, app: Path
) -> None:
    """Every line once, in order, although the connection was reset in between."""
    write(app, {"count.py": "import time\nfor n in range(40):\n"
                            "    print(n, flush=True)\n    time.sleep(0.25)\n"})  # fmt: skip
    laptop = make(cluster, tmp_path / "far", "rv-far")
    try:
        found = laptop.submit("count.py", cwd=app)
        follower = laptop.start("logs", "-f", found["job_id"])
        laptop.await_state(found["run_id"], "RUNNING", "COMPLETED")
        for _ in range(2):
            time.sleep(2)
            cluster.fault("drop")
            cluster.heal()
        out, err = follower.communicate(timeout=120)
        assert out.splitlines() == [str(n) for n in range(40)]
        assert follower.returncode == 0, err
    finally:
        cluster.heal()


def test_accounting_that_is_gone_makes_no_state_up(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Without slurmdbd jobs are submitted, followed and listed; ends are those of the job."""
    cluster.fault("stop", "slurmdbd")
    try:
        done = laptop.run("run", "-f", "echo hello; exit 5", cwd=app, status=5)
        assert "hello" in done.stdout
    finally:
        cluster.heal()


@pytest.mark.parametrize("user", ["csh7sh", "fsh8fi", "noi5ey"])
def test_other_login_shells_make_no_difference(
    cluster: Any, tmp_path: Path, app: Path, user: str
) -> None:
    """tcsh, fish, and a start-up file that talks."""
    laptop = make(cluster, tmp_path / "laptop")
    config = laptop.home / "config.toml"
    config.write_text(config.read_text().replace("abc1de", user))
    done = laptop.run("run", "-f", "echo as $USER", cwd=app)
    assert f"as {user}\n" in done.stdout


def test_many_names_survive_the_way(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Names of odd bytes arrive at the job as they are here."""
    from tests.runkit import ODD_NAMES

    write(app, {f"odd/{name}": name for name in ODD_NAMES})
    listing = "import os; print(sorted(map(os.fsencode, os.listdir('odd'))))"
    found = laptop.submit("python", "-c", listing, cwd=app)
    laptop.await_state(found["run_id"], "COMPLETED")
    expected = str(sorted(map(os.fsencode, os.listdir(app / "odd"))))
    assert laptop.run("logs", found["job_id"]).stdout.strip() == expected


def test_files_are_brought_back_byte_for_byte(
    cluster: Any, laptop: Laptop, app: Path, tmp_path: Path
) -> None:
    """Over ssh, binary contents and odd names included; nothing of it comes half."""
    made = "import os; os.makedirs('out'); open('out/x y\\n', 'wb').write(bytes(range(256)) * 999)"
    done = laptop.run("run", "-f", "-o", "out", "python", "-c", made, cwd=app)
    assert done.returncode == 0
    (run,) = [r for r in laptop.document("ps", "-a")["runs"] if r["project"] == app.name]
    remote = f"{SCRATCH}/.rv/outputs/{run['name']}-{run['job_id']}"
    laptop.run("sync", "pull", remote, str(tmp_path / "here"), cwd=app)
    assert (tmp_path / "here/out/x y\n").read_bytes() == bytes(range(256)) * 999


@pytest.mark.parametrize(
    ("connector", "user"),
    [("@openssh", "abc1de"), ("@ssh", "noi5ey"), ("@ssh", "csh7sh"), ("@ssh", "fsh8fi")],
)
def test_the_plain_pyinfra_command_gets_a_job(
    cluster: Any, tmp_path: Path, app: Path, connector: str, user: str
) -> None:
    """deploys/job.py through pyinfra itself, over our connector or its own: submission is the last
    operation; odd names, and login shells that are no POSIX shell, make no difference."""
    root = Path(__file__).parent.parent.parent
    laptop = make(cluster, tmp_path / "laptop", user=user)
    write(app, dict.fromkeys(ODD_NAMES, "odd"))
    prefix = connector.removeprefix("@")
    key = "ssh_config_file" if prefix == "ssh" else "openssh_config"
    data = {
        f"{prefix}_user": user,
        key: str(cluster.ssh_config),
        "command": "python train.py",
    }
    words = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    program = str(Path(sys.executable).parent / "pyinfra")
    done = subprocess.run(
        [program, "-y", f"{connector}/rv-login", *words, str(root / "deploys/job.py")],
        cwd=app,
        env=laptop.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = [r for r in laptop.document("ps", "-a")["runs"] if r["project"] == app.name]
    assert laptop.await_state(run["run_id"], *FINISHED) == "COMPLETED"
    assert laptop.run("logs", run["run_id"]).stdout == "one\n"
    receipt = json.loads(
        laptop.run("exec", f"cat /scratch/{user}/.rv/runs/{run['run_id']}/receipt.json").stdout
    )
    count = laptop.run("exec", f"find '{receipt['snapshot']}' -type f -printf x | wc -c").stdout
    assert int(count) == len({"train.py", "sub/x", *ODD_NAMES})


def test_a_controller_that_is_down_is_said(cluster: Any, laptop: Laptop, app: Path) -> None:
    """Unknown is never finished, and never an empty list."""
    # a job that starts at this very moment would be run again, which is Slurm's own doing
    laptop.await_state(laptop.submit("true", cwd=app)["run_id"], *FINISHED)
    cluster.fault("kill", "slurmctld")
    try:
        done = laptop.run("ps", status=None)
        assert done.returncode == 1
        assert "controller" in done.stderr
    finally:
        cluster.heal()
