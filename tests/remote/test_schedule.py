"""schedule.sh and scheduled.sh: tables of cron and chains of jobs, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from harness import Account, said

from rvstate import cron, schedule
from rvstate.schedule import Plain
from rvstate.script import Answer, Script
from rvstate.shell import printf_b

FOREIGN = "# mine: 100% \\ \udce9\n\n0 0 1 1 * true\n"

# A table in a file, as cron's own program keeps it; `broken` in its name's place makes -l fail.
_TABLE = """#!/bin/sh
table={table}
case $1 in
    -l)
        if [ -e "$table.broken" ]; then echo "{name}: Permission denied" >&2; exit 1; fi
        if ! [ -e "$table" ]; then echo "no crontab for someone" >&{stream}; exit 1; fi
        cat "$table" ;;
    -r) rm "$table" ;;
    -) cat >"$table.new" && mv "$table.new" "$table" ;;
esac
"""
# A queue in a file, "JOB PENDING BEGIN COMMENT"; sbatch keeps what it was given.
_QUEUE = {
    "squeue": 'if [ -e {queue}.broken ]; then echo "no controller" >&2; exit 1; fi; '
    "touch {queue}; cat {queue}",
    "sbatch": "n=$(cat {queue}.n 2>/dev/null); n=$((${{n:-0}} + 1)); echo $n >{queue}.n; "
    'printf "%s\\n" "$@" >{queue}.args; echo "$n PENDING 5 rvstate-keepalive" >>{queue}; echo $n',
    "scancel": 'sed -i "/^$1 /d" {queue}',
}


@pytest.fixture
def there(account: Account) -> Account:
    """An account on a node with cron, scrontab and a queue."""
    return equipped(account)


def equipped(account: Account) -> Account:
    tools = account.root / "tools"
    tools.mkdir()
    for name, stream in (("crontab", 2), ("scrontab", 1)):
        text = _TABLE.format(table=account.root / name, name=name, stream=stream)
        (tools / name).write_text(text)
    for name, text in _QUEUE.items():
        (tools / name).write_text(f"#!/bin/sh\n{text.format(queue=account.root / 'queue')}\n")
    for path in tools.iterdir():
        path.chmod(0o755)
    account.path = f"{tools}:{account.path}"
    return account


def place(account: Account) -> Path:
    return account.rv / "schedule"


def program(account: Account) -> str:
    """What the schedule runs: a real keepalive of this account."""
    fixed = ("touch", account.scratch, account.home, "atime", "90", "", "", "uv")
    return schedule.program(Script("keepalive", tuple(map(str, fixed))), "04:17", ("--account=l",))


def escaped(text: str) -> str:
    return printf_b(text.encode("utf-8", "surrogateescape"))


def table(account: Account, name: str = "crontab") -> str | None:
    path = account.root / name
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else None


def write(account: Account, text: str, name: str = "crontab") -> None:
    (account.root / name).write_bytes(text.encode("utf-8", "surrogateescape"))


def words(account: Account, how: str, *changes: tuple[str, str, str, str]) -> tuple[object, ...]:
    """Arguments: the kind, and (verb, what, the text now, the text then)."""
    found: list[object] = [account.lock, 0, place(account), how, "04:17", escaped(program(account))]
    for verb, what, now, then in changes:
        digest = hashlib.sha256(now.encode("utf-8", "surrogateescape")).hexdigest()
        found += [verb, what, digest, escaped(then)]
    return tuple(found)


def change(account: Account, how: str, *changes: tuple[str, str, str, str]) -> list[str]:
    return said(account.run("schedule", *words(account, how, *changes)))


def ours(account: Account, text: str = FOREIGN) -> str:
    plain = Plain("me", (), {}, "", Script("keepalive"), (), "04:17")
    path = str(place(account))
    return cron.put(text, path, schedule.lines("remote-cron", "04:17", plain, path))


def look(account: Account, kinds: str = "") -> Answer:
    return account.run("probe", account.scratch, account.home, "schedule", kinds)


@pytest.mark.parametrize(("how", "name"), [("remote-cron", "crontab"), ("scrontab", "scrontab")])
def test_put_there_and_taken_out(there: Account, how: str, name: str) -> None:
    """Foreign bytes stay, a second time changes nothing, and nothing of ours is left behind."""
    write(there, FOREIGN, name)
    wanted = ours(there)
    install = ("install", how, FOREIGN, wanted)
    assert change(there, how, install) == ["done 0 "]
    assert table(there, name) == wanted
    assert (place(there) / "run").read_text() == program(there)
    assert (place(there) / "record").read_text().split()[::2] == [how, "04:17"]
    assert change(there, how, install) == ["done 0 "]
    assert change(there, "-", ("remove", how, wanted, FOREIGN)) == ["done 0 "]
    assert table(there, name) == FOREIGN
    assert not place(there).exists()


def test_what_somebody_put_beside_it_stays(there: Account) -> None:
    """Ours goes, also what a killed run left; a file of the user's does not, nor its directory."""
    write(there, FOREIGN)
    wanted = ours(there)
    assert change(there, "remote-cron", ("install", "remote-cron", FOREIGN, wanted)) == ["done 0 "]
    (place(there) / "mine").write_text("mine")
    (place(there) / "run.rvstate-tmp-1").write_text("half")
    assert change(there, "-", ("remove", "remote-cron", wanted, FOREIGN)) == ["done 0 "]
    assert [path.name for path in place(there).iterdir()] == ["mine"]


