"""Who is told about runs on a real Slurm: its own mail, and signed events however a job ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runkit import Laptop, repository
from tests.webhook import SECRET, Address

pytestmark = pytest.mark.cluster
PYTHON = "miniforge/24.11.3-py3.12"
SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(120)\n"


@pytest.fixture(scope="module", autouse=True)
def clean(cluster: Any) -> None:
    cluster.reset()


@pytest.fixture
def address() -> Iterator[Address]:
    found = Address()
    yield found
    found.close()


def laptop(cluster: Any, root: Path, more: str, site: str = "uva") -> Laptop:
    return Laptop(
        root / "laptop",
        f'[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "{site}"\n'
        f'ssh_config = "{cluster.ssh_config}"\n[notifications]\nenabled = true\n{more}',
    )


def webhook(cluster: Any, root: Path, address: Address, site: str = "uva") -> Laptop:
    more = f'url = "{address.url}"\ntoken = "{SECRET}"\n[modules]\npython = "{PYTHON}"\n'
    return laptop(cluster, root, more, site)


def test_with_an_address_only_slurm_mails(cluster: Any, tmp_path: Path) -> None:
    """Slurm's own mail program is given the user's address and how the job ended."""
    here = laptop(cluster, tmp_path, 'email = "me@example.org"\n')
    app = repository(tmp_path / "work/mailed", {"train.py": "raise SystemExit(3)\n"})
    job = here.submit("train.py", cwd=app)["job_id"]
    end = time.monotonic() + 60
    while not (mails := [m["argv"] for m in cluster.mail() if f"Job_id={job} " in str(m)]):
        assert time.monotonic() < end
        time.sleep(0.3)
    (words,) = mails
    assert "me@example.org" in words
    assert "Failed" in str(words)


def test_every_end_is_told_once(cluster: Any, tmp_path: Path, address: Address) -> None:
    """Done, failed, cancelled while it waits, killed, timed out, out of memory, started again.

    Nobody runs `ps`: a minimal job behind each run tells.
    """
    here = webhook(cluster, tmp_path, address)
    app = repository(
        tmp_path / "work/told",
        {
            "good.py": "print(1)\n",
            "bad.py": "raise SystemExit(3)\n",
            "hungry.py": "import time\nx = bytearray(400 << 20)\ntime.sleep(120)\n",
            "long.py": SLEEPER,
        },
    )

    def run(name: str, *options: str) -> dict[str, Any]:
        return here.submit("--name", name, *options, f"{name.split('-')[0]}.py", cwd=app)

    def names(found: dict[str, Any]) -> list[str]:
        return address.told(found["run_id"])

    def started(found: dict[str, Any]) -> None:
        address.until(lambda: "STARTED" in names(found))

    late = run("long-timeout")
    killed = run("long-cancelled")
    again = run("long-again")
    hungry = run("hungry", "--mem", "100M")
    waiting = run("good-waiting", "--sbatch", "hold")
    good, bad = run("good"), run("bad")
    for found in (late, killed, again):
        started(found)
    as_user = cluster.run_as
    as_user("abc1de", "scontrol", "update", f"jobid={late['job_id']}", "EndTime=now+5seconds")
    as_user("abc1de", "scancel", killed["job_id"], waiting["job_id"])
    as_user("abc1de", "scontrol", "requeue", again["job_id"])
    address.until(lambda: "RESUBMITTED" in names(again))
    as_user("abc1de", "scancel", again["job_id"])
    address.until(lambda: len(address.requests) >= 14)

    assert names(good) == ["STARTED", "COMPLETED"]
    assert names(bad) == ["STARTED", "FAILED"]
    assert names(late) == ["STARTED", "TIMEOUT"]
    assert names(killed) == ["STARTED", "CANCELLED"]
    assert names(waiting) == ["CANCELLED"]
    assert names(again) == ["STARTED", "RESUBMITTED", "CANCELLED"]
    assert names(hungry) == ["STARTED", "OUT_OF_MEMORY"]
    ids = [event["id"] for event in address.events]
    assert len(set(ids)) == len(ids)
    codes = {event["run"]: event.get("exit_code") for event in address.events}
    assert (codes[good["run_id"]], codes[bad["run_id"]]) == (0, 3)


def test_where_no_job_may_follow_ps_tells(cluster: Any, tmp_path: Path, address: Address) -> None:
    """A site that nobody has described: one job for a run, the end is told by `ps`, once.

    Meanwhile the secret is looked for in every process's arguments, and afterwards in every file.
    """
    here = webhook(cluster, tmp_path, address, "generic")
    app = repository(tmp_path / "work/late", {"x": ""})
    lists: set[bytes] = set()
    address.delay = 1.0

    def told(count: int) -> bool:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lists.add(entry.read_bytes())
            except OSError:
                continue  # it ended meanwhile
        return len(address.told(found["run_id"])) == count

    found = here.submit("--name", "rv-long", "sleep", "100", cwd=app)
    events = f"/scratch/abc1de/.rv/runs/{found['run_id']}/notify"
    # a job that is killed while it sends would send again, under the same id
    address.until(lambda: told(1) and "start.sent" in cluster.exec("ls", events).stdout)
    queue = cluster.exec("squeue", "--noheader", "--format=%j %k").stdout
    assert [line.split()[0] for line in queue.splitlines()] == ["rv-long"]
    cluster.run_as("abc1de", "scancel", found["job_id"])
    here.await_state(found["run_id"], "CANCELLED")
    address.until(lambda: told(2))
    address.delay = 0.0
    here.run("ps")
    assert address.told(found["run_id"]) == ["STARTED", "CANCELLED"]
    assert any(b"--write-out" in line and b"--config" in line for line in lists)
    assert not [line for line in lists if SECRET.encode() in line]
    holders = cluster.exec("grep", "-rl", SECRET, "/home", "/scratch", "/var/log", "/tmp").stdout
    assert holders.split() == ["/scratch/abc1de/.rv/env/notify"]
    mode = cluster.exec("stat", "-c", "%a %U", "/scratch/abc1de/.rv/env/notify").stdout
    assert mode.strip() == "600 abc1de"


def test_a_job_behind_that_is_refused_holds_no_run_back(
    cluster: Any, tmp_path: Path, address: Address
) -> None:
    """The run is submitted once, the user told so, and a scheduled keepalive tells of the end."""
    here = webhook(cluster, tmp_path, address)
    app = repository(tmp_path / "work/held", {"good.py": ""})
    cluster.exec("sacctmgr", "-i", "modify", "user", "abc1de", "set", "MaxSubmitJobs=1")
    try:
        found = here.submit("--sbatch", "hold", "good.py", cwd=app)
    finally:
        cluster.exec("sacctmgr", "-i", "modify", "user", "abc1de", "set", "MaxSubmitJobs=-1")
    assert "no job behind this one will tell" in found["said"]
    queue = cluster.exec("squeue", "--noheader", "--format=%j").stdout.split()
    assert queue == ["rv-good"]
    cluster.run_as("abc1de", "scancel", found["job_id"])
    asked = ("sacct", "-nXP", "-o", "state", "-j", found["job_id"])
    address.until(lambda: "CANCELLED" in cluster.exec(*asked).stdout)
    assert address.told(found["run_id"]) == []
    here.run("keepalive", "run", "--scheduled")
    address.until(lambda: address.told(found["run_id"]) == ["CANCELLED"])
