import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate.cli import jobs as cli
from rvstate.errors import ConfigError, UnreachableError
from rvstate.model.job import RunRecord
from rvstate.script import Answer, Script
from rvstate.slurm import jobid, sacct, squeue
from rvstate.slurm.states import JobState
from rvstate.views import runs as view
from rvstate.views.pipeline import why
from rvstate.workflows import jobs
from rvstate.workflows.jobs import Facts, Fold, ended, listing, live, logs, records
from rvstate.workflows.pace import MOST_A_MINUTE, Pace, settling
from rvstate.workflows.pipeline.listing import StageState

RUN = "20260102-030405-0a1b2c3d"
RECEIPT = {"name": "rv-train", "logs": "/s/.rv/logs", "project": "app", "command": ["python"]}


def folded(*pieces: bytes) -> bytes:
    fold = Fold()
    return b"".join(fold.feed(piece) for piece in pieces) + fold.rest()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"a\nb\n", b"a\nb\n"),
        (b"a\r\nb\r\n", b"a\nb\n"),
        (b"1%\r50%\r100%\n", b"100%\n"),
        (b"1%\r50%\r", b"50%"),
        (b"no end", b"no end"),
        (b"\n\n", b"\n\n"),
        (b"x\r\r\n", b"x\n"),
        (b"bar\rdone | 100%|##|\nnext", b"done | 100%|##|\nnext"),
    ],
)
def test_progress_bars_are_folded(text: bytes, shown: bytes) -> None:
    """What a terminal would be left with; CRLF, tables and unfinished lines are whole."""
    assert folded(text) == shown


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab%\n\r", max_size=8).map(str.encode), max_size=6))
def test_folding_does_not_depend_on_how_the_text_came(pieces: list[bytes]) -> None:
    """In one piece or many, with no line more or less."""
    whole = b"".join(pieces)
    assert folded(*pieces).count(b"\n") == whole.count(b"\n")
    if b"\r" not in whole:
        assert folded(*pieces) == whole


def test_a_bar_that_moves_is_held_back_until_its_line_ends() -> None:
    """A follower sees no half-drawn bars, and every finished line at once."""
    fold = Fold()
    assert fold.feed(b"start\n10%\r") == b"start\n"
    assert fold.feed(b"20%\r") == b""
    assert fold.feed(b"100%\nend") == b"100%\nend"
    assert fold.feed(b"ing\n") == b"ing\n"


def queue_row(state: JobState, **more: object) -> squeue.JobRow:
    values = dict.fromkeys(squeue.JobRow.__dataclass_fields__, None)
    values |= {
        "job": jobid.parse("41"),
        "state": state,
        "reason": "Priority",
        "nodes": ("n1",),
        "time_used": 5,
    }
    return squeue.JobRow(**(values | more))  # type: ignore[arg-type]


def past_row(state: JobState) -> sacct.AccountingRow:
    values = dict.fromkeys(sacct.AccountingRow.__dataclass_fields__, None)
    values |= {"job": jobid.parse("41"), "state": state, "nodes": (), "elapsed": 9}
    return sacct.AccountingRow(**values)  # type: ignore[arg-type]


FACT = Facts("41", None, RECEIPT)


@pytest.mark.parametrize(
    ("fact", "row", "past", "state"),
    [
        (FACT, queue_row(JobState.RUNNING), past_row(JobState.COMPLETED), JobState.RUNNING),
        (FACT, None, past_row(JobState.TIMEOUT), JobState.TIMEOUT),
        (FACT, None, past_row(JobState.RUNNING), JobState.UNKNOWN),
        (FACT, None, None, JobState.UNKNOWN),
        (replace(FACT, exit_status=0), None, past_row(JobState.RUNNING), JobState.COMPLETED),
        (replace(FACT, exit_status=3), None, None, JobState.FAILED),
        (replace(FACT, exit_status=0), queue_row(JobState.COMPLETING), None, JobState.COMPLETING),
        (Facts(None, None, RECEIPT), None, None, JobState.UNKNOWN),
    ],
)
def test_unknown_is_never_finished(
    fact: Facts, row: squeue.JobRow | None, past: sacct.AccountingRow | None, state: JobState
) -> None:
    """The queue first, then accounting that says the end, then the job's record; else UNKNOWN."""
    assert listing._from_slurm(RUN, fact, row, past).state is state


