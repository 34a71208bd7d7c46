"""A Ray cluster within a job, run here with stand-ins for Ray and for Slurm's programs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.shell import quote
from tests.runkit import until

# Says who it is, leaves a child in a session of its own as Ray's workers are, and waits.
RAY = """import os, signal, subprocess, sys, time
from pathlib import Path
words = dict(w.partition("=")[::2] for w in sys.argv[2:])
place = Path(os.environ["RAY_TMPDIR"])
with open(os.environ["WITNESS"], "a") as file:
    mode = oct(place.stat().st_mode & 0o777)
    print(place, mode, os.environ["RAY_AUTH_MODE"], *sys.argv[1:], file=file)
session = place / "session_2026-01-01"
(session / "logs").mkdir(parents=True)
(session / "logs/raylet.out").write_text(os.environ.get("SLURM_NODEID", "0"))
subprocess.Popen(["sleep", "600"], start_new_session=True)
if "--head" in words:
    (session / "gcs_server_port_1").write_text("4242")
if os.environ.get("RAY_ENDS") == os.environ.get("SLURM_NODEID", "0"):
    time.sleep(0.5)
    print("2026 ERR x.py:1 -- raylet [exit code=-9]", flush=True)
    sys.exit(1)
signal.pause()
"""
# Waits for Ray as the driver does, then does what it is told.
DRIVER = """import os, sys, time
from pathlib import Path
place = Path(sys.argv[1])
while not (place / "address").exists() and not (place / "failed").exists():
    time.sleep(0.05)
print("driver", os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777, flush=True)
for _ in range(int(os.environ.get("TURNS", "0")) * 20):
    if (place / "failed").exists():
        sys.exit((place / "failed").read_text())
    time.sleep(0.05)
sys.exit(int(os.environ.get("STATUS", "0")))
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
echo $$ >"$WITNESS.srun"
trap 'kill $(jobs -p)' TERM
for node in 0 1; do
    # /tmp is each node's own
    SLURM_NODEID=$node SLURMD_NODENAME=n$node unshare --user --map-root-user --mount \
        bash -c 'mount --bind "$NODES$SLURM_NODEID" "$TMPDIR" && exec "$@"' bash "$@" &
done
wait
wait
"""
SCANCEL = """#!/bin/sh
echo "$@" >>"$WITNESS.scancel"
kill "$(cat "$WITNESS.srun")"
"""
SCONTROL = """#!/bin/sh
printf 'n0\\nn1\\n'
"""


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directories as a run has them; their path is short, for Ray makes sockets below it."""
    import shutil
    import tempfile

    found = Path(tempfile.mkdtemp(prefix="rr", dir="/tmp"))
    for name in ("lib", "rv/logs", "run/ray", "bin", "python/ray/scripts", "tmp", "env/bin"):
        (found / name).mkdir(parents=True)
    (found / "lib/job.sh").write_text(assets.job_scripts()["job.sh"])
    (found / "run/ray/ray.sh").write_text(assets.script("ray"))
    (found / "run/ray/driver.py").write_text(DRIVER)
    (found / "python/ray/__init__.py").write_text("__version__ = '2.52.0'\n")
    (found / "python/ray/scripts/__init__.py").touch()
    (found / "python/ray/scripts/scripts.py").write_text(RAY)
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (found / "bin" / name).write_text(text)
        (found / "bin" / name).chmod(0o755)
    (found / "env/bin/python").symlink_to(sys.executable)
    yield found
    shutil.rmtree(found)


