"""The steps of a run of several segments, as job 41 of a Slurm that only remembers."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rvstate import assets

SCONTROL = """#!/bin/sh
# scontrol as far as chain.sh can tell
folder=${0%/*}
case $1 in
    requeue)
        if [ -e "$folder/refuse" ]; then echo "slurm_requeue error: disabled" >&2; exit 1; fi
        echo "$2" >>"$folder/requeued" ;;
    show) cat "$folder/shown" 2>/dev/null ;;
esac
"""
SAVES = """trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.05; done"""
DEAF = """echo ready; while :; do sleep 0.05; done"""


class Place:
    """A run's directories and a batch script of several segments."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lib", "rv/logs", "run", "bin"):
            (root / name).mkdir(parents=True)
        for name in ("job", "chain"):
            (root / f"lib/{name}.sh").write_text(assets.job_scripts()[f"{name}.sh"])
        for name, text in (("scontrol", SCONTROL), ("squeue", "#!/bin/sh\n"), ("sleep", "")):
            if text:
                (root / "bin" / name).write_text(text)
                (root / "bin" / name).chmod(0o755)

    def start(self, program: str, *, total: int = 7200, retries: int = 0, most: int = 9,
              lead: int = 4, more: str = "") -> subprocess.Popen[str]:  # fmt: skip
        """Begin a segment."""
        (self.root / "program.sh").write_text(program)
        (self.root / "job.sh").write_text(
            f"#!/bin/bash\n. {self.root}/lib/job.sh || exit 1\n"
            f"rv_begin {self.root}/rv {self.root}/run rv-train\n"
            f". {self.root}/lib/chain.sh || exit 1\n"
            f"rv_chain {total} {lead} USR1 {retries} {most}\n{more}\n"
            f"rv_run bash {self.root}/program.sh\n"
        )
        return subprocess.Popen(
            ["bash", str(self.root / "job.sh")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": f"{self.root}/bin:{os.environ['PATH']}",
                "HOME": str(self.root),
                "SLURM_JOB_ID": "41",
            },
            stdin=subprocess.DEVNULL,
        )

    def segment(self, program: str, warn: bool = False, **options: object) -> tuple[int, str, str]:
        """A whole segment, warned once its program is ready; exit code, output and errors."""
        process = self.start(program, **options)  # type: ignore[arg-type]
        if warn:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def requeued(self) -> int:
        path = self.root / "bin/requeued"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def numbers(self) -> list[str]:
        return (self.root / "run/chain").read_text().split()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_saves_when_warned_goes_on(place: Place) -> None:
    """The next segment is asked for once, and the run has no exit code yet."""
    status, out, err = place.segment(SAVES, warn=True)
    assert (status, out, place.requeued) == (0, "saved\n", 1)
    assert "the next one follows" in err
    assert not (place.root / "run/exit").exists()
    assert place.numbers[0::2] == ["1", "0"]
    status, out, _ = place.segment('echo "$RV_SEGMENT $RV_TOTAL"')
    assert (status, out, place.requeued) == (0, "2 7200\n", 1)
    assert (place.root / "run/exit").read_text().split()[0] == "0"


def test_what_has_no_handler_and_ends_well_in_time_is_over(place: Place) -> None:
    """The warning came in its last minutes, and it is not begun again."""
    done = "echo ready; until [ -e done ]; do sleep 0.05; done"
    process = place.start(f"cd {place.root}; {done}", lead=30)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    (place.root / "done").touch()
    process.communicate(timeout=60)
    assert (process.returncode, place.requeued) == (0, 0)
    assert (place.root / "run/exit").read_text().split()[0] == "0"


def test_what_ends_by_itself_is_over(place: Place) -> None:
    """Well or not; nothing is asked for."""
    assert place.segment("exit 0")[0] == 0
    assert place.segment("exit 7")[0] == 7
    assert place.requeued == 0


def test_a_failure_may_be_tried_again_a_few_times(place: Place) -> None:
    """Counted over all segments, also where the warning came first."""
    fails = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    assert place.segment(fails, warn=True, retries=2)[0] == 0
    assert place.segment("exit 7", retries=2)[0] == 0
    status, _, err = place.segment("exit 7", retries=2)
    assert (status, place.requeued) == (7, 2)
    assert "the next" not in err


def test_a_program_that_does_not_listen_is_stopped(place: Place) -> None:
    """With all that came of it, and the run goes on; a shell does not die of the warning."""
    status, _, err = place.segment(f"(exec -a marked-{os.getpid()} sleep 99) & {DEAF}", warn=True)
    assert (status, place.requeued) == (0, 1)
    assert "has not ended after the warning" in err
    assert "segment 1 ends" in err
    left = subprocess.run(["pgrep", "-f", f"marked-{os.getpid()}"], capture_output=True, text=True)
    assert left.stdout == ""


def test_the_warning_reaches_who_waits_for_it(place: Place) -> None:
    """Behind shells and launchers; not the copies that a data loader makes of itself."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (print('told', flush=True), os._exit(0)))\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(3); os._exit(0)\n"
        "print('ready', flush=True)\nos.waitpid(child, 0)\n"
    )
    (place.root / "program.py").write_text(code)
    program = f"python3 {place.root}/program.py && echo behind"
    status, out, _ = place.segment(program, warn=True)
    assert (status, out, place.requeued) == (0, "told\nbehind\n", 1)


def test_the_total_time_ends_it(place: Place) -> None:
    """By our own clock, with 124; what is left of it would be no segment."""
    begun = time.monotonic()
    status, out, err = place.segment(SAVES, total=7, lead=4)
    assert (status, out) == (124, "ready\nsaved\n")
    assert time.monotonic() - begun < 40
    assert "is used up" in err
    assert (place.root / "run/exit").read_text().split()[::2] == ["124", "total"]
    assert place.requeued == 0
    assert place.segment("touch ran", total=7, lead=4)[0] == 124


def test_the_number_of_segments_is_bounded(place: Place) -> None:
    """Whatever puts it back; and nothing runs then."""
    (place.root / "run/chain").write_text("3 100 0 0\n")
    status, out, err = place.segment("echo ran", most=3)
    assert (status, out) == (1, "")
    assert "more than it needs" in err


def test_a_segment_that_was_killed_is_counted(place: Place) -> None:
    """As long as it was known to live, and not longer."""
    (place.root / "run/chain").write_text("1 100 1700000000 0\n")
    alive = place.root / "run/alive"
    alive.touch()
    os.utime(alive, (1700000050, 1700000050))
    assert place.segment('echo "$RV_SEGMENT $RV_ELAPSED"')[1] == "2 150\n"
    (place.root / "run/chain").write_text("1 100 1700000099 0\n")
    os.utime(alive, (1700000050, 1700000050))
    assert place.segment('echo "$RV_SEGMENT $RV_ELAPSED"')[1] == "2 100\n"


def test_who_gave_it_up_has_the_last_word(place: Place) -> None:
    """A mark that comes while a segment ends keeps the next from being asked for."""
    program = f"trap 'touch {place.root}/run/cancelled; exit 0' USR1; {DEAF}"
    assert place.segment(program, warn=True)[0] == 0
    assert place.requeued == 0
    assert place.segment("echo ran")[:2] == (1, "")


def test_what_slurm_has_put_back_is_not_asked_for_twice(place: Place) -> None:
    """Preempted, or its node failed: Slurm begins it again by itself."""
    (place.root / "bin/shown").write_text("JobId=41 Requeue=1 Restarts=1 BatchFlag=1\n")
    status, _, err = place.segment("exit 9")
    assert (status, place.requeued) == (9, 0)
    assert "which starts the job again" in err
    assert not (place.root / "run/exit").exists()


def test_a_site_that_cancels_is_answered(place: Place) -> None:
    """Where a preempted job would be cancelled, the next segment is asked for."""
    (place.root / "bin/shown").write_text("JobState=RUNNING PreemptTime=2026-01-02T03:04:05\n")
    process = place.start(DEAF)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert place.requeued == 1
    assert not (place.root / "run/exit").exists()


def test_a_slurm_that_refuses_is_told_of(place: Place) -> None:
    """The run has ended then, not well, and the way on is named."""
    (place.root / "bin/refuse").touch()
    status, _, err = place.segment(SAVES, warn=True)
    assert status == 1
    assert "slurm_requeue error: disabled" in err
    assert "rvstate rerun" in err
    assert (place.root / "run/exit").read_text().split()[0] == "1"
