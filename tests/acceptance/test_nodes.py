"""Jobs of several nodes on a real Slurm: what is started where, what it is told, how it ends."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository, write

pytestmark = pytest.mark.cluster

# Says what it was told; with an argument it fails, or stays, as the rank that is named.
WHO = """import os, sys, time
keys = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "OMP_NUM_THREADS", "TOKEN")
told = " ".join(f"{key}={os.environ.get(key)}" for key in keys)
print(told, os.environ["MASTER_ADDR"], os.uname().nodename, *sys.argv[1:])
print("to stderr", file=sys.stderr)
rank = os.environ["RANK"]
open(f"kept-{rank}", "w").write(rank)
if sys.argv[1:2] == ["fail"]:
    # the other one would wait for ever, as in a collective that nobody joins
    time.sleep(1 if rank == "1" else 600)
    sys.exit(7)
if sys.argv[1:2] == ["stay"] and rank == "1":
    time.sleep(600)
"""
# A launcher that records what it was told, and what it is.
STAND_IN = """#!/bin/bash
told="node $PET_NODE_RANK of $PET_NNODES at $PET_MASTER_ADDR"
echo "${0##*/} A=$A RANK=${RANK-unset} $told args: $*"
"""
SIGNALLED = """import os, signal, sys, time
rank = os.environ["RANK"]
def got(number, frame):
    print(rank, "got", number)
def end(number, frame):
    print(rank, "saves")
    # bash may lose the exit code of a program that ends in the very moment of the signal
    time.sleep(0.5)
    sys.exit(0)
signal.signal(signal.SIGUSR1, got)
signal.signal(signal.SIGTERM, end)
print(rank, "ready")
while True:
    time.sleep(0.1)
"""
GPU = """import os, sys
if os.uname().nodename == "udc-an28-1":
    sys.exit("CUDA error: uncorrectable ECC error encountered")
print("well on", os.uname().nodename)
"""

# Its first attempt is busy; what Slurm starts again ends at once.
AGAIN = """import os, time
again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
print("again" if again else "first", os.uname().nodename)
time.sleep(0 if again else 5)
"""


@pytest.fixture(scope="module")
def laptop(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """rvstate on a machine of its own, pointed at a clean cluster."""
    cluster.reset()
    root = tmp_path_factory.mktemp("nodes")
    found = Laptop(
        root / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\nnode_wait = "2s"\n',
    )
    found.run("env", "set", "TOKEN", "from-env")
    return found


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all the programs."""
    root = repository(
        tmp_path_factory.mktemp("work") / "nodes",
        {
            "who.py": WHO,
            "sub/who.py": WHO,
            "signalled.py": SIGNALLED,
            "gpu.py": GPU,
            "again.py": AGAIN,
        },
    )
    names = ("torchrun", "accelerate", "deepspeed")
    write(root, {f"bin/{name}": STAND_IN for name in names}, executable=True)
    return root


def lines(text: str, node: int) -> list[str]:
    """What one node printed, of a merged log."""
    prefix = f"[node{node}] "
    return sorted(x.removeprefix(prefix) for x in text.splitlines() if x.startswith(prefix))


def test_python_is_started_once_for_each_gpu(laptop: Laptop, app: Path) -> None:
    """Ranks, threads, the user's variables on every node; one shape, said before; outputs kept."""
    options = ("--nodes", "2", "-g", "4", "-t", "a100", "--cpus", "6", "-o", "kept-3")
    done = laptop.run("run", "-f", *options, "X=1 python who.py 'a b'", cwd=app)
    assert "2 nodes of 2 GPUs: python is started 2 times on each, 4 in all" in done.stderr
    for node in (0, 1):
        assert lines(done.stdout, node) == [
            f"RANK={rank} LOCAL_RANK={rank % 2} WORLD_SIZE=4 NODE_RANK={node} OMP_NUM_THREADS=3 "
            f"TOKEN=from-env udc-an28-1 udc-an28-{node + 1} a b"
            for rank in (2 * node, 2 * node + 1)
        ]
        assert lines(done.stderr, node) == ["to stderr"] * 2
    run = laptop.document("ps")["runs"][0]
    kept = f"/scratch/abc1de/.rv/outputs/{run['name']}-{run['job_id']}/kept-3"
    assert laptop.run("exec", "--", "cat", kept).stdout == "3"


