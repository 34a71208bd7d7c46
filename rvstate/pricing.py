"""What jobs cost by the site's prices; pure.  A price that nobody wrote down stays unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rvstate.model.site import Site
from rvstate.slurm.sacct import AccountingRow

CPU = "cpu"
_HOUR = 3600
_GPU = re.compile(r"gres/gpu(?::([^=,]+))?=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Cost:
    """What was used of one kind of thing.

    Args:
        kind: A GPU type of the site, Slurm's own name where the site data has none, or `cpu` for
            jobs without GPUs.
        jobs: How many jobs.
        hours: GPU hours, or CPU hours.
        units: The site's units, or None where no price is known.
    """

    kind: str
    jobs: int
    hours: float
    units: float | None


def price(site: Site, kind: str) -> float | None:
    """Units for an hour of one GPU of that type, or of one CPU; None where nobody knows."""
    if kind == CPU:
        return site.prices.cpu
    found = site.gpu(kind)
    return found[1].price if found else None


def used(rows: Iterable[AccountingRow], site: Site) -> tuple[Cost, ...]:
    """What jobs cost, by kind, the dearest first.

    Args:
        rows: Allocations as accounting has them; running ones count as far as they got.
        site: Whose prices.
    """
    hours: dict[str, float] = {}
    jobs: dict[str, int] = {}
    for row in rows:
        kind, count = _held(row.tres, site)
        if not row.elapsed or not count:
            continue
        hours[kind] = hours.get(kind, 0.0) + count * row.elapsed / _HOUR
        jobs[kind] = jobs.get(kind, 0) + 1
    found = [
        Cost(kind, jobs[kind], total, _units(site, kind, total)) for kind, total in hours.items()
    ]
    return tuple(sorted(found, key=lambda cost: (-(cost.units or 0), cost.kind)))


def asked(site: Site, kind: str, count: int, seconds: int) -> Cost:
    """What one job of `count` GPUs (or CPUs) costs if it uses all its time."""
    hours = count * seconds / _HOUR
    return Cost(kind, 1, hours, _units(site, kind, hours))


def total(costs: Iterable[Cost]) -> float | None:
    """All units together; None where any of them is unknown."""
    units = [cost.units for cost in costs]
    return None if None in units else sum(unit for unit in units if unit is not None)


def _units(site: Site, kind: str, hours: float) -> float | None:
    rate = price(site, kind)
    return None if rate is None else rate * hours


def _held(tres: str, site: Site) -> tuple[str, int]:
    """What a job held that is charged for: its GPUs, or its CPUs where it has none."""
    typed = {kind: int(count) for kind, count in _GPU.findall(tres)}
    for name, count in typed.items():
        if name:
            found = site.gpu(name)
            return (found[0] if found else name), count
    if "" in typed:
        return "gpu", typed[""]
    match = re.search(r"(?:^|,)cpu=([0-9]+)", tres)
    return CPU, int(match[1]) if match else 0
