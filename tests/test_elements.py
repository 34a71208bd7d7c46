"""Elements of an array: each known by queue, accounting or its own mark; chosen by name."""

from dataclasses import replace

import pytest

from rvstate import elements, sweep
from rvstate.errors import ConfigError
from rvstate.model.job import Element, RunRecord
from rvstate.slurm import jobid, sacct, squeue
from rvstate.slurm.states import JobState

ARRAY = sweep.array("0-4", (), 3)
assert ARRAY is not None
S = JobState


def row(job: str, state: JobState) -> squeue.JobRow:
    values = dict.fromkeys(squeue.JobRow.__dataclass_fields__, None)
    found = {"job": jobid.parse(job), "state": state, "time_used": 5, "nodes": ("n1",)}
    return squeue.JobRow(**(values | found))  # type: ignore[arg-type]


def past(job: str, state: JobState) -> sacct.AccountingRow:
    values = dict.fromkeys(sacct.AccountingRow.__dataclass_fields__, None)
    found = {"job": jobid.parse(job), "state": state, "elapsed": 9, "nodes": ()}
    return sacct.AccountingRow(**(values | found))  # type: ignore[arg-type]


def states(rows: object = (), gone: object = (), marks: object = ()) -> list[str]:
    known = {str(r.job): r for r in rows}  # type: ignore[attr-defined]
    old = {str(r.job): r for r in gone}  # type: ignore[attr-defined]
    assert ARRAY is not None
    found = elements.elements(ARRAY, ("12", "13"), known, old, dict(marks))  # type: ignore[call-overload]
    assert [e.index for e in found] == [0, 1, 2, 3, 4]
    assert [e.job for e in found] == ["12_0", "12_1", "12_2", "13_0", "13_1"]
    return [e.state.value for e in found]


def test_the_queue_knows_best_then_accounting_then_marks() -> None:
    """And nobody's silence is taken for an end."""
    assert states() == ["UNKNOWN"] * 5
    rows = (row("12_[1-2%1]", S.PENDING), row("12_0", S.RUNNING), row("13_[0-1]", S.PENDING))
    assert states(rows) == ["RUNNING", "PENDING", "PENDING", "PENDING", "PENDING"]
    old = (past("12_0", S.TIMEOUT), past("12_1", S.RUNNING), past("13_1", S.COMPLETED))
    marks = ((0, 0), (1, 0), (2, 3), (3, None))
    assert states((), old, marks) == ["TIMEOUT", "COMPLETED", "FAILED", "UNKNOWN", "COMPLETED"]


def test_what_was_cancelled_before_it_began_is_known_by_its_absence() -> None:
    """Slurm keeps no word of such an element, or one row for the whole job."""
    rows = (row("12_[1]", S.PENDING), row("12_0", S.RUNNING), row("13_[0-1]", S.CANCELLED))
    assert states(rows) == ["RUNNING", "PENDING", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert states(rows, (), ((2, None),))[2] == "UNKNOWN"
    assert states((), (past("13", S.CANCELLED),))[3:] == ["CANCELLED", "CANCELLED"]
    assert states((row("12_[1,...]", S.PENDING),))[:3] == ["PENDING"] * 3


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ((S.COMPLETED, S.COMPLETED), S.COMPLETED),
        ((S.COMPLETED, S.FAILED, S.CANCELLED), S.FAILED),
        ((S.RUNNING, S.FAILED, S.PENDING), S.RUNNING),
        ((S.PENDING, S.COMPLETED), S.PENDING),
        ((S.UNKNOWN, S.COMPLETED), S.UNKNOWN),
        ((S.PREEMPTED, S.COMPLETED), S.PREEMPTED),
        ((S.CONFIGURING, S.FAILED), S.CONFIGURING),
        ((), S.UNKNOWN),
    ],
)
def test_an_array_is_as_far_as_its_elements(found: tuple[JobState, ...], state: JobState) -> None:
    """It has ended when all have, and well only if all have."""
    known = tuple(Element(i, f"12_{i}", each) for i, each in enumerate(found))
    assert elements.whole(known) is state


RUN = RunRecord(
    "r1", "12", "exp", S.RUNNING, log="/s/logs/exp-12.out", array=ARRAY, jobs=("12", "13"),
    elements=tuple(Element(i, f"{12 + i // 3}_{i % 3}", s) for i, s in
                   enumerate((S.COMPLETED, S.FAILED, S.TIMEOUT, S.RUNNING, S.CANCELLED))),
)  # fmt: skip


def test_an_element_is_named_behind_its_run() -> None:
    """By run, name or Slurm's own number; with its own logs; never a guess."""
    for name in ("exp_4", "r1_4", "13_1"):
        found = elements.choose((RUN,), name)
        assert found is not None
        assert (found.index, found.job, found.log) == (4, "13_1", "/s/logs/exp-13_1.out")
    assert elements.choose((RUN,), "exp") is None
    assert elements.choose((replace(RUN, array=None),), "exp_4") is None
    with pytest.raises(ConfigError, match="no element 5"):
        elements.choose((RUN,), "exp_5")
    with pytest.raises(ConfigError, match="no element 4"):
        elements.choose((RUN,), "12_4")


def test_what_failed_is_what_has_ended_without_success() -> None:
    """Not what still runs; and the counts say all of it."""
    assert elements.failed(RUN) == (1, 2, 4)
    assert elements.counts(RUN.elements) == (
        "1 RUNNING, 1 FAILED, 1 TIMEOUT, 1 CANCELLED, 1 COMPLETED"
    )


def test_a_receipt_tells_of_the_array() -> None:
    """Written and read back, parameters and parts too."""
    found = sweep.array("0-5%2", sweep.parse_sweep(["lr=1,2", "seed=0,1,2"]), 4)
    import json

    told = json.loads(json.dumps(elements.to_receipt(found)))
    assert elements.from_receipt(told) == found
    assert elements.from_receipt(None) is None
