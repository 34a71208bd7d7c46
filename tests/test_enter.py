"""Which node of which run is entered, and the block for ssh clients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rvstate import config
from rvstate.errors import ConfigError, UnsupportedError
from rvstate.model.job import RunRecord
from rvstate.script import Answer
from rvstate.slurm.states import JobState
from rvstate.state import State
from rvstate.workflows import enter
from rvstate.workflows.enter import Place

NODES = ("n1", "n2", "n10")


def run(job: str, state: JobState = JobState.RUNNING, name: str = "train") -> RunRecord:
    """One run, on three nodes."""
    return RunRecord(f"20260101-000000-{int(job):08x}", job, name, state, nodes=NODES)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An account whose login node answers as `remote/door.sh` does."""
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path / "rv"))
    said = {
        "host": b"ssh-ed25519 AAAA rvstate\n",
        "library": b"/scratch/me/.rv/lib/abc",
        "user": b"me",
        "run": b"/scratch/me/.rv/runs/r",
        "keys": b"/scratch/me/.rv/ssh",
    }
    return SimpleNamespace(
        config=config.load(options={"connection": {"site": "uva", "host": "hpc"}}),
        state=State(tmp_path / "with % and blank"),
        scratch="/scratch/me",
        home="",
        transport=SimpleNamespace(run=lambda _: Answer(0, tuple(said.items()))),
    )


@pytest.mark.parametrize(
    ("wanted", "node"), [(None, "n1"), ("0", "n1"), ("2", "n10"), ("n2", "n2"), ("n10", "n10")]
)
def test_a_node_is_named_or_counted_from_zero(
    session: Any, monkeypatch: pytest.MonkeyPatch, wanted: str | None, node: str
) -> None:
    """The first where nobody says."""
    monkeypatch.setattr(enter.jobs, "runs", lambda _: (run("7"),))
    assert enter.find(session, "7", wanted).node == node


@pytest.mark.parametrize("wanted", ["3", "-1", "n", "n1 ", ""])
def test_a_node_that_the_job_has_not_is_refused(
    session: Any, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """With those that it has."""
    monkeypatch.setattr(enter.jobs, "runs", lambda _: (run("7"),))
    with pytest.raises(ConfigError) as caught:
        enter.find(session, None, wanted)
    assert caught.value.remedy == "It has: 0 (n1), 1 (n2), 2 (n10)."


def test_the_newest_that_runs_is_entered(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting and ended ones are passed over, and refused where they are named."""
    runs = (run("9", JobState.PENDING, "wait"), run("8"), run("7"))
    monkeypatch.setattr(enter.jobs, "runs", lambda _: runs)
    assert enter.find(session, None, None).run.job == "8"
    with pytest.raises(ConfigError, match="is PENDING"):
        enter.find(session, "wait", None)
    monkeypatch.setattr(enter.jobs, "runs", lambda _: runs[:1])
    with pytest.raises(ConfigError, match="None of your runs is running"):
        enter.find(session, None, None)


def test_blocks_of_one_job_may_stand_in_one_file(session: Any) -> None:
    """Each node has a name of its own, and the job's own is the first node's."""
    aliases = [enter.door(session, Place(run("7"), node)).alias for node in NODES]
    assert aliases == ["rv-7", "rv-7-1", "rv-7-2"]


def test_the_block_holds_what_a_client_needs_and_checks_the_host(session: Any) -> None:
    """The host's key is known by the run and not by the node; no path is expanded by ssh."""
    options = dict(enter.door(session, Place(run("7"), "n2")).options)
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["IdentitiesOnly"] == "yes"
    assert "%% and blank" in options["IdentityFile"]
    known = Path(options["UserKnownHostsFile"].replace("%%", "%"))
    assert known.read_text() == f"{options['HostKeyAlias']} ssh-ed25519 AAAA\n"
    assert options["ProxyCommand"].endswith(
        "into.sh 7 n2 /scratch/me/.rv/runs/r /scratch/me/.rv/ssh"
    )


def test_on_this_machine_there_is_nothing_to_connect_to(
    session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of site local are here already."""
    session.config = config.load(options={"connection": {"site": "local"}})
    with pytest.raises(UnsupportedError):
        enter.door(session, Place(run("7"), ""))
