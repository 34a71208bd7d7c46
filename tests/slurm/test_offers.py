"""A request that nothing at the site fits is answered with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rvstate.slurm import offers, sinfo

DATA = Path(__file__).parent.parent / "data" / "slurm"
PARTITIONS = sinfo.parse_partitions((DATA / "sinfo-partitions-22.05.txt").read_text())
NODES = sinfo.parse_nodes((DATA / "sinfo-nodes-22.05.txt").read_text())


@pytest.mark.parametrize(
    ("said", "impossible"),
    [
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("Batch job submission failed: Invalid partition name specified", True),
        ("invalid partition specified: x", True),
        ("allocation failure: More processors requested than permitted", True),
        ("Requested time limit is invalid (missing or exceeds some limit)", True),
        ("Invalid account or account/partition combination specified", False),
        ("Socket timed out on send/recv operation", False),
        ("", False),
    ],
)
def test_only_what_no_waiting_helps_is_impossible(said: str, impossible: bool) -> None:
    """Slurm's own words decide; an account without rights or a slow controller is another thing."""
    assert offers.is_impossible(said) is impossible


def test_a_partition_says_what_it_gives() -> None:
    """The default one where none was named, with nodes, CPUs, memory, GPUs and time."""
    (default,) = (p for p in PARTITIONS if p.default)
    said = offers.in_words(PARTITIONS, NODES, "")
    assert said.startswith(f"{default.name} offers up to ")
    assert " CPUs, " in said
    assert " of memory" in said
    gpus = offers.in_words(PARTITIONS, NODES, "gpu-a6000")
    assert " gpu a6000, for at most " in gpus
    assert said in offers.in_words(PARTITIONS, NODES, f"{default.name},gpu-a6000")


def test_a_partition_that_is_not_there_is_named_with_the_nearest() -> None:
    """And with all that there are."""
    said = offers.in_words(PARTITIONS, NODES, "gpu-a600")
    assert said.startswith("Did you mean gpu-a6000? ")
    assert all(partition.name in said for partition in PARTITIONS)
    assert offers.in_words((), (), "x") == ""
