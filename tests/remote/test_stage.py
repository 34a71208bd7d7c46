"""The steps of a stage's job, and the look at what stages have done."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rvstate import assets, staging
from rvstate.script import Answer, Script
from rvstate.shell import quote
from rvstate.staging import Known, Record
from tests.runkit import program, run

RUN = "20260102-030405-0a1b2c01"
STEPS = """#!/bin/bash
. {lib}/job.sh || exit 1
rv_begin {rv} {run} p-make
rv_variables {root}/user.env
rv_directory {snapshot} '' ''
. {lib}/stage.sh || exit 1
rv_stage {data} make 'code {code}' 'command 1f'
rv_stage_env 'WHAT=the stage'\\''s'
rv_after before
rv_inputs raw.txt
rv_outputs made.txt 'many/of them'
rv_folders 'many/of them'
rv_links raw.txt made.txt many
rv_enter
rv_stage_begin {lib}{same}
rv_run bash -c {command}
"""
GOOD = "cat raw.txt >made.txt && echo 1 >'many/of them/1'"


class Place:
    """Directories as converge makes them, a snapshot, and a pipeline's directory with an input."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lib", "rv/logs", f"rv/runs/{RUN}", "snapshot", "data"):
            (root / name).mkdir(parents=True)
        for name in ("job.sh", "stage.sh", "lib.sh"):
            (root / "lib" / name).write_text(assets.job_scripts()[name])
        (root / "data/raw.txt").write_text("raw\n")
        (root / "user.env").write_text("export WHAT=user\n")
        self.data = root / "data"
        self.same = ""
        self.code = "0f"
        self.stage = root / "data/.rvstate/stages/make"

    def argv(self, command: str) -> list[str]:
        path = self.root / "job.sh"
        path.write_text(
            STEPS.format(
                root=self.root,
                lib=self.root / "lib",
                rv=self.root / "rv",
                run=self.root / "rv/runs" / RUN,
                snapshot=self.root / "snapshot",
                data=self.data,
                same=self.same,
                code=self.code,
                command=quote(command),
            )
        )
        return ["bash", str(path)]

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.root), "RV_JOB_ID": "41"}

    def job(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run the job to its end."""
        return subprocess.run(
            self.argv(command), env=self.env, cwd=self.root, capture_output=True, text=True
        )

    def look(self, queue: str = ":") -> Answer:
        """What the plan would be told."""
        paths = "raw.txt\nmade.txt\nmany/of them\nnothing"
        asked = (str(self.root), str(self.root), str(self.data), str(self.root / "rv/runs"))
        ran = run(Script("stages", (*asked, queue, "make\nnever", paths)))
        assert ran.answer is not None, ran
        return ran.answer

    def record(self) -> Record | None:
        return staging.read(self.look()).records.get("make")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_success_is_recorded_with_what_it_read_and_made(place: Place) -> None:
    """And only a plan that finds the same says so; a stage that never ran has no record."""
    done = place.job(GOOD)
    assert done.returncode == 0, done.stderr
    known = staging.read(place.look())
    record = known.records["make"]
    assert record is not None
    assert "never" not in known.records
    assert (record.run_id, record.key) == (RUN, {"code": "0f", "command": "1f"})
    assert record.after == {"before": ""}
    assert record.inputs == {"raw.txt": digest("raw\n")}
    assert record.outputs == {
        "made.txt": digest("raw\n"),
        "many/of them": known.digests["many/of them"],
    }
    assert {**record.inputs, **record.outputs}.items() <= known.digests.items()
    assert known.digests["nothing"] is None
    assert known.active == ()


def test_inputs_count_as_they_were_when_it_began(place: Place) -> None:
    """One that changes while it runs makes it run again: nobody knows which of the two it read."""
    assert place.job(f"{GOOD} && echo new >{place.data}/raw.txt").returncode == 0
    record = place.record()
    assert record is not None
    assert record.inputs["raw.txt"] == digest("raw\n")


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("exit 3", 3, ""),
        ("echo 1 >made.txt; rm -r 'many/of them'", 1, "output many/of them is not in"),
        ("true", 1, "output made.txt is not in"),
    ],
)
def test_what_does_not_succeed_is_not_done(
    place: Place, command: str, status: int, says: str
) -> None:
    """Whatever it had made before; an end without the outputs is a failure."""
    assert place.job(GOOD).returncode == 0
    (place.data / "made.txt").unlink()
    done = place.job(command)
    assert done.returncode == status
    assert says in done.stderr
    assert (place.root / "rv/runs" / RUN / "exit").read_text().split()[0] == str(status)
    assert place.record() is None
    assert "make" in staging.read(place.look()).records


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_killed_is_not_done(place: Place, number: signal.Signals) -> None:
    """Its record is gone from the moment that it begins."""
    assert place.job(GOOD).returncode == 0
    process = subprocess.Popen(
        place.argv(f"{GOOD}; touch {place.root}/runs; sleep 60"),
        env=place.env,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 30
    while not (place.root / "runs").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait() != 0
    assert place.record() is None


def test_a_stage_without_its_input_does_not_begin(place: Place) -> None:
    """It says which, and the program is not run."""
    (place.data / "raw.txt").unlink()
    done = place.job(f"touch {place.root}/ran")
    assert done.returncode == 1
    assert "input raw.txt is not in" in done.stderr
    assert not (place.root / "ran").exists()


def test_the_stages_own_variables_win(place: Place) -> None:
    """Over the user's, which are for every job; and it knows who and where it is."""
    command = f'{GOOD}; echo "$WHAT $RV_STAGE $RV_PIPELINE_DIR"'
    assert place.job(command).stdout == f"the stage's make {place.data}\n"


def test_a_file_in_the_place_of_a_link_is_the_output(place: Place) -> None:
    """Who writes aside and renames means the name, and the snapshot is no place to keep it."""
    assert place.job(f"{GOOD} && echo new >x && mv x made.txt").returncode == 0
    assert (place.data / "made.txt").read_text() == "new\n"
    link = place.root / "snapshot/made.txt"
    assert (link.is_symlink(), link.read_text()) == (True, "new\n")
    record = place.record()
    assert record is not None
    assert record.outputs["made.txt"] == digest("new\n")


def test_a_directory_in_the_place_of_a_link_is_the_output(place: Place) -> None:
    """Who makes it anew means all of it: nothing of an earlier run is left among what is in it."""
    assert place.job(GOOD).returncode == 0
    anew = (
        "rm -r many && mkdir -p 'many/of them' && echo 2 >'many/of them/2' && cat raw.txt >made.txt"
    )
    done = place.job(anew)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (place.data / "many/of them").iterdir()] == ["2"]
    assert (place.root / "snapshot/many/of them").is_symlink()
    known = staging.read(place.look())
    record = known.records["make"]
    assert record is not None
    assert record.outputs["many/of them"] == known.digests["many/of them"]
    assert sorted(p.name for p in place.stage.iterdir()) == [
        *("former", "marks", "record", "run", "table")
    ]