def test_where_there_was_no_table_there_is_none(there: Account) -> None:
    """A table that held only our lines goes with them."""
    wanted = ours(there, "")
    assert change(there, "remote-cron", ("install", "remote-cron", "", wanted)) == ["done 0 "]
    assert table(there) == wanted
    assert change(there, "-", ("remove", "remote-cron", wanted, "")) == ["done 0 "]
    assert table(there) is None


@pytest.mark.parametrize(("how", "name"), [("remote-cron", "crontab"), ("scrontab", "scrontab")])
def test_a_failing_read_writes_nothing(there: Account, how: str, name: str) -> None:
    """Writing works, reading does not: the user's own lines survive."""
    write(there, FOREIGN, name)
    (there.root / f"{name}.broken").touch()
    for now in (FOREIGN, ""):
        (line,) = change(there, how, ("install", how, now, ours(there, "")))
        assert line.startswith("failed 0 ")
        assert "Permission denied" in line
    assert table(there, name) == FOREIGN


def test_what_changed_since_the_look_is_left_alone(there: Account) -> None:
    """Somebody edited the table meanwhile: their line stays, and ours waits for the next look."""
    write(there, FOREIGN + "5 5 * * * new\n")
    (line,) = change(there, "remote-cron", ("install", "remote-cron", FOREIGN, ours(there)))
    assert "changed since the look" in line
    assert table(there) == FOREIGN + "5 5 * * * new\n"


def test_a_link_in_the_way_is_not_followed(there: Account) -> None:
    """What is not ours is not written through."""
    elsewhere = there.root / "elsewhere"
    elsewhere.mkdir()
    place(there).symlink_to(elsewhere)
    (line,) = change(there, "remote-cron", ("install", "remote-cron", "", ours(there, "")))
    assert "link" in line
    assert list(elsewhere.iterdir()) == []
    assert table(there) is None


def test_killed_anywhere_it_is_finished_by_the_next(bash_account: Account) -> None:
    """The table is the old one or the new one at every moment, and what was begun is found."""
    account = equipped(bash_account)
    wanted = ours(account)
    install = words(account, "remote-cron", ("install", "remote-cron", FOREIGN, wanted))
    remove = words(account, "-", ("remove", "remote-cron", wanted, FOREIGN))
    for arguments, before, after in ((install, FOREIGN, wanted), (remove, wanted, FOREIGN)):
        number = 0
        while True:
            write(account, before)
            if arguments is remove:
                assert change(account, "remote-cron", ("install", "remote-cron", before, before))
            number += 7
            if not account.killed_at_command(number, "schedule", *arguments):
                break
            assert table(account) in (before, after)
            if table(account) == wanted:
                assert (place(account) / "record").exists()
            assert said(account.run("schedule", *arguments)) == ["done 0 "], number
            assert table(account) == after
        assert number > 7


def test_one_job_waits_never_two(there: Account) -> None:
    """A chain is started once, its job submits one more and no other, and it ends when told to."""
    start = ("install", "sbatch-chain", "", "")
    assert change(there, "sbatch-chain", start) == ["done 0 "]
    assert change(there, "sbatch-chain", start) == ["done 0 "]
    assert table(there, "queue") == "1 PENDING 5 rvstate-keepalive\n"
    sent = (there.root / "queue.args").read_text().splitlines()
    assert {"--begin=04:17", "--account=l", "--comment=rvstate-keepalive"} <= set(sent)
    assert sent[-2:] == ["sbatch-chain", str(place(there))]
    for _ in range(2):
        # as Slurm starts it: a copy elsewhere, with its own number
        copy = there.root / "slurm_script"
        copy.write_text(program(there))
        run(there, copy, "sbatch-chain", SLURM_JOB_ID="1")
    assert table(there, "queue") == "1 PENDING 5 rvstate-keepalive\n2 PENDING 5 rvstate-keepalive\n"
    assert change(there, "-", ("remove", "sbatch-chain", "", "")) == ["done 0 "]
    assert table(there, "queue") == ""


def test_where_the_queue_is_silent_nothing_is_submitted(there: Account) -> None:
    """No answer is not an empty queue, neither for a start nor for an end."""
    (there.root / "queue.broken").touch()
    for how, verb in (("sbatch-chain", "install"), ("-", "remove")):
        # three tries with pauses are for the job in the night
        fast = there.root / "tools" / "sleep"
        fast.write_text("#!/bin/sh\n")
        fast.chmod(0o755)
        (line,) = change(there, how, (verb, "sbatch-chain", "", ""))
        assert "the queue does not answer" in line
    assert table(there, "queue.n") is None


