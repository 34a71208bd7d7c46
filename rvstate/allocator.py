"""Which types of GPU may serve a request that names none, and which of them are asked for; pure."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rvstate import pricing
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.settings import Settings
from rvstate.model.site import Gpu, Site
from rvstate.request import ANY, Request, options
from rvstate.slurm import memory
from rvstate.slurm.options import SbatchOptions, gpu_gres
from rvstate.slurm.sinfo import Node

# A start within so many seconds is one that nobody waits for.
SOON = 300
# Jobs of one run at most, of which one runs: each costs the scheduler a look at every round.
_MOST = 3
_MIB = 1024


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to serve a request.

    Args:
        kind: The site's name of the type; several with commas for a job that may get any of them;
            empty where no type is known.
        options: What would be asked of the scheduler.
        units: What it costs at most, in the site's units; None where that is not known.
    """

    kind: str
    options: SbatchOptions
    units: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The options of sbatch in which it differs from other choices of the request."""
        found = [f"--partition={self.options.partition}"]
        if self.options.gpus is not None:
            found.append(f"--gres={gpu_gres(*self.options.gpus)}")
        if self.options.constraint:
            found.append(f"--constraint={self.options.constraint}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Choices:
    """All ways to serve a request.

    Args:
        found: In the order of the site's data.
        left_out: Types that cannot serve it, and why.
    """

    found: tuple[Choice, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the scheduler says of a choice.

    Args:
        choice: The choice.
        start: Seconds since 1970, or None where it gives no time.
        refusal: Why it would not take it, or empty.
    """

    choice: Choice
    start: int | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What was chosen, and from what.

    Args:
        estimates: All that the scheduler was asked about, the best first, the refused last.
        picked: What is asked for: one job, or several of which one runs.
        left_out: Types that do not serve the request, and why.
        now: The cluster's time when it was asked, in seconds since 1970.
        unit: What the site calls its units.
    """

    estimates: tuple[Estimate, ...]
    picked: tuple[Choice, ...]
    left_out: tuple[tuple[str, str], ...]
    now: int
    unit: str


def choices(request: Request, settings: Settings, site: Site) -> Choices:
    """The ways to serve a request: one where a type is named, else each type that is enough.

    A slice of a GPU is never among them unless it was named.  All have the same number of nodes,
    the least that any of them needs, for a command is right for one shape only.

    Raises:
        ConfigError: A value is wrong.
        RefusedError: No type of the site is enough.
    """
    if request.gpu_mem and not (request.gpus or request.gpus_per_node):
        request = replace(request, gpus=request.nodes or 1)
    names = _names(request, settings, site)
    if names is None:
        asked = options(_plain(request, site), settings, site)
        _check_memory(request, settings, site)
        return Choices((Choice("", asked),))
    least = memory.parse(request.gpu_mem) if request.gpu_mem else 0
    # a partition that the site's data do not know is believed, as for a named type
    known = {p for _, gpu in names for p in gpu.partition.split(",")}
    within = known & set((request.partition or "").split(","))
    found: list[Choice] = []
    left_out: list[tuple[str, str]] = []
    for name, gpu in names:
        why = _unfit(gpu, least)
        if not why and within and not within & set(gpu.partition.split(",")):
            why = f"it is in {gpu.partition}"
        if not why:
            try:
                asked = options(replace(request, gpu_type=name), settings, site)
            except RefusedError as error:
                why = error.message.rstrip(".")
            else:
                found.append(Choice(name, asked, _units(site, name, asked)))
        if why:
            left_out.append((name, why))
    nodes = min((choice.options.nodes or 1 for choice in found), default=1)
    left_out += [
        (c.kind, f"it would take {c.options.nodes} nodes, where others take {nodes}")
        for c in found
        if (c.options.nodes or 1) > nodes
    ]
    fit = tuple(c for c in found if (c.options.nodes or 1) == nodes)
    if not fit:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out)
        raise RefusedError(
            f"No type of GPU of {site.title} serves this request ({reasons}).",
            "Ask for fewer GPUs, less memory or less time.",
        )
    return Choices(fit, tuple(left_out))


def _names(request: Request, settings: Settings, site: Site) -> tuple[tuple[str, Gpu], ...] | None:
    """The types among which may be chosen; None where there is no choice."""
    if not site.gpus or request.mig or (request.gpus == 0 and not request.gpus_per_node):
        return None
    said = request.gpu_type or settings.defaults.gpu_type
    if said is None and not (request.gpus or request.gpus_per_node):
        return None
    if said is None or said == ANY:
        return tuple((name, gpu) for name, gpu in site.gpus.items() if not gpu.mig)
    if "," not in said:
        return None
    found = []
    for word in said.split(","):
        known = site.gpu(word.strip())
        if known is None:
            raise ConfigError(
                f"{site.title} has no GPU type {word.strip()!r}.",
                f"It has: {', '.join(site.gpu_names())}.",
            )
        found.append(known)
    return tuple(dict(found).items())


def _plain(request: Request, site: Site) -> Request:
    """A request of one type; at a site that nobody described, Slurm itself knows the types."""
    if request.gpu_type == ANY and not site.gpus:
        return replace(request, gpu_type=None, gpus=request.gpus or request.nodes or 1)
    return request


def _check_memory(request: Request, settings: Settings, site: Site) -> None:
    """Refuse a named type that has less memory than was said to be needed."""
    if not request.gpu_mem:
        return
    name = "mig" if request.mig else request.gpu_type or settings.defaults.gpu_type or ""
    known = site.gpu(name)
    why = "nobody wrote down how much memory it has"
    if known is not None:
        why = _unfit(known[1], memory.parse(request.gpu_mem))
    if why:
        raise RefusedError(
            f"{name or 'A GPU of this site'} is not known to have {request.gpu_mem}: {why}.",
            "Leave out --gpu-mem, or name another type with -t.",
        )


def _unfit(gpu: Gpu, least: int) -> str:
    """Why a type has too little memory, in MiB, by the site's data; empty if it has enough."""
    if least and gpu.memory is None:
        return "nobody wrote down how much memory it has"
    if gpu.memory is not None and gpu.memory * _MIB < least:
        return f"it has {gpu.memory:g} GiB"
    return ""