def begin(place: Path, *, nodes: int = 1, copies: int = 0, **env: str) -> subprocess.Popen[str]:
    """Start the job."""
    lib = place / "lib"
    steps = [
        f". {lib}/job.sh",
        f"rv_begin {place}/rv {place}/run 'odd name'",
        f"rv_venv {place}/env",
        f"rv_promise {place}/env/bin/python",
        f"cd {place}",
        f". {place}/run/ray/ray.sh",
        f"rv_ray {quote(str(lib))} {nodes} {copies}",
    ]
    (place / "job.sh").write_text("\n".join((*steps, "")))
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[0-1]"}
    return subprocess.Popen(
        ["bash", place / "job.sh"],
        env={
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "HOME": str(place),
            "TMPDIR": str(place / "tmp"),
            "WITNESS": str(place / "witness"),
            "NODES": str(place / "node"),
            "PYTHONPATH": "",
            **(slurm if nodes > 1 else {}),
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(autouse=True)
def fake_ray(place: Path) -> None:
    """The environment's Python finds the stand-in; job.sh unsets what would lead there."""
    site = place / "env/lib"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = site / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "ray").symlink_to(place / "python/ray")
    for name in ("pip", "virtualenv"):
        (packages / f"{name}.py").touch()
    (place / "env/pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")


def nodes(place: Path) -> None:
    """Two of them, each with a /tmp of its own."""
    if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"]).returncode:
        pytest.skip("this machine gives users no namespaces, so two nodes would share one /tmp")
    for number in "01":
        (place / f"node{number}").mkdir()


def ended(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and outputs of a job."""
    out, err = job.communicate(timeout=60)
    return job.returncode, out, err


def strays(place: Path) -> list[str]:
    """Processes that still have something to do with this place."""
    found = subprocess.run(
        [
            "grep",
            "-l",
            "-s",
            "-a",
            "-F",
            f"RAY_TMPDIR={place}",
            *Path("/proc").glob("[0-9]*/environ"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.split()


def test_it_ends_with_nothing_left_but_the_logs(place: Path) -> None:
    """The driver's exit code is the job's; directory, processes and token are gone."""
    code, out, err = ended(begin(place, STATUS="7"))
    assert (code, out) == (7, f"driver {0o600}\n"), err
    said = (place / "witness").read_text().split()
    assert said[1:5] == ["0o700", "token", "start", "--block"]
    assert "--node-ip-address=127.0.0.2" in said
    assert "--include-dashboard=false" in said
    assert list((place / "tmp").iterdir()) == []
    assert strays(place) == []
    ray = place / "run/ray"
    assert not (ray / "token").exists()
    assert (ray / "logs/node0/raylet.out").read_text() == "0"
    assert (ray / "address").read_text().startswith("127.0.0.2:4242 ")


def test_the_token_is_new_each_time_and_in_no_argv(place: Path) -> None:
    """It is 64 hexadecimal digits that only the file has."""
    tokens = set()
    for _ in range(2):
        job = begin(place, TURNS="60")
        until((place / "run/ray/address").exists)
        token = place / "run/ray/token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        tokens.add(token.read_text())
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            assert token.read_text().encode() not in (file.read_bytes() if file.exists() else b"")
        os.kill(job.pid, signal.SIGTERM)
        ended(job)
        (place / "run/ray/address").unlink()
        (place / "run/claim").unlink()
    assert {len(one) for one in tokens} == {64}
    assert len(tokens) == 2


def test_two_nodes_share_a_directory_by_name_and_both_tidy_up(place: Path) -> None:
    """Slurm is asked to end the step, and the second node joins the first."""
    nodes(place)
    code, _, err = ended(begin(place, nodes=2, TURNS="2", SLURM_CPUS_PER_TASK="3"))
    assert code == 0, err
    first, second = sorted((place / "witness").read_text().splitlines(), key=len, reverse=True)
    assert "--head" in first
    assert "--address=127.0.0.2:4242" in second
    assert (place / "witness.scancel").read_text() == "--signal=TERM 7.0\n"
    assert [(place / f"run/ray/logs/node{n}/raylet.out").read_text() for n in "01"] == ["0", "1"]
    assert strays(place) == []


def test_where_one_node_fails_the_job_says_which_and_ends(place: Path) -> None:
    """What Ray said of it is in the message, and the other node tidies up, too."""
    nodes(place)
    code, _, err = ended(begin(place, nodes=2, TURNS="60", RAY_ENDS="1"))
    assert code == 1
    assert "node1 (" in err
    assert "Ray ended by itself (exit code 1): its raylet ended with -9" in err
    assert strays(place) == []
    assert list(place.glob("node*/*")) == []


def test_a_job_that_is_told_to_end_leaves_nothing(place: Path) -> None:
    """The signal reaches the driver, and Ray ends behind it."""
    job = begin(place, TURNS="60")
    until(lambda: (place / "run/ray/address").exists())
    time.sleep(0.2)
    os.kill(job.pid, signal.SIGTERM)
    assert ended(job)[0] == 143
    assert (list((place / "tmp").iterdir()), strays(place)) == ([], [])


def test_no_room_for_clones_is_said_before_ray_is_started(place: Path) -> None:
    """Each copy of the environment is counted, and every place that was looked at is named."""
    (place / "bin/du").write_text("#!/bin/sh\necho '1000000000000 x'\n")
    (place / "bin/du").chmod(0o755)
    code, _, err = ended(begin(place, copies=2, TURNS="60"))
    assert code == 1
    assert f"has no place for Ray: {place}/tmp has " in err
    assert "MiB left and Ray may need 1953125512; /tmp has" in err
    assert not (place / "witness").exists()


def test_a_path_that_is_too_long_for_sockets_is_not_taken(place: Path) -> None:
    """/tmp is taken in its stead."""
    deep = place / ("d" * 40)
    deep.mkdir()
    assert ended(begin(place, TMPDIR=str(deep)))[0] == 0
    assert (place / "witness").read_text().startswith("/tmp/rvray.")


def test_what_killed_jobs_left_is_removed_and_nothing_else(place: Path) -> None:
    """Only where the process that made it is known not to run any more, on this very node."""
    here = os.uname().nodename
    mine = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    owners = {
        "dead": f"{here} 999999999 5\n",
        "alive": f"{here} {os.getpid()} {mine}\n",
        "reused": f"{here} {os.getpid()} 1{mine}\n",
        "other": "another-node 999999999 5\n",
        "empty": "",
    }
    for name, owner in owners.items():
        (place / f"tmp/rvray.{name}").mkdir()
        (place / f"tmp/rvray.{name}/.rvstate").write_text(owner)
    (place / "tmp/rvray.unknown").mkdir()
    (place / "tmp/rvray.link").symlink_to(place / "tmp/rvray.dead")
    assert ended(begin(place))[0] == 0
    left = sorted(p.name.removeprefix("rvray.") for p in (place / "tmp").iterdir())
    assert left == ["alive", "empty", "link", "other", "unknown"]


@pytest.mark.parametrize(
    ("gone", "copies", "said"),
    [("ray", 0, "the environment has no Ray: add ray"), ("virtualenv.py", 1, "pip and virtualenv")],
)
def test_an_environment_that_lacks_something_is_said(
    place: Path, gone: str, copies: int, said: str
) -> None:
    """Before anything is started."""
    next((place / "env/lib").glob(f"*/site-packages/{gone}")).unlink()
    code, _, err = ended(begin(place, copies=copies))
    assert code == 1
    assert said in err
    assert not (place / "run/ray/token").exists()


def test_a_ray_without_tokens_is_not_started(place: Path) -> None:
    """Anybody who reaches it could run code as this user."""
    (place / "python/ray/__init__.py").write_text("__version__ = '2.9.3'\n")
    code, _, err = ended(begin(place))
    assert code == 1
    assert "older than 2.52 and knows no tokens" in err
    assert not (place / "witness").exists()


def test_what_has_become_of_each_stage_is_told(place: Path) -> None:
    """Those that have begun, and those that are done: the job's own end is not theirs."""
    for name in ("stage.sh", "lib.sh"):
        (place / "lib" / name).write_text(assets.job_scripts()[name])
    case = "rv_stage {place}/data {name} 'code 1'; rv_outputs {name}.txt"
    cases = [f"{name}) {case.format(place=place, name=name)} ;;" for name in "ab"]
    (place / "run/ray/stages.sh").write_text("\n".join(('case "$1" in', *cases, "esac", "")))
    (place / "data").mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "RV_RUN_DIR": str(place / "run")}
    env |= {"RV_RAY_LIBRARY": str(place / "lib"), "RV_SNAPSHOT": str(place), "RV_JOB_ID": "7"}

    def note(word: str, stage: str) -> tuple[int, str]:
        command = ["bash", str(place / "run/ray/ray.sh"), word, stage]
        status = subprocess.run(command, env=env, stderr=subprocess.DEVNULL).returncode
        return status, (place / "run/stages").read_text().strip()

    assert note("begin", "a") == (0, "begun a")
    (place / "data/a.txt").write_text("made")
    assert note("end", "a") == (0, "begun a done a")
    assert note("begin", "b") == (0, "begun a done a begun b")
    # its output is not there
    assert note("end", "b") == (1, "begun a done a begun b")