@pytest.mark.parametrize("after", ["exit 3", "kill -9 $PPID; sleep 5"])
def test_what_a_failed_run_has_left_is_no_output(place: Place, after: str) -> None:
    """A command that finds it there and does nothing has not made it; one that writes it has."""
    lazy = "[ -e made.txt ] || cat raw.txt >made.txt; echo 1 >'many/of them/1'"
    assert place.job(f"printf ra >made.txt; {after}").returncode != 0
    done = place.job(lazy)
    assert done.returncode == 1
    assert "stage make has not written made.txt: it was there before" in done.stderr
    assert f"→ Remove {place.data}/made.txt, or have the command write it anew." in done.stderr
    assert place.record() is None
    # asked again it is the same, and what was left is still there to be looked at
    assert place.job(lazy).returncode == 1
    assert (place.data / "made.txt").read_text() == "ra"
    (place.data / "made.txt").unlink()
    assert place.job(lazy).returncode == 0
    assert (place.data / "made.txt").read_text() == "raw\n"


def test_what_the_last_success_made_still_counts(place: Place) -> None:
    """Whatever has begun since, as long as it holds the same bytes; and the log says so."""
    assert place.job(GOOD).returncode == 0
    assert place.job("exit 3").returncode == 3
    assert place.record() is None
    done = place.job("true")
    assert done.returncode == 0, done.stderr
    assert (
        "has not written made.txt, which is as it was when the stage last succeeded" in done.stderr
    )
    assert place.record() is not None
    assert place.job("echo other >made.txt; exit 3").returncode == 3
    assert place.job("true").returncode == 1


