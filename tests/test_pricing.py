"""What jobs cost: by the site's prices, and never by a guess."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rvstate import config, pricing
from rvstate.slurm import sacct
from rvstate.slurm.jobid import JobId
from rvstate.slurm.states import JobState

UVA = config.load_site("uva")


def row(tres: str, elapsed: int = 3600) -> sacct.AccountingRow:
    """A job that held this for so many seconds."""
    base = ("gpu", "mygroup", elapsed, None, 0, 0, None, 1, ("n1",), tres, "", "", "", "job")
    return sacct.AccountingRow(JobId(1), "1", JobState.COMPLETED, None, "0:0", *base)


@pytest.mark.parametrize(
    ("tres", "kind", "hours", "units"),
    [
        ("billing=4,cpu=4,gres/gpu:a100=2,gres/gpu=2,mem=16G,node=1", "a100_80", 2, 2 * 508.89),
        ("cpu=8,gres/gpu:1g.10gb=1,gres/gpu=1", "mig", 1, 0),
        ("cpu=8,mem=8G,node=1", "cpu", 8, 8),
        ("cpu=8,gres/gpu:strange=3,gres/gpu=3", "strange", 3, None),
        ("cpu=8,gres/gpu=3", "gpu", 3, None),
    ],
)
def test_each_job_is_priced_by_what_it_held(
    tres: str, kind: str, hours: float, units: float | None
) -> None:
    """GPU jobs by their GPUs, others by their CPUs; a type without a price stays unpriced."""
    (cost,) = pricing.used([row(tres)], UVA)
    assert (cost.kind, cost.jobs, cost.hours) == (kind, 1, hours)
    assert cost.units == (pytest.approx(units) if units is not None else None)


def test_jobs_of_one_kind_add_up_and_those_that_held_nothing_do_not_count() -> None:
    """A job that never started has no TRES and no time."""
    rows = [row("cpu=2", 1800), row("cpu=4", 1800), row(""), row("cpu=9", 0)]
    (cost,) = pricing.used(rows, UVA)
    assert (cost.jobs, cost.hours, cost.units) == (2, 3, 3)


def test_a_sum_with_an_unknown_in_it_is_unknown() -> None:
    """Half of the bill is not the bill."""
    found = pricing.used([row("cpu=1"), row("cpu=1,gres/gpu:strange=1")], UVA)
    assert pricing.total(found) is None
    generic = replace(UVA, prices=replace(UVA.prices, cpu=None))
    assert pricing.total(pricing.used([row("cpu=1")], generic)) is None
    assert pricing.total(pricing.used([row("cpu=1")], UVA)) == 1