def _units(site: Site, name: str, asked: SbatchOptions) -> float | None:
    if asked.gpus is None or asked.time is None:
        return None
    return pricing.asked(site, name, (asked.nodes or 1) * asked.gpus[1], asked.time).units


def read_estimate(choice: Choice, status: int, text: str, clock: tuple[int, str]) -> Estimate:
    """What `sbatch --test-only` says of a choice.

    Args:
        choice: The choice.
        status: The exit status.
        text: Both outputs.
        clock: The cluster's time, in seconds since 1970 and as its own clock face
            (`2026-11-21T16:04:05`), for a Slurm that gives only the latter.
    """
    said = " ".join(text.split()).removeprefix("sbatch: ")
    if status != 0:
        return Estimate(choice, refusal=said.removeprefix("allocation failure: ") or "no reason")
    match = re.search(r"to start at (\S+)", said)
    return Estimate(choice, _moment(match[1], clock) if match else None)


def _moment(text: str, clock: tuple[int, str]) -> int | None:
    if text.isdigit():
        return int(text)
    try:
        then, now = (
            calendar.timegm(time.strptime(x, "%Y-%m-%dT%H:%M:%S")) for x in (text, clock[1])
        )
    except ValueError:
        return None
    return clock[0] + then - now


def ranked(estimates: Iterable[Estimate], now: int) -> tuple[Estimate, ...]:
    """Those that the scheduler would take, the best first.

    What starts within five minutes comes first, the cheapest of it in front; then what starts
    earliest; then what nobody knows a time of.  A price that nobody knows counts as the highest.

    Args:
        estimates: What the scheduler says.
        now: The cluster's time.
    """

    def key(found: Estimate) -> tuple[int, float, float]:
        units = found.choice.units
        cost = float("inf") if units is None else units
        if found.start is None:
            return 2, cost, 0
        if found.start - now <= SOON:
            return 0, cost, found.start
        return 1, found.start, cost

    return tuple(sorted((e for e in estimates if not e.refusal), key=key))


def chosen(best: tuple[Estimate, ...], now: int) -> tuple[Choice, ...]:
    """What is asked for: one choice that nobody waits for, else the few that start earliest."""
    first = best[0]
    if first.start is not None and first.start - now <= SOON:
        return (first.choice,)
    return tuple(e.choice for e in best[:_MOST])


def merged(picked: tuple[Choice, ...], nodes: Iterable[Node]) -> tuple[Choice, ...]:
    """One job for several partitions in the place of several jobs, where Slurm can express that.

    It can where no feature of nodes tells the types apart, and where no node of these partitions
    has a type that was not picked: then a GPU of any type is one of them.

    Args:
        picked: What is to be asked for.
        nodes: All nodes of the site.
    """
    if len(picked) < 2 or any(c.options.constraint or c.options.gpus is None for c in picked):
        return picked
    partitions = dict.fromkeys(p for c in picked for p in c.options.partition.split(","))
    wanted = {c.options.gpus[0] for c in picked if c.options.gpus}
    known: set[str] = set()
    for node in nodes:
        here = partitions.keys() & set(node.partitions)
        types = {gres.type for gres in node.gres if gres.name == "gpu"}
        if here and not types <= wanted:
            return picked
        if types:
            known |= here
    if known != partitions.keys():
        return picked
    first = picked[0].options
    assert first.gpus is not None
    asked = replace(first, partition=",".join(partitions), gpus=(None, first.gpus[1]))
    costs = [c.units for c in picked]
    units = None if None in costs else max(cost for cost in costs if cost is not None)
    return (Choice(",".join(c.kind for c in picked), asked, units),)
