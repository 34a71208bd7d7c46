"""notify.sh: what is told of a run, once, signed, by whom."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate import assets, notification
from tests.webhook import SECRET, Address

RUN = "20260102-030405-0a1b2c3d"
pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl sends the events, and this machine has none"
)


@pytest.fixture
def address() -> Iterator[Address]:
    found = Address()
    yield found
    found.close()


@pytest.fixture(params=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> str:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"this machine has no {request.param}")
    return found


@pytest.fixture
def run(tmp_path: Path, address: Address) -> Path:
    """A run's directory as submission leaves it, and a `sleep` that does not."""
    rv = tmp_path / "od d'$/rv"
    found = rv / "runs" / RUN
    (found / "notify").mkdir(parents=True)
    (rv / "env").mkdir()
    (rv / "env/notify").write_text(f"{address.url}\n{SECRET}\n")
    base = notification.base(
        run_id=RUN, name='rv-"tr\\ain é', project="p", cluster="me@c", user="me"
    )
    (found / "notify/base").write_text(base)
    (found / "notify/due").write_text("due\n")
    (found / "job").write_text("41\n")
    (tmp_path / "lib").mkdir()
    for name in ("lib", "notify"):
        (tmp_path / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
    fake(tmp_path, "sleep", 'echo "$1" >>"$SLEPT"')
    return found


def fake(place: Path, name: str, text: str) -> None:
    (place / "bin").mkdir(exist_ok=True)
    program = place / "bin" / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def call(shell: str, run: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What the job, or what runs behind it, does."""
    place = run.parents[3]
    text = '. "$0/lib.sh"; . "$0/notify.sh"; main "$@"'
    clean = {"HOME": str(place), "RV_JOB_ID": "41", "SLEPT": str(place / "slept"), **env}
    return subprocess.run(
        [shell, "-c", text, str(place / "lib"), *words],
        env={**clean, "PATH": f"{place / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def ended(shell: str, run: Path, state: str, code: str = "", status: int = 0) -> None:
    done = call(shell, run, "ended", str(run), f"{run}/err-", state, code)
    assert done.returncode == status, done.stderr


def left(run: Path) -> set[str]:
    return {path.name for path in (run / "notify").iterdir() if not path.name.startswith(".")}


def test_a_run_tells_of_its_start_and_its_end(shell: str, run: Path, address: Address) -> None:
    """Every field is there and signed; names survive; nothing is told a second time."""
    call(shell, run, "started", str(run))
    address.until(lambda: "41.0.start.sent" in left(run))
    ended(shell, run, "COMPLETED", "0")
    ended(shell, run, "COMPLETED", "0")
    assert address.names() == ["STARTED", "COMPLETED"]
    start, end = address.events
    assert start["id"] == f"{RUN}:41.0.start"
    assert {k: end[k] for k in end.keys() - {"at", "node"}} == {
        "schema": 1,
        "run": RUN,
        "name": 'rv-"tr\\ain é',
        "project": "p",
        "cluster": "me@c",
        "user": "me",
        "id": f"{RUN}:41.end",
        "event": "COMPLETED",
        "state": "COMPLETED",
        "job": "41",
        "exit_code": 0,
    }
    assert abs(end["at"] - time.time()) < 600
    assert left(run) == {"base", "told", "41.0.start.sent", "41.end.sent"}


def test_an_event_that_is_being_sent_is_sent_whole(shell: str, run: Path, address: Address) -> None:
    """Who tells of the end takes it over by its name, at any moment."""
    take = 'for f in *.job; do mv "$f" "${f%.job}.new"; done'
    fake(run.parents[3], "curl", f'{take}\nexec {shutil.which("curl")} "$@"')
    call(shell, run, "started", str(run))
    address.until(lambda: bool(address.requests))
    assert address.names() == ["STARTED"]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("FAILED", "FAILED"),
        ("NODE_FAIL", "FAILED"),
        ("TIMEOUT", "TIMEOUT"),
        ("DEADLINE", "TIMEOUT"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("CANCELLED", "CANCELLED"),
    ],
)
def test_the_state_decides_the_event(run: Path, address: Address, state: str, event: str) -> None:
    """A job that was killed cannot say so itself; the scheduler's word is in the event too."""
    ended("sh", run, state)
    (found,) = address.events
    assert (found["event"], found["state"]) == (event, state)


def test_out_of_memory_is_read_from_the_log_where_the_state_does_not_say_it(
    run: Path, address: Address
) -> None:
    """As `rvstate logs -f` does."""
    (run / "err-41.err").write_text("slurmstepd: error: StepId=41.0 exceeded memory limit\n")
    ended("sh", run, "FAILED", "137")
    assert address.names() == ["OUT_OF_MEMORY"]


@pytest.mark.parametrize(("record", "event"), [("0 17\n", "COMPLETED"), ("3 17\n", "FAILED")])
def test_the_jobs_own_record_counts_where_nobody_knows(
    run: Path, address: Address, record: str, event: str
) -> None:
    """No controller and no accounting: what the job wrote down last."""
    (run / "exit").write_text(record)
    for name in ("scontrol", "sacct"):
        fake(run.parents[3], name, "exit 1")
    ended("sh", run, "-")
    (found,) = address.events
    assert (found["event"], found["exit_code"]) == (event, int(record.split()[0]))


def test_slurm_is_asked_until_the_job_has_ended(run: Path, address: Address) -> None:
    """COMPLETING is not an end; a name that looks like a state is none."""
    fake(
        run.parents[3],
        "scontrol",
        'n=$(cat "$HOME/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$HOME/n"\n'
        'if [ "$n" = 0 ]; then s=COMPLETING; else s=TIMEOUT; fi\n'
        'printf "JobId=41 JobName= JobState=FAILED\\n   JobState=$s Reason=None\\n"',
    )
    ended("sh", run, "-")
    assert address.names() == ["TIMEOUT"]


def test_a_requeued_job_says_that_it_starts_again(run: Path, address: Address) -> None:
    """Each start has an id of its own."""
    call("sh", run, "started", str(run))
    address.until(lambda: "41.0.start.sent" in left(run))
    call("sh", run, "started", str(run), SLURM_RESTART_COUNT="1")
    address.until(lambda: "41.1.start.sent" in left(run))
    assert address.names() == ["STARTED", "RESUBMITTED"]
    assert len({event["id"] for event in address.events}) == 2


def test_an_address_in_trouble_is_tried_again_with_pauses(run: Path, address: Address) -> None:
    """Longer each time; then the event is taken, once."""
    address.answers[:] = [500, 429, 503]
    ended("sh", run, "FAILED", "1")
    assert (run.parents[3] / "slept").read_text().split() == ["2", "8", "30"]
    assert [json.loads(body)["id"] for _, body in address.requests] == [f"{RUN}:41.end"] * 4
    assert "41.end.sent" in left(run)


def test_a_refusal_is_not_repeated_but_stays_for_the_next_time(run: Path, address: Address) -> None:
    """A wrong secret does not mend itself in seconds; nothing is lost meanwhile."""
    address.answers[:] = [403]
    ended("sh", run, "FAILED", "1", status=1)
    assert len(address.requests) == 1
    assert {"41.end.new", "due"} <= left(run)
    ended("sh", run, "-")
    assert address.names() == ["FAILED", "FAILED"]
    assert left(run) == {"base", "told", "41.end.sent"}


def test_what_a_killed_job_was_sending_is_sent_behind_it(run: Path, address: Address) -> None:
    """The start first, then the end."""
    (run / "notify/41.0.start.job").write_text('{"event":"STARTED","run":"x"}\n')
    ended("sh", run, "CANCELLED")
    assert address.names() == ["STARTED", "CANCELLED"]


def test_a_start_that_is_being_told_comes_once(run: Path, address: Address) -> None:
    """A job may be over before the answer of its start is there."""
    fake(run.parents[3], "sleep", f'exec {shutil.which("sleep")} "$1"')
    address.delay = 0.7
    call("sh", run, "started", str(run))
    ended("sh", run, "COMPLETED", "0")
    assert address.names() == ["STARTED", "COMPLETED"]


def test_several_at_once_tell_once(run: Path, address: Address) -> None:
    """The job behind the run, and two `ps` in the same moment."""
    threads = [threading.Thread(target=ended, args=("sh", run, "COMPLETED", "0")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert address.names() == ["COMPLETED"]


def test_a_dead_teller_holds_nobody_up(run: Path, address: Address) -> None:
    """Its lock names a process that is gone."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (run / "notify/lock").symlink_to(f"{os.uname().nodename} {boot} 999999999 1")
    ended("sh", run, "COMPLETED", "0")
    assert address.names() == ["COMPLETED"]


@pytest.mark.parametrize("where", range(1, 40, 3))
def test_killed_anywhere_it_is_told_by_the_next(run: Path, address: Address, where: int) -> None:
    """Of two attempts one is killed before its n-th command: the event is there, with one id."""
    text = (
        f"n=0; set -T; trap 'n=$((n+1)); [ $n -ne {where} ] || kill -9 0' DEBUG; "
        '. "$0/lib.sh"; . "$0/notify.sh"; main "$@"'
    )
    place = run.parents[3]
    subprocess.run(
        ["bash", "-c", text, str(place / "lib"), "ended", str(run), f"{run}/e-", "FAILED", "3"],
        env={
            "HOME": str(place),
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "SLEPT": "/dev/null",
        },
        start_new_session=True,
        capture_output=True,
        check=False,
    )
    ended("sh", run, "FAILED", "3")
    assert set(address.names()) == {"FAILED"}
    assert {event["id"] for event in address.events} == {f"{RUN}:41.end"}
    assert "told" in left(run)


def test_without_an_address_nothing_happens(run: Path, address: Address) -> None:
    """An emptied file means that nobody is told any more."""
    (run.parents[1] / "env/notify").write_text("")
    assert call("sh", run, "started", str(run)).returncode == 0
    ended("sh", run, "COMPLETED", "0")
    assert address.requests == []
    assert left(run) == {"base", "due"}


def test_the_secret_is_in_no_argument_list(shell: str, run: Path, address: Address) -> None:
    """Neither plain nor combined with the pads of RFC 2104: every program's arguments are kept."""
    place = run.parents[3]
    for name in ("curl", "od", "sed", "tr", "sha256sum", "cat", "date", "uname"):
        real = shutil.which(name)
        fake(place, name, f'printf "%s\\n" "$@" >>"$HOME/argv"; exec {real} "$@"')
    ended(shell, run, "COMPLETED", "0")
    said = (place / "argv").read_bytes()
    assert b"--config" in said
    assert SECRET.encode() not in said
    for pad in (0x36, 0x5C):
        assert bytes(byte ^ pad for byte in SECRET.encode())[:8] not in said
    assert address.names() == ["COMPLETED"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=64),
    body=st.binary(max_size=300),
)
def test_the_signature_is_hmac_sha256(
    shell: str, tmp_path_factory: pytest.TempPathFactory, secret: str, body: bytes
) -> None:
    """Of any secret and any bytes, as Python's own hmac has it."""
    import hmac

    place = tmp_path_factory.mktemp("sign")
    (place / "settings").write_text(f"http://x\n{secret}\n")
    (place / "body").write_bytes(body)
    for name in ("lib", "notify"):
        (place / f"{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
    done = subprocess.run(
        [shell, "-c", ". ./lib.sh; . ./notify.sh; settings=settings; sign 1700000000 body"],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    signed = b"v1:1700000000:" + body
    assert done.stdout == hmac.new(secret.encode(), signed, "sha256").hexdigest()


def test_an_array_is_told_of_as_one_run(run: Path, address: Address) -> None:
    """Its first element says that it started; all having ended, the worst end is told."""
    for number in ("41_3", "41_1"):
        call("sh", run, "started", str(run), RV_JOB_ID=number)
    address.until(lambda: "41.0.start.sent" in left(run))
    fake(
        run.parents[3],
        "scontrol",
        'n=$(cat "$HOME/n" 2>/dev/null || echo 0); echo $((n + 1)) >"$HOME/n"\n'
        'if [ "$n" = 0 ]; then s=RUNNING; else s=CANCELLED; fi\n'
        'printf "JobId=42 ArrayJobId=41\\n   JobState=%s Reason=None\\n" COMPLETED TIMEOUT $s',
    )
    ended("sh", run, "-")
    assert address.names() == ["STARTED", "TIMEOUT"]


def test_a_total_time_that_is_used_up_is_a_timeout(run: Path, address: Address) -> None:
    """Slurm knows only that the last segment ended with 124."""
    (run / "exit").write_text("124 17 total\n")
    ended("sh", run, "FAILED", "124")
    assert address.names() == ["TIMEOUT"]