def run(account: Account, path: Path, how: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program as cron or Slurm does: nearly without an environment."""
    env = {"HOME": str(account.home), "USER": "someone", "PATH": os.defpath, **more}
    command = [account.shell, str(path), how, str(place(account))]
    return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)


def test_what_runs_renews_dates_and_says_so(there: Account) -> None:
    """Started as by cron it touches what is old, keeps how it went, and prints nothing."""
    change(there, "remote-cron", ("install", "remote-cron", "", ours(there, "")))
    path = there.scratch / ".cache/uv/x"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (1e9, 1e9))
    done = run(there, place(there) / "run", "remote-cron")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert path.stat().st_atime > 1.5e9
    kept = (place(there) / "last").read_text()
    assert "status 0\ndamaged 0\n" in kept
    assert "found 1" in (place(there) / "log").read_text()
    report = account_report(there)
    assert report["schedule"].split()[::2] == ["remote-cron", "04:17"]
    assert "status 0" in report["scheduled"]


def account_report(account: Account) -> dict[str, str]:
    found: dict[str, str] = {}
    answer = account.run("keepalive", "recall", account.scratch, account.home, *("",) * 4)
    for line in answer.body.decode().splitlines():
        word, _, rest = line.partition(" ")
        found[word] = f"{found.get(word, '')}{rest}\n"
    return found


def test_what_is_no_longer_declared_does_nothing(there: Account) -> None:
    """A line that somebody copied, or a job from before, finds that another kind is declared."""
    change(there, "remote-cron", ("install", "remote-cron", "", ours(there, "")))
    done = run(there, place(there) / "run", "scrontab")
    assert done.returncode == 0
    assert not (place(there) / "last").exists()


def test_a_run_that_fails_says_why(there: Account) -> None:
    """Its status and our own sentence are kept for `keepalive status`."""
    change(there, "remote-cron", ("install", "remote-cron", "", ours(there, "")))
    (there.rv / "keepalive").write_text("in the way")
    done = run(there, place(there) / "run", "remote-cron")
    assert done.returncode == 1
    kept = (place(there) / "last").read_text()
    assert "status 1\n" in kept
    assert "said " in kept
    assert "cannot be made" in kept


def test_a_scheduled_verification_counts_what_is_damaged(there: Account) -> None:
    """Mode heal: what a purge took is stamped for the next look and counted for status."""
    scripts = there.rv / "lib" / ("0" * 16)
    scripts.mkdir(parents=True)
    (scripts / "job.sh").write_text("x")
    fixed = (str(there.scratch), str(there.home), "no digest", scripts.name)
    text = schedule.program(Script("verify", fixed), "04:17", ())
    place(there).mkdir()
    (place(there) / "run").write_text(text)
    (place(there) / "record").write_text("scrontab node 04:17\n")
    assert run(there, place(there) / "run", "scrontab").returncode == 0
    assert "status 0\ndamaged 1\n" in (place(there) / "last").read_text()
    assert "damaged 1" in account_report(there)["scheduled"]


def test_the_look_pays_only_where_there_is_one(there: Account) -> None:
    """Without a record and without a wish nothing is asked; with a record its kind is, always."""
    for name in ("crontab", "scrontab", "squeue"):
        tool = there.root / "tools" / name
        tool.write_text(f"#!/bin/sh\ntouch {there.root}/asked-{name}\n" + tool.read_text()[10:])
    asked = sorted(p.name for p in there.root.glob("asked-*"))
    assert not any(name.startswith("schedule") for name, _ in look(there).sections)
    assert sorted(p.name for p in there.root.glob("asked-*")) == asked == []
    place(there).mkdir()
    (place(there) / "record").write_text("scrontab node 04:17\n")
    sections = dict(look(there).sections)
    assert sections["schedule-record 0"] == b"scrontab node 04:17"
    assert sections["schedule-scrontab 0"] == b"no crontab for someone\n"
    assert sections["schedule-scrontab-end 0"].startswith(b"1\n")
    assert [p.name for p in there.root.glob("asked-*")] == ["asked-scrontab"]


def test_the_look_says_tables_to_the_byte(there: Account) -> None:
    """What stands in a table arrives as it is; what fails says so."""
    write(there, FOREIGN + "\n\n")
    (there.root / "queue.broken").touch()
    (there.root / "tools" / "scrontab").unlink()
    sections = dict(look(there, "remote-cron scrontab sbatch-chain").sections)
    text = sections["schedule-remote-cron 0"].decode("utf-8", "surrogateescape")
    assert text == FOREIGN + "\n\n"
    assert sections["schedule-remote-cron-end 0"] == b"0\n"
    assert sections["schedule-scrontab-end 0"] == b"127\nthere is no scrontab"
    assert sections["schedule-sbatch-chain-end 0"] == b"1\nno controller"