def test_a_failed_rank_ends_the_job_and_the_logs_say_where(
    laptop: Laptop, app: Path, tmp_path: Path
) -> None:
    """Its own code, its node; the logs of all nodes and of the batch script, whole and in part."""
    done = laptop.run("run", "-f", "--nodes", "2", "-g", "0", "who.py", "fail", cwd=app, status=7)
    blame = "rvstate: node1 (udc-aj37-2) failed first, with exit code 7"
    assert f"[batch] {blame}" in done.stderr
    run = laptop.document("ps")["runs"][0]
    assert (run["state"], run["exit_code"]) == ("FAILED", 7)
    shown = laptop.run("logs")
    assert [len(lines(shown.stdout, node)) for node in (0, 1)] == [1, 1]
    assert blame in shown.stderr
    one = laptop.run("logs", "--node", "1")
    assert one.stdout.startswith("RANK=1 ")
    # each node says which Python it has
    started, said = one.stderr.splitlines()
    assert (started.split(" /")[0], said) == ("rvstate: python is", "to stderr")
    errors = laptop.run("logs", "--err")
    assert errors.stdout == ""
    assert errors.stderr.count("to stderr") == 2
    refused = laptop.run("logs", "--node", "2", status=None)
    assert refused.returncode != 0
    assert "nodes 0 to 1" in refused.stderr
    laptop.run("logs", "--pull", str(tmp_path / "logs"))
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    ends = ("out", "err", "node0.out", "node0.err", "node1.out", "node1.err")
    assert names == {f"rv-who-{run['job_id']}.{end}" for end in ends}


def test_a_node_that_hangs_does_not_hold_the_others(laptop: Laptop, app: Path) -> None:
    """After node_wait it is ended and named, and the job has not succeeded."""
    command = ("run", "-f", "--nodes", "2", "-g", "0", "who.py", "stay")
    done = laptop.run(*command, cwd=app, status=124)
    assert "node1 (udc-aj37-2) went on for 2 s after the others had ended" in done.stderr


def test_launchers_are_started_once_a_node_and_told_the_rest(laptop: Laptop, app: Path) -> None:
    """In a line of shell with a PATH of its own: what they are told, and what the user's wins."""
    line = (
        "PATH=$PWD/bin:$PATH; cd sub && A=1 torchrun --nproc_per_node=2 t.py && "
        "A=2 accelerate launch --main-process-port=5 t.py && deepspeed --num_gpus=2 t.py"
    )
    done = laptop.run("run", "-f", "--nodes", "2", "-g", "4", "-t", "a100", line, cwd=app)
    for node in (0, 1):
        accelerate, deepspeed, torchrun = lines(done.stdout, node)
        where = f"RANK=unset node {node} of 2 at udc-an28-1 args:"
        assert torchrun == f"torchrun A=1 {where} --nproc_per_node=2 t.py"
        assert accelerate == (
            f"accelerate A=2 {where} launch --num_machines 2 --num_processes 4 --machine_rank "
            f"{node} --main_process_ip udc-an28-1 --multi_gpu --deepspeed_multinode_launcher "
            "standard --main-process-port=5 t.py"
        )
        port = r"1\d{4}|2\d{4}"
        assert re.fullmatch(
            rf"deepspeed A= {where} --hostfile \S+/hostfile --no_ssh --node_rank {node} "
            rf"--master_addr udc-an28-1 --master_port ({port}) --num_gpus=2 t\.py",
            deepspeed,
        )


def test_the_users_own_srun_starts_its_ranks(laptop: Laptop, app: Path) -> None:
    """Once, from the first node; a rank for each GPU, and logs for each node."""
    words = ("--nodes", "2", "-g", "4", "-t", "a100", "srun", "python", "who.py")
    done = laptop.run("run", "-f", *words, cwd=app)
    for node in (0, 1):
        assert [line.split(" NODE_RANK")[0] for line in lines(done.stdout, node)] == [
            f"RANK={rank} LOCAL_RANK={rank % 2} WORLD_SIZE=4" for rank in (2 * node, 2 * node + 1)
        ]


