"""The list of experiments: names, parameters, states and results, from the records of runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rvstate import elements, experiment, sweep
from rvstate.model.job import Element, RunRecord
from rvstate.slurm.states import JobState
from rvstate.views import experiments as view
from rvstate.workflows.dvc import queue
from rvstate.workflows.jobs.records import read_facts


def run(*words: str, state: JobState = JobState.COMPLETED, **fields: Any) -> RunRecord:
    """A run of DVC."""
    given = {"commit": "a" * 40, "branch": "main", "project": "app", "log": "", **fields}
    return RunRecord(
        run_id="20260102-030405-0a1b2c3d",
        job="7",
        name="rv-dvc",
        state=state,
        command=(*experiment.WORDS, *words),
        **given,
    )


def several() -> RunRecord:
    """An array of four, of which one waits, one runs, one was pushed and one was not."""
    array = sweep.array("", (("lr", ("1", "2")), ("n", ("5", "6"))), None)
    words = ("-n", "x-{index}", "-S", "lr={lr}", "-S", "n={n}", "-S", "c={c}")
    states = (JobState.COMPLETED, JobState.FAILED, JobState.RUNNING, JobState.PENDING)
    said = {0: "pushed experiment x-0", 1: "kept experiment x-1 is on the cluster", 2: "none yet"}
    found = tuple(Element(i, f"7_{i}", state) for i, state in enumerate(states))
    found = elements.with_results(found, said)
    return run(*words, array=array, elements=found, state=JobState.RUNNING)


def test_an_array_is_an_experiment_for_each_element() -> None:
    """With its own name, values and results; what is no mark stays as it is."""
    found = tuple(queue.experiments((several(),)))
    assert [one.name for one in found] == ["x-0", "x-1", "x-2", "x-3"]
    assert [one.results for one in found] == ["pushed", "kept", "", ""]
    assert found[2].parameters == (("lr", "2"), ("n", "5"), ("c", "{c}"))
    assert [one.is_news for one in found] == [False, True, True, True]


@pytest.mark.parametrize(
    ("words", "results", "name"),
    [
        ((), "pushed experiment rummy-puds", "rummy-puds"),
        ((), "kept experiment a-b is on the cluster and not pushed: why", "a-b"),
        (("-n", "mine"), "", "mine"),
        (("-n", "mine"), "pushed experiment mine-0a1b2c3d", "mine-0a1b2c3d"),
        ((), "pushed the run cache", ""),
        ((), "none DVC made no experiment", ""),
        ((), "", ""),
    ],
)
def test_a_name_is_the_users_or_what_dvc_called_it(
    words: tuple[str, ...], results: str, name: str
) -> None:
    """Which is known from what the job told of the results."""
    (one,) = queue.experiments((run(*words, results=results),))
    assert one.name == name
    assert one.results == results.partition(" ")[0]


def test_other_runs_are_no_experiments() -> None:
    """Nor what was begun and never submitted."""
    other = RunRecord(
        run_id="20260102-030405-0a1b2c3e",
        job="8",
        name="rv-train",
        state=JobState.RUNNING,
        command=("python", "train.py"),
        log="",
    )
    assert tuple(queue.experiments((other, run(begun=False)))) == ()


def test_people_see_what_goes_on_and_what_is_not_pushed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And with -a all of it; where there is nothing to see that is said."""
    found = tuple(queue.experiments((several(),)))
    view.show_queue(found, everything=False)
    said = capsys.readouterr().out
    assert "x-0" not in said
    assert "not pushed" in said
    assert "rvstate dvc pull" in said
    view.show_queue(found, everything=True)
    assert "x-0" in capsys.readouterr().out
    view.show_queue(found[:1], everything=False)
    assert "1 have ended" in capsys.readouterr().out


def test_an_odd_value_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """And says nothing to the terminal."""
    odd = run("-S", "text=a\nb\x1b[2J", "-n", "é x", state=JobState.RUNNING)
    view.show_queue(tuple(queue.experiments((odd,))), everything=False)
    said = capsys.readouterr().out
    assert "text=a\\nb\\x1b[2J" in said
    assert "é x" in said
    assert len(said.splitlines()) == 2


def test_programs_see_all_of_it() -> None:
    """With parameters by name, and nothing where nothing is known."""
    said = json.loads(view.queue_document(tuple(queue.experiments((several(), run())))))
    assert said["command"] == "dvc queue"
    assert said["experiments"][1]["results"] == "kept"
    assert said["experiments"][2]["parameters"] == {"lr": "2", "n": "5", "c": "{c}"}
    assert said["experiments"][4]["name"] is None
    assert said["experiments"][4]["index"] is None


def test_results_of_elements_are_read_and_summed() -> None:
    """One that is kept is what the run says; else how many were pushed."""
    text = "r/dvc:elements\nr/elements/0/dvc:pushed experiment a\nr/elements/10/dvc:kept b: c\n"
    fact = read_facts(text)["r"]
    assert dict(fact.element_results) == {0: "pushed experiment a", 10: "kept b: c"}
    assert elements.results(several().elements).startswith("kept results of 1 of 4")
    assert elements.results(several().elements[:1]) == "pushed the results of 1 elements"
    assert elements.results(several().elements[2:]) == ""