def test_a_run_that_never_heard_its_job_is_found_by_its_token() -> None:
    """The queue's comment gives it its job and its log."""
    found = listing._from_slurm(
        RUN, Facts(None, None, RECEIPT, True), queue_row(JobState.RUNNING), None
    )
    assert (found.job, found.log) == ("41", "/s/.rv/logs/rv-train-41.out")
    lost = listing._from_slurm(RUN, Facts(None, None, RECEIPT, True), None, None)
    assert "--resume" in lost.reason


def test_somebody_elses_job_is_no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without a token is not the one of a run that never heard its own."""
    rows = [
        queue_row(JobState.RUNNING, comment="mine, by hand"),
        queue_row(JobState.PENDING, job=jobid.parse("63"), comment=f"rvstate:{RUN} words"),
    ]
    monkeypatch.setattr(squeue, "parse", lambda _: rows)
    records = f"{RUN}/intent:x\n{RUN}/receipt.json:{json.dumps(RECEIPT)}\n".encode()
    answer = Answer(0, (("", b""), ("records", records), ("queue", b"")))
    session = SimpleNamespace(config=SimpleNamespace(site=SimpleNamespace(scheduler="slurm")))
    for wanted in ("63", None):
        (found,) = jobs.read_runs(session, answer)  # type: ignore[arg-type]
        assert found.job == wanted
        rows.pop()


def test_a_request_that_was_refused_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    """What never was submitted is listed with -a only; what may have been is always listed."""
    never = listing._from_slurm("r2", Facts(None, None, RECEIPT), None, None)
    perhaps = listing._from_slurm("r1", Facts(None, None, RECEIPT, True), None, None)
    assert (never.is_over, perhaps.is_over) == (True, False)
    view.show_runs((never, perhaps), everything=False)
    shown = capsys.readouterr().out
    assert "--resume" in shown
    assert "never submitted" not in shown
    view.show_runs((never, perhaps), everything=True)
    assert "never submitted" in capsys.readouterr().out


def test_a_log_needs_no_controller() -> None:
    """Where squeue failed a list of states is refused, and which runs there are is known."""
    records = f"{RUN}/job:41\n{RUN}/receipt.json:{json.dumps(RECEIPT)}\n".encode()
    answer = Answer(0, (("", b""), ("records", records), ("queue", b""), ("queue-failed", b"")))
    session = SimpleNamespace(config=SimpleNamespace(site=SimpleNamespace(scheduler="slurm")))
    with pytest.raises(UnreachableError, match="squeue failed"):
        jobs.read_runs(session, answer)  # type: ignore[arg-type]
    (found,) = jobs.read_runs(session, answer, states=False)  # type: ignore[arg-type]
    assert (found.job, found.log, found.state) == (
        "41",
        "/s/.rv/logs/rv-train-41.out",
        JobState.UNKNOWN,
    )


@pytest.mark.parametrize(("answer", "ended"), [("n\n", 0), ("\n", 0), ("y\n", 1)])
def test_stop_asks_and_no_means_no(
    monkeypatch: pytest.MonkeyPatch, answer: str, ended: int
) -> None:
    """Without -y a person decides; anything but yes ends nothing, and that is said."""
    asked: list[object] = []
    monkeypatch.setattr(cli, "may_ask", lambda: True)
    monkeypatch.setattr(cli, "session", lambda *_: None)
    monkeypatch.setattr(cli.workflow, "runs", lambda _: RECORDS)
    monkeypatch.setattr(cli.workflow, "stop", lambda _, records, __: asked.append(records))
    done = CliRunner().invoke(cli.stop, ["120"], input=answer, standalone_mode=False)
    assert len(asked) == ended
    assert ("Nothing was ended" in done.output, done.return_value) == (not ended, 1 - ended)


def test_a_run_that_has_no_job_is_not_ended() -> None:
    """scancel is never called without a number."""
    unanswered = (RunRecord("r9", None, "rv-train", JobState.UNKNOWN),)
    with pytest.raises(ConfigError, match="never answered"):
        jobs.stop(None, unanswered, lambda _: None)  # type: ignore[arg-type]


def test_a_pending_job_says_why() -> None:
    """In words, not Slurm's code."""
    found = listing._from_slurm(RUN, FACT, queue_row(JobState.PENDING), None)
    assert found.reason == "Jobs with a higher priority are ahead of it."


