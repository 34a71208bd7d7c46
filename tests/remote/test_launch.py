"""The steps of a job of several nodes, run here with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.shell import quote

# Runs the tasks here, all nodes one after the other, as many at once as there are.
SRUN = """#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in
        --nodes=*) nodes=${1#*=} ;;
        --ntasks-per-node=*) each=${1#*=} ;;
        --*) ;;
        *) break ;;
    esac
    shift
done
for ((task = 0; task < nodes * each; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$((task % each)) SLURM_NODEID=$((task / each)) \\
        SLURM_NTASKS=$((nodes * each)) "$@" &
done
status=0
for child in $(jobs -p); do wait "$child" || status=$?; done
exit "$status"
"""
SCONTROL = """#!/bin/sh
case "$1 $2" in
    'show hostnames') echo n1; echo n2 ;;
    'show config') echo "ProctrackType = proctrack/cgroup" ;;
esac
"""

WORKER = """import os, signal, subprocess, sys, time
def got(number, frame):
    print("got", os.environ["LOCAL_RANK"], flush=True)
    child.kill()
    sys.exit(0)
signal.signal(signal.SIGUSR1, got)
# its own child has its variables; a signal would end it
child = subprocess.Popen(["env", "--default-signal=USR1", "sleep", "60"])
print("ready", flush=True)
child.wait()
print("the child is gone", flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Directories as converge makes them, our scripts, and a Slurm that is not one."""
    for name in ("lib", "rv/logs", "run", "bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("job", "launch"):
        (tmp_path / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(place: Path, *steps: str, **env: str) -> subprocess.Popen[str]:
    """Start a batch script of two nodes with four CPUs each."""
    lib = place / "lib"
    text = [
        f". {lib}/job.sh",
        f"rv_begin {place}/rv {place}/run 'odd name'",
        f". {lib}/launch.sh",
        *steps,
    ]
    (place / "job.sh").write_text("\n".join((*text, "")))
    slurm = {
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_CPUS_PER_NODE": "6,4",
    }
    path = f"{place}/bin:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", str(place / "job.sh")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env={"PATH": path, "HOME": str(place), **slurm, **env},
    )


def job(place: Path, *steps: str, **env: str) -> tuple[int, str]:
    """Run one to its end: its exit code, and what the batch script complained about."""
    process = start(place, *steps, **env)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def log(place: Path, name: str) -> list[str]:
    """The lines of a node's log, sorted."""
    return sorted((place / f"rv/logs/odd name-41.{name}").read_text().splitlines())


def test_a_stages_own_variables_win_on_every_node(place: Path) -> None:
    """Over the user's, which every program gets, as on one node."""
    (place / "user.env").write_text("export WHAT=user ELSE=user\n")
    (place / "lib/stage.sh").write_text(assets.job_scripts()["stage.sh"])
    status, errors = job(
        place,
        f"rv_variables {place}/user.env",
        f". {place}/lib/stage.sh",
        "rv_stage_env " + quote('WHAT=it\'s a "b" $c'),
        "rv_nodes 2 1 5",
        "rv_launch node bash -c 'echo $WHAT, $ELSE'",
    )
    assert status == 0, errors
    for node in ("node0", "node1"):
        assert log(place, f"{node}.out") == ['it\'s a "b" $c, user']


def test_a_program_for_each_rank_knows_which_it_is(place: Path) -> None:
    """Its rank on its node and in all; the threads by the node that has the fewest CPUs."""
    said = "echo $RANK $LOCAL_RANK $WORLD_SIZE $NODE_RANK $MASTER_ADDR $OMP_NUM_THREADS"
    status, _ = job(place, "rv_nodes 2 2 9", f"rv_launch rank bash -c {quote(said)}")
    assert status == 0
    assert log(place, "node0.out") == ["0 0 4 0 n1 2", "1 1 4 0 n1 2"]
    assert log(place, "node1.out") == ["2 0 4 1 n1 2", "3 1 4 1 n1 2"]


def test_ranks_that_share_a_log_do_not_tear_each_others_lines(place: Path) -> None:
    """Each line arrives whole, the last ones too, also where one has no end."""
    program = 'for n in 1 2 3 4 5 6 7 8 9; do printf "<%s" "$RANK"; printf ">\\n"; done; printf end'
    assert job(place, "rv_nodes 2 4 9", f"rv_launch rank bash -c {quote(program)}")[0] == 0
    text = (place / "rv/logs/odd name-41.node1.out").read_text()
    for rank in (4, 5, 6, 7):
        assert text.count(f"<{rank}>") == 9
    assert text.count("end") == 4


def test_one_program_a_node_has_no_rank_of_its_own(place: Path) -> None:
    """torchrun gives its programs ranks; what it needs is in the variables that it reads."""
    said = 'echo "${RANK-none} $PET_NNODES $PET_NODE_RANK $PET_MASTER_ADDR"'
    assert job(place, "rv_nodes 2 4 9", f"rv_launch node bash -c {quote(said)}")[0] == 0
    assert log(place, "node1.out") == ["none 2 1 n1"]


def test_accelerate_is_told_what_its_own_options_do_not_say(place: Path) -> None:
    """What stands behind the script is the script's; a kind is added where nothing names one."""
    (place / "bin/accelerate").write_text('#!/bin/sh\necho "$*"\n')
    (place / "bin/accelerate").chmod(0o755)
    told = "--num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip n1"
    more = "--main_process_port 10041"
    last = "--deepspeed_multinode_launcher standard"
    for words, expected in (
        ("t.py --num_processes 3 --cpu", f"{told} {more} --multi_gpu {last}"),
        ("--dynamo_backend no -m t --num-machines 9", f"{told} {more} --multi_gpu {last}"),
        ("--use_fsdp t.py", f"{told} {more} {last}"),
        ("--config-file acc.yaml t.py", f"{told} {more} {last}"),
        ("--main-process-port=7 --multi-gpu t.py", f"{told} {last}"),
    ):
        job(place, "rv_nodes 2 4 9", f"rv_launch node accelerate launch {words}")
        shown = place / "rv/logs/odd name-41.node1.out"
        assert shown.read_text() == f"launch {expected} {words}\n"
        shown.unlink()
    (place / ".cache/huggingface/accelerate").mkdir(parents=True)
    answers = place / ".cache/huggingface/accelerate/default_config.yaml"
    for kind, added in (("FSDP", False), ("'NO'", True), ("MULTI_CPU", True), ("MULTI_GPU", False)):
        answers.write_text(f"distributed_type: {kind}\n")
        job(place, "rv_nodes 2 4 9", "rv_launch node accelerate launch t.py")
        assert ("--multi_gpu" in shown.read_text()) is added
        shown.unlink()


def test_deepspeed_on_one_node_is_told_the_jobs_port_and_nothing_else(place: Path) -> None:
    """By itself and in a line with a PATH of its own; a port that the user gave is left alone."""
    (place / "own").mkdir()
    for folder in ("bin", "own"):
        (place / folder / "deepspeed").write_text('#!/bin/sh\necho "$0 $*"\n')
        (place / folder / "deepspeed").chmod(0o755)
    line = quote(f"PATH={place}/own:$PATH deepspeed x.py && exec deepspeed --master_port=7 x.py")
    for command, expected in (
        ("deepspeed a.py", [f"{place}/bin/deepspeed --master_port 10041 a.py"]),
        (
            f"bash -c {line}",
            [
                f"{place}/own/deepspeed --master_port 10041 x.py",
                f"{place}/bin/deepspeed --master_port=7 x.py",
            ],
        ),
    ):
        process = start(place, "rv_launchers", f"rv_run {command}")
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert out.splitlines() == expected


def test_the_first_that_fails_gives_its_code_and_is_named(place: Path) -> None:
    """The later failure of another node changes neither."""
    program = '[ "$NODE_RANK" = 1 ] || { sleep 1; exit 9; }; exit 3'
    status, errors = job(place, "rv_nodes 2 1 9", f"rv_launch node bash -c {quote(program)}")
    assert status == 3
    assert "node1 (n2) failed first, with exit code 3" in errors
    assert (place / "run/exit").read_text().split()[0] == "3"


def test_a_node_whose_programs_were_killed_did_not_go_on(place: Path) -> None:
    """Where nothing ended by itself, the node that never said a word was ended from outside."""
    shell = "$(ps -o ppid= -p $PPID)"
    program = f'[ "$NODE_RANK" = 0 ] || kill -9 {shell}; kill -TERM {shell}; sleep 9'
    status, errors = job(place, "rv_nodes 2 1 9", f"rv_launch node bash -c {quote(program)}")
    assert status == 137
    assert "node1 (n2) was ended from outside (exit code 137): out of memory" in errors


def test_a_node_that_slurm_has_lost_is_named_and_not_those_that_fail_by_it(place: Path) -> None:
    """Whether the others fail by it or are ended with it, the exit code is no success."""
    sinfo = place / "bin/sinfo"
    sinfo.write_text("#!/bin/sh\nprintf 'n1 mix\\nn2 down*\\nn2 down*\\n'\n")
    sinfo.chmod(0o755)
    # the program on the lost node never says how it ended
    lost = "kill -9 $(ps -o ppid= -p $PPID)"
    for other, expected in (("exit 3", 3), ("sleep 2", 137)):
        program = f'[ "$NODE_RANK" = 0 ] || {lost}; sleep 0.5; {other}'
        status, errors = job(place, "rv_nodes 2 1 9", f"rv_launch node bash -c {quote(program)}")
        assert (status, errors.splitlines()[-1]) == (
            expected,
            "rvstate: node1 (n2) failed: Slurm counts it as down",
        )


def test_a_job_with_other_nodes_than_it_was_made_for_starts_nothing(place: Path) -> None:
    """Neither fewer nor more programs than were asked for."""
    status, errors = job(place, "rv_nodes 3 1 9", "rv_launch node touch ran")
    assert status == 1
    assert "made for 3 nodes and has 2" in errors
    assert not (place / "ran").exists()


def test_the_users_variables_reach_the_program_and_not_srun(place: Path) -> None:
    """On every node; quotes and blanks in them and in the command stay as they are."""
    (place / "user.env").write_text("export TOKEN='a b'\n")
    seen = '#!/bin/bash\n[ -z "$TOKEN" ] || echo leaked >&2\n'
    (place / "bin/srun").write_text(seen + SRUN.partition("\n")[2])
    steps = (f"rv_variables {place}/user.env", "rv_nodes 2 1 9")
    command = ("bash", "-c", 'echo "$TOKEN" "$@"', "x", "it's", "$HOME *")
    status, errors = job(place, *steps, f"rv_launch node {' '.join(map(quote, command))}")
    assert (status, errors) == (0, "")
    assert log(place, "node0.out") == log(place, "node1.out") == ["a b it's $HOME *"]


def test_usr1_goes_past_a_launcher_to_the_programs_with_a_rank(place: Path) -> None:
    """A launcher would die of it, and a program's own children are not asked."""
    (place / "worker.py").write_text(WORKER)
    worker = f"{quote(sys.executable)} {place}/worker.py"
    launcher = f"LOCAL_RANK=0 {worker} & wait $!; echo launcher ends with $?"
    process = start(place, "rv_nodes 2 1 9", f"rv_launch node bash -c {quote(launcher)}")
    try:
        outs = [place / f"rv/logs/odd name-41.node{n}.out" for n in (0, 1)]
        end = time.monotonic() + 30
        while not all(path.exists() and "ready" in path.read_text() for path in outs):
            assert time.monotonic() < end
            time.sleep(0.05)
        # as slurmstepd does where it signals the first program of each task alone
        for task in tasks(place):
            os.kill(task, signal.SIGUSR1)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    for node in (0, 1):
        assert log(place, f"node{node}.out") == ["got 0", "launcher ends with 0", "ready"]


def tasks(place: Path) -> list[int]:
    """The processes that srun has started: ours, on each node."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            above = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = os.fsencode(place / "lib/launch.sh")
        if words[1:2] == [ours] and above[1:2] == [os.fsencode(place / "bin/srun")]:
            found.append(int(entry.name))
    assert len(found) == 2
    return found
