"""Who is told about runs on the embedded default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runkit import Laptop, repository
from tests.webhook import SECRET, Address

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def address() -> Iterator[Address]:
    found = Address()
    yield found
    found.close()


def laptop(tmp_path: Path, address: Address, enabled: str = "true") -> Laptop:
    return Laptop(
        tmp_path / "laptop",
        f'[notifications]\nenabled = {enabled}\nurl = "{address.url}"\ntoken = "{SECRET}"\n',
    )


def test_a_process_is_told_of_at_its_start_and_end(tmp_path: Path, address: Address) -> None:
    """Done, failed, ended by its user, and out of time: the scheduler's end tells."""
    here = laptop(tmp_path, address)
    app = repository(
        tmp_path / "work/app",
        {"good.py": "", "bad.py": "raise SystemExit(3)\n", "long.py": SLEEPER},
    )
    wanted = {}
    for words, events in (
        (("good.py",), ["STARTED", "COMPLETED"]),
        (("bad.py",), ["STARTED", "FAILED"]),
        (("--time", "0:00:01", "long.py"), ["STARTED", "TIMEOUT"]),
        (("long.py",), ["STARTED", "CANCELLED"]),
    ):
        found = here.submit(*words, cwd=app)
        wanted[found["run_id"]] = events
        if events[-1] == "CANCELLED":
            address.until(lambda: address.told(found["run_id"]) == ["STARTED"])  # noqa: B023
            here.run("stop", "-y", found["job_id"])
        address.until(lambda: len(address.told(found["run_id"])) == 2)  # noqa: B023
    assert {run: address.told(run) for run in wanted} == wanted
    secret = here.home / "local/scratch/.rv/env/notify"
    assert secret.stat().st_mode & 0o777 == 0o600
    holders = {
        p.name
        for p in here.home.rglob("*")
        if p.is_file() and SECRET in p.read_text("utf-8", "replace")
    }
    assert holders == {"config.toml", "notify"}


def test_what_was_not_told_is_told_by_ps(tmp_path: Path, address: Address) -> None:
    """The address was away when the run ended."""
    here = laptop(tmp_path, address)
    app = repository(tmp_path / "work/app", {"good.py": ""})
    address.answers[:] = [403, 403]
    found = here.submit("good.py", cwd=app)
    address.until(lambda: len(address.requests) == 2)
    events = here.home / "local/scratch/.rv/runs" / found["run_id"] / "notify"
    address.until(lambda: not (events / "lock").is_symlink())
    assert (events / "due").exists()
    here.run("ps")
    address.until(lambda: (events / "told").exists())
    before = len(address.requests)
    here.run("ps")
    assert address.names()[-2:] == ["STARTED", "COMPLETED"]
    assert len({event["id"] for event in address.events}) == 2
    assert len(address.requests) == before


def test_switched_off_the_secret_leaves_the_account(tmp_path: Path, address: Address) -> None:
    """`enabled = false` empties the file, and a run tells nobody."""
    here = laptop(tmp_path, address)
    here.run("converge", "-y")
    file = here.home / "local/scratch/.rv/env/notify"
    assert SECRET in file.read_text()
    laptop_off = (here.home / "config.toml").read_text().replace("= true", "= false")
    (here.home / "config.toml").write_text(laptop_off)
    app = repository(tmp_path / "work/app", {"good.py": ""})
    found = here.submit("good.py", cwd=app)
    here.await_state(found["run_id"], "COMPLETED")
    assert file.read_text() == ""
    assert not (here.home / "local/scratch/.rv/runs" / found["run_id"] / "notify").exists()
    assert address.requests == []


def test_a_test_event_says_what_is_wrong(tmp_path: Path, address: Address) -> None:
    """Not on the account yet, refused, nobody there, taken."""
    here = laptop(tmp_path, address)
    assert "Run `rvstate converge`" in here.run("notify", "test", status=3).stderr
    here.run("converge", "-y")
    address.answers[:] = [403]
    assert "another secret" in here.run("notify", "test", status=3).stderr
    assert here.document("notify", "test")["status"] == 200
    assert address.names()[-1] == "TEST"
    address.close()
    assert "was not reached" in here.run("notify", "test", status=1).stderr


def test_what_cannot_work_is_said(tmp_path: Path) -> None:
    """No Slurm to send mail; no secret to sign with."""
    here = Laptop(tmp_path / "a", '[notifications]\nenabled = true\nemail = "me@example.org"\n')
    app = repository(tmp_path / "work/app", {"good.py": ""})
    assert "has no Slurm to send mail" in here.submit("good.py", cwd=app)["said"]
    here = Laptop(tmp_path / "b", '[notifications]\nenabled = true\nurl = "https://x.example"\n')
    said = here.run("run", "good.py", cwd=app, status=None).stderr
    assert "no token to sign events with" in said
    assert "rvstate init --notify-url" in said