def test_records_are_read_as_they_lie() -> None:
    """Small files of many runs in one text; a damaged receipt hides no run."""
    text = (
        f"{RUN}/job:41\n{RUN}/exit:3 1700000000\n{RUN}/receipt.json:{json.dumps(RECEIPT)}\n"
        "20260102-030406-11111111/intent:1700000000\n"
        "20260102-030408-33333333/stages: begun a done a begun b\n"
        "20260102-030407-22222222/receipt.json:{half\n"
    )
    found = records.read_facts(text)
    assert found[RUN] == Facts("41", 3, RECEIPT)
    assert found["20260102-030406-11111111"] == Facts(None, None, {}, True)
    assert found["20260102-030407-22222222"] == Facts(None, None, {})
    assert found["20260102-030408-33333333"].stages == (("a", "done"), ("b", "begun"))


def test_of_several_stages_in_one_job_each_has_its_own_state() -> None:
    """One that is done is, whatever became of the job; one that never began did not fail."""
    told = (("a", "done"), ("b", "begun"))
    failed = RunRecord("r1", "41", "p-ray", JobState.FAILED, exit_code=3, stages=told)

    def states(record: RunRecord) -> list[str]:
        return [StageState(name, record, "it has not run yet", True).word for name in "abc"]

    assert states(failed) == ["COMPLETED", "FAILED", "CANCELLED"]
    assert states(replace(failed, state=JobState.RUNNING)) == ["COMPLETED", "RUNNING", "PENDING"]
    # Ray did not come up, or the job is of an older rvstate
    assert states(replace(failed, stages=())) == ["FAILED"] * 3
    reasons = [why(StageState(name, failed, "it has not run yet", True)) for name in "abc"]
    assert reasons == [
        "",
        "its command ended with exit code 3",
        "another stage of its job failed before",
    ]


RECORDS = (
    RunRecord("r3", "120", "rv-train", JobState.RUNNING),
    RunRecord("r2", "12", "rv-eval", JobState.RUNNING),
    RunRecord("r1", "1", "rv-train", JobState.COMPLETED),
)


@pytest.mark.parametrize(
    ("wanted", "run_id"),
    [(None, "r3"), ("12", "r2"), ("1", "r1"), ("r1", "r1"), ("rv-train", "r3")],
)
def test_a_run_is_named_exactly(wanted: str | None, run_id: str) -> None:
    """By job id, run id, or name, of which the newest counts."""
    assert jobs.find(RECORDS, wanted).run_id == run_id


@pytest.mark.parametrize("wanted", ["2", "12 ", "rv-", "r", "0"])
def test_a_part_of_a_name_names_nothing(wanted: str) -> None:
    """No other job is ever hit by accident."""
    with pytest.raises(ConfigError, match="No run is called"):
        jobs.find(RECORDS, wanted)


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        (JobState.COMPLETED, 0, 0),
        (JobState.FAILED, 200, 200),
        (JobState.FAILED, None, 1),
        (JobState.TIMEOUT, 143, 124),
        (JobState.OUT_OF_MEMORY, 1, 137),
        (JobState.CANCELLED, None, 143),
        (JobState.NODE_FAIL, None, 1),
        (JobState.UNKNOWN, None, 1),
        (JobState.RUNNING, None, 1),
    ],
)
def test_a_follower_ends_with_the_documented_code(
    state: JobState, code: int | None, status: int
) -> None:
    """Not knowing never looks like success."""
    record = RunRecord(RUN, "41", "x", state, exit_code=code)
    assert jobs.exit_status(record) == status


@pytest.mark.parametrize(
    "line",
    [
        b"slurmstepd: error: Detected 1 oom-kill event(s) in StepId=41.batch.",
        b"slurmstepd: error: Exceeded job memory limit",
        b"slurmstepd: error: StepId=41.batch exceeded memory limit (900 > 64), being killed",
    ],
)
def test_slurms_words_for_out_of_memory_are_known(line: bytes) -> None:
    """Across releases."""
    assert ended._MEMORY.search(line)
    assert not ended._MEMORY.search(b"torch.cuda.OutOfMemoryError: CUDA out of memory")


class Scripted:
    """A transport whose answers are given; the last one is repeated."""

    def __init__(self, *answers: tuple[dict[str, bytes], str]) -> None:
        self.answers = [*answers]

    def run(self, script: Script) -> Answer:
        sections, errors = self.answers.pop(0) if self.answers[1:] else self.answers[0]
        return Answer(0, tuple(sections.items()), errors)