def test_the_users_own_srun_has_room_for_what_it_says(laptop: Laptop, app: Path) -> None:
    """Without GPUs, on one node and on two, behind a variable; one node has one pair of logs."""
    done = laptop.run("run", "-f", "--cpus", "6", "srun", "-n", "3", "python", "who.py", cwd=app)
    told = [line for line in done.stdout.splitlines() if line.startswith("RANK=")]
    assert sorted(line.split(" TOKEN")[0] for line in told) == [
        f"RANK={n} LOCAL_RANK={n} WORLD_SIZE=3 NODE_RANK=None OMP_NUM_THREADS=2" for n in range(3)
    ]
    words = ("--nodes", "2", "X=1", "srun", "-n", "4", "python", "who.py")
    done = laptop.run("run", "-f", *words, cwd=app)
    assert "and starts 4 programs" in done.stderr
    assert [len(lines(done.stdout, node)) for node in (0, 1)] == [2, 2]
    words = ("--nodes", "2", "srun", "python", "who.py", "fail")
    failed = laptop.run("run", "-f", *words, cwd=app, status=7)
    assert "node1 (udc-aj37-2) failed first, with exit code 7" in failed.stderr


def test_an_array_of_several_nodes_is_waited_for_and_its_logs_named(
    laptop: Laptop, app: Path
) -> None:
    """They are not shown as one, and -f ends as the array does all the same."""
    words = ("--nodes", "2", "--array", "0-1", "--start", "node", 'exit "$RV_ARRAY_INDEX"')
    done = laptop.run("run", "-f", *words, cwd=app, status=1)
    run = laptop.document("ps")["runs"][0]
    assert f"rvstate logs {run['job_id']}_0" in done.stderr
    shown = laptop.run("logs", f"{run['job_id']}_1").stderr
    assert "failed first, with exit code 1" in shown