def test_an_empty_directory_is_no_output(place: Place) -> None:
    """It is there because rvstate made it."""
    done = place.job("cat raw.txt >made.txt")
    assert done.returncode == 1
    assert "stage make has written nothing to many/of them" in done.stderr
    assert place.record() is None


def test_a_stage_ends_at_once_where_what_it_reads_came_out_the_same(place: Place) -> None:
    """Only if it succeeded with that, and what it made is as it was; its record stays."""
    ran = place.root / "ran"
    again = f"touch {ran}; {GOOD}"
    place.same = " unless-same"
    # it never succeeded
    assert place.job(again).returncode == 0
    assert ran.exists()
    ran.unlink()
    record = place.record()
    done = place.job(again)
    assert (done.returncode, ran.exists()) == (0, False), done.stderr
    assert f"what it made in run {RUN} holds, and nothing was run" in done.stderr
    assert (place.root / "rv/runs" / RUN / "exit").read_text().split()[0] == "0"
    assert place.record() == record
    changes = {
        "input": lambda: (place.data / "raw.txt").write_text("new\n"),
        "output": lambda: (place.data / "made.txt").write_text("by hand\n"),
        "gone": lambda: (place.data / "many/of them/1").unlink(),
        "code": lambda: setattr(place, "code", "9f"),
        "cut": lambda: (place.stage / "record").write_text(
            (place.stage / "record").read_text().removesuffix("//\n")
        ),
        "whenever": lambda: setattr(place, "same", ""),
    }
    for what, change in changes.items():
        change()
        assert place.job(again).returncode == 0
        assert ran.exists(), what
        ran.unlink()


def test_a_stage_that_must_run_is_not_done_from_its_beginning(place: Place) -> None:
    """Also where it could have ended at once: its record goes before its command begins."""
    place.same = " unless-same"
    assert place.job(GOOD).returncode == 0
    (place.data / "raw.txt").write_text("new\n")
    assert place.job(f"test ! -e {place.stage}/record && exit 3").returncode == 3
    assert place.record() is None


def test_code_is_never_hidden_by_a_link(place: Place) -> None:
    """What is in the snapshot stays what a name means."""
    (place.root / "snapshot/many").mkdir()
    place.job(GOOD)
    assert not (place.root / "snapshot/many").is_symlink()


def test_who_waits_or_runs_is_told_by_the_queue(place: Place) -> None:
    """A stage that was submitted and has not ended; where nobody can tell, there is no answer."""
    place.stage.mkdir(parents=True)
    (place.stage / "run").write_text(f"{RUN}\n")
    (place.root / "rv/runs" / RUN / "job").write_text("17\n")
    found = staging.read(place.look(f"echo 17 PENDING rvstate:{RUN} x"))
    assert found == Known(
        {"make": None},
        {"raw.txt": digest("raw\n"), "made.txt": None, "many/of them": None, "nothing": None},
        (("make", RUN, "17"),),
    )
    assert staging.read(place.look("echo 18 PENDING rvstate:other")).active == ()
    assert place.look("false").status == 1
    (place.root / "rv/runs" / RUN / "exit").write_text("0 1\n")
    assert staging.read(place.look("false")).active == ()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_look_writes_nothing_but_its_table(place: Place, shell: str) -> None:
    """And nothing at all where there is no pipeline yet; absolute paths are read all the same."""
    script = Script(
        "stages",
        (*(str(place.root),) * 2, str(place.root / "gone"), str(place.root), ":", "make",
         f"{place.data}/raw.txt"),
    )  # fmt: skip
    done = subprocess.run([program(shell)], input=script.text, capture_output=True, text=True)
    assert f"{digest('raw' + chr(10))} {place.data}/raw.txt" in done.stdout, done.stderr
    assert not (place.root / "gone").exists()
    place.look()
    assert sorted(p.name for p in (place.data / ".rvstate").iterdir()) == ["table"]