class Clock:
    """A clock that only `sleep` moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def followed(
    monkeypatch: pytest.MonkeyPatch, *answers: tuple[dict[str, bytes], str]
) -> tuple[list[str], float, str]:
    """What was told, how long it took by the clock, and how following ended."""
    clock, told = Clock(), list[str]()
    monkeypatch.setattr(live, "time", clock)
    site = SimpleNamespace(scheduler="slurm")
    config = SimpleNamespace(site=site)
    session = SimpleNamespace(transport=Scripted(*answers), config=config, scratch="/s", home="")
    record = RunRecord(RUN, "7", "rv-train", JobState.RUNNING, log="/l/o", error_log="/l/e")
    try:
        list(jobs.follow(session, record, ("out",), told.append))  # type: ignore[arg-type]
    except UnreachableError as error:
        return told, clock.now, error.message
    return told, clock.now, ""


DOWN = ({"exit": b"", "queue": b"\n", "queue-failed": b"", "accounting": b""}, "connect failure")
GONE = (
    {"exit": b"", "queue": b"\n", "queue-failed": b"", "accounting": b""},
    "slurm_load_jobs error: Invalid job id specified",
)
ENDED = ({"exit": b"0 1\n", "queue": b"\n", "queue-failed": b""}, "connect failure")


def test_a_controller_that_is_down_is_waited_for_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however often it is asked; the job's own record ends the wait."""
    told, _, ended = followed(monkeypatch, DOWN, DOWN, DOWN, ENDED)
    assert ended == ""
    assert len(told) == 1
    assert "controller does not answer" in told[0]


def test_a_silent_controller_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten minutes without a word of controller and job it is said what is not known."""
    _, seconds, ended = followed(monkeypatch, DOWN)
    assert "has not answered for 10 minutes" in ended
    assert 600 <= seconds < 700


def test_a_job_that_the_controller_lost_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounting says RUNNING for ever then; it does not count against the controller's word."""
    lost = ({**GONE[0], "accounting": b"a row"}, GONE[1])
    monkeypatch.setattr(sacct, "parse", lambda _: (SimpleNamespace(state=JobState.RUNNING),))
    told, seconds, ended = followed(monkeypatch, lost)
    assert "Nobody knows job 7" in ended
    assert seconds < 60
    assert "nobody knows job 7" in told[0]


def test_slurm_is_asked_less_and_less_while_a_run_is_followed() -> None:
    """Seven times in the first minute, then four times in each, however often logs are read."""
    pace = Pace()
    asked = [second for second in range(600) if pace.due(float(second))]
    minutes = [sum(1 for s in asked if m * 60 <= s < m * 60 + 60) for m in range(10)]
    assert minutes == [7, *[4] * 9]
    # the minute in which it ends has the questions of how it ended, too
    assert max(minutes) + len([*settling()]) + 1 <= MOST_A_MINUTE


def test_a_job_that_slurm_starts_again_is_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node that is out of use is named, once, and the second attempt's end is the end."""
    running: dict[str, bytes] = {"exit": b"", "log 0 0": b"line\n"}
    rows = [
        queue_row(JobState.RUNNING, restarts=0, nodes=("n1", "n2")),
        queue_row(JobState.COMPLETING, restarts=1, nodes=("n1",)),
        queue_row(JobState.PENDING, restarts=1, nodes=()),
        queue_row(JobState.RUNNING, restarts=1, nodes=("n3",)),
    ]

    def state(*_: object) -> tuple[squeue.JobRow, JobState]:
        row = rows.pop(0) if rows[1:] else rows[0]
        return row, row.state

    monkeypatch.setattr(logs, "_state", state)
    monkeypatch.setattr(live, "out_of_use", lambda _, nodes: frozenset({"n2"}) & {*nodes})
    told, _, ended = followed(monkeypatch, *[(running, "")] * 30, ENDED)
    assert ended == ""
    assert len(told) == 1
    assert "will start it again (n2 is out of use)" in told[0]


def test_log_lines_cost_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two questions the script is given no command line of Slurm's."""
    running: dict[str, bytes] = {"exit": b"", "log 0 0": b"line\n"}
    answers = [(running, "")] * 20 + [ENDED]
    seen: list[str] = []
    plain = Scripted.run

    def run(self: Scripted, script: Script) -> Answer:
        seen.append(script.args[2])
        return plain(self, script)

    monkeypatch.setattr(Scripted, "run", run)
    monkeypatch.setattr(logs, "_state", lambda *_: (None, JobState.RUNNING))
    followed(monkeypatch, *answers)
    assert len(seen) == 21
    assert sum(1 for queue in seen if queue) == 4