def test_signals_reach_the_programs_of_all_nodes_once(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """USR1 from the batch script, and TERM, after which each saves and ends well."""
    found = laptop.submit("--nodes", "2", "-g", "0", "signalled.py", cwd=app)
    job = found["job_id"]

    def send(signal: str, after: str) -> None:
        end = time.monotonic() + 180
        while laptop.run("logs", job).stdout.count(after) < 2:
            assert time.monotonic() < end, after
            time.sleep(0.3)
        cluster.run_as("abc1de", "scancel", "--batch", f"--signal={signal}", job)

    send("USR1", "ready")
    send("TERM", "got 10")
    state = laptop.await_state(found["run_id"], "COMPLETED", "FAILED")
    assert state == "COMPLETED", laptop.run("logs", job).stderr
    shown = laptop.run("logs", job).stdout
    for node in (0, 1):
        assert lines(shown, node) == [f"{node} got 10", f"{node} ready", f"{node} saves"]


def test_a_gpu_that_fails_at_the_start_is_left_out_once(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """The node is named, the same snapshot runs elsewhere at once, under a token of its own."""
    said = ("--comment", "seen by me", "--begin", "now")
    done = laptop.run("run", "-f", "-g", "1", "-t", "a100", *said, "gpu.py", cwd=app)
    assert "udc-an28-1 had an error of a GPU at the start" in done.stderr
    assert done.stdout.splitlines()[-1] == "well on udc-an28-2"
    snapshots = re.findall(r"^  snapshot (\S+)$", done.stdout, re.MULTILINE)
    assert len(snapshots) == 2
    assert len(set(snapshots)) == 1
    runs = laptop.document("ps")["runs"][:2]
    assert [run["state"] for run in runs] == ["COMPLETED", "FAILED"]
    shown = cluster.exec("scontrol", "show", "job", runs[0]["job_id"]).stdout
    assert "ExcNodeList=udc-an28-1" in shown
    assert f"Comment=rvstate:{runs[0]['run_id']} seen by me" in shown
    # what the first one waited for has come
    scripts = [
        cluster.run_as("abc1de", "cat", f"/scratch/abc1de/.rv/runs/{run['run_id']}/job.sh").stdout
        for run in runs
    ]
    assert ["#SBATCH --begin" in script for script in scripts] == [False, True]


def test_a_retry_that_was_cut_off_is_found_and_never_submitted_twice(
    cluster: Any, app: Path, tmp_path: Path
) -> None:
    """--resume comes to the one job that the second run has."""
    far = Laptop(
        tmp_path / "far",
        '[connection]\nhost = "rv-far"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[defaults]\naccount = "mygroup"\n',
    )

    def receipts() -> list[str]:
        return sorted(path.stem for path in (far.home / "runs").glob("*.json"))

    def await_receipts(count: int) -> None:
        end = time.monotonic() + 90
        while len(receipts()) < count:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)

    process = far.start("run", "--retry-hardware", "-g", "1", "-t", "a100", "gpu.py", cwd=app)
    try:
        await_receipts(1)
        # slow, so that the cut is in the middle of the submission, which begins with the receipt
        cluster.latency(400)
        await_receipts(2)
        cluster.fault("drop")
        _, err = process.communicate(timeout=120)
        cluster.heal()
        _, run_id = receipts()
        # on a busy machine the cut may come when all is submitted, and the wait for the end goes on
        if process.returncode != 0:
            assert "--resume" in err
            found = far.run("run", "--resume", "-f", cwd=app)
            assert "well on udc-an28-2" in found.stdout
        rows = cluster.exec("squeue", "--states=all", "--noheader", "--format=%k %T").stdout
        assert [x for x in rows.splitlines() if run_id in x] == [f"rvstate:{run_id} COMPLETED"]
        assert len(receipts()) == 2
    finally:
        cluster.heal()
        cluster.latency("off")


def until(process: Any, laptop: Laptop, text: str) -> str:
    """Wait until the newest run has printed something; its job id."""
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        runs = laptop.document("ps")["runs"]
        if runs and runs[0]["state"] == "RUNNING" and text in laptop.run("logs").stdout:
            return str(runs[0]["job_id"])
        time.sleep(0.3)
    raise AssertionError(process.communicate(timeout=180))


def test_a_job_goes_on_when_slurm_starts_it_again_after_a_node_died(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """The node is named, the first attempt's end is not the run's, and no log is lost."""
    words = ("--nodes", "2", "-g", "0", "--start", "node", "again.py")
    process = laptop.start("run", "-f", *words, cwd=app)
    until(process, laptop, "[node1] first")
    cluster.fault("down", "udc-aj37-2")
    time.sleep(1)
    cluster.heal()
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, out + err
    assert "[batch] rvstate: node1 (udc-aj37-2) failed: Slurm counts it as down" in err
    assert "back into its queue" in err
    for node in (0, 1):
        assert [line.split()[0] for line in lines(out, node)] == ["again", "first"]
    assert laptop.document("ps")["runs"][0]["state"] == "COMPLETED"


def test_a_run_whose_node_died_for_good_is_submitted_once_more(
    cluster: Any, laptop: Laptop, app: Path
) -> None:
    """Where Slurm may not start it again itself: on other nodes, once, and said."""
    words = ("-g", "1", "-t", "a100", "--sbatch", "no-requeue", "again.py")
    process = laptop.start("run", "--retry-hardware", *words, cwd=app)
    until(process, laptop, "first udc-an28-1")
    cluster.fault("down", "udc-an28-1")
    try:
        out, err = process.communicate(timeout=180)
    finally:
        cluster.heal()
    assert process.returncode == 0, out + err
    assert "rvstate: udc-an28-1 failed" in err
    again, first = laptop.document("ps")["runs"][:2]
    assert (again["state"], first["state"]) == ("COMPLETED", "NODE_FAIL")
    assert laptop.run("logs", again["job_id"]).stdout == "first udc-an28-2\n"


def test_a_request_that_the_command_contradicts_submits_nothing(laptop: Laptop, app: Path) -> None:
    """The same with --json: what is refused does not depend on who reads the answer."""
    words = ("--nodes", "2", "-g", "4", "-t", "a100", "torchrun", "--nproc_per_node=4", "who.py")
    before = len(laptop.document("ps")["runs"])
    for more in ((), ("--json",)):
        refused = laptop.run("run", *more, *words, cwd=app, status=None)
        assert refused.returncode != 0
        assert "--nproc_per_node=2" in refused.stderr + refused.stdout
    image = '[environment]\nkind = "apptainer"\npath = "/scratch/abc1de/x.sif"\n'
    write(app, {"rvstate.toml": image})
    try:
        within = ("--nodes", "2", "accelerate", "launch", "who.py")
        refused = laptop.run("run", *within, cwd=app, status=3)
        assert "torchrun" in refused.stderr
    finally:
        write(app, {"rvstate.toml": None})
    assert len(laptop.document("ps")["runs"]) == before
