"""Whether a node was at fault, by what Slurm and the log say."""

from __future__ import annotations

import pytest

from rvstate.hardware import AT_START, trouble
from rvstate.slurm.states import JobState

NODES = ("n1", "n2")
ECC = "x\nRuntimeError: CUDA error: uncorrectable ECC error encountered\ny\n"


def test_a_node_that_died_is_named_by_slurm() -> None:
    """Of several nodes the one that is out of use; of one node that one."""
    found = trouble(JobState.NODE_FAIL, 5000, NODES, (), frozenset({"n2"}))
    assert found is not None
    assert found.nodes == ("n2",)
    alone = trouble(JobState.NODE_FAIL, None, ("n1",), (), frozenset())
    assert alone is not None
    assert alone.nodes == ("n1",)


def test_a_dead_node_that_nobody_names_is_told_without_a_name() -> None:
    """Nothing is excluded on a guess."""
    found = trouble(JobState.NODE_FAIL, 1, NODES, (), frozenset())
    assert found is not None
    assert found.nodes == ()


def test_a_gpu_that_fails_at_the_start_is_named_by_its_nodes_log() -> None:
    """With the line that says so."""
    found = trouble(JobState.FAILED, 20, NODES, ((0, "fine"), (1, ECC)), frozenset())
    assert found is not None
    assert found.nodes == ("n2",)
    assert "(RuntimeError: CUDA error: uncorrectable ECC error encountered)" in found.what


def test_no_node_is_blamed_for_a_log_that_several_share() -> None:
    """As where the command is a line of the shell with an srun in it; nothing is excluded."""
    found = trouble(JobState.FAILED, 20, NODES, ((None, ECC),), frozenset())
    assert found is not None
    assert found.nodes == ()
    named = trouble(JobState.FAILED, 20, NODES, ((None, ECC), (1, ECC)), frozenset())
    assert named is not None
    assert named.nodes == ("n2",)


@pytest.mark.parametrize(
    ("state", "elapsed", "log"),
    [
        (JobState.FAILED, 20, "RuntimeError: CUDA out of memory"),
        (JobState.FAILED, 20, "ValueError: no such file"),
        (JobState.FAILED, 20, "CUDA error: device-side assert triggered"),
        (JobState.FAILED, AT_START + 1, ECC),
        (JobState.FAILED, None, ECC),
        (JobState.TIMEOUT, 20, ECC),
        (JobState.CANCELLED, 20, ECC),
        (JobState.COMPLETED, 20, ECC),
        (JobState.OUT_OF_MEMORY, 20, ECC),
    ],
)
def test_what_the_program_did_is_not_the_hardwares_fault(
    state: JobState, elapsed: int | None, log: str
) -> None:
    """Running it again on another node would cost and not help."""
    assert trouble(state, elapsed, NODES, ((0, log),), frozenset({"n1"})) is None
