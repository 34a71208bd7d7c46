"""Layers: five environments that differ in one small package each, against one.

The environment is that of `environments.py`, from the index that this machine is set up for, with
an empty cache; seconds are those of the scripts that build, their checks included.  Bytes are those
on disk of environments and uv's cache together, a file with several names once.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environments import Place
from benchmarks.measure import HERE, Bench
from benchmarks.table import line
from rvstate.transport.local import Local

sys.path.insert(0, str(HERE.parent))
from tests import layerkit

_RUNS = 3
_TIME = "at most 1.30"
# nothing else here imports it; one that others import costs those imports, too
_SMALL = ("1.13.0", "1.14.0", "1.15.0", "1.16.0", "1.17.0")


def rows(bench: Bench) -> Iterator[str]:
    """What one takes, and five."""
    found: dict[str, list[float]] = {"cold": [], "one": [], "four": []}
    for number in range(_RUNS):
        place = Place(bench.home / f"layers-{number}")
        found["cold"].append(place.build("main", ()))
        found["one"].append(_layers(place, _SMALL[:1]))
        small = _bytes(place.root)
        found["four"].append(_layers(place, _SMALL[1:]))
        large = _bytes(place.root)
    cold, one, four = (statistics.median(times) for times in found.values())
    yield "layers"
    yield f"  an environment of {place.sizes()[0]} distributions, {place.sizes()[1] / 1e6:.0f} MB"
    yield line("cold build of the environment", cold)
    yield line("a layer", one)
    yield line("four more, with one command", four)
    yield line(
        "five layers, of one, with the base", (cold + one + four) / (cold + one), _TIME, most=1.3
    )
    yield line("bytes, likewise", large / small, "at most 1.10", most=1.1)


def _layers(place: Place, versions: tuple[str, ...]) -> float:
    """Build them with one command, as a pipeline does; the seconds that it took."""
    wanted = tuple(layerkit.layer(place.place, {"uv": [f"six=={x}"]}) for x in versions)
    uv = Path(sys.executable).parent / "uv"
    begun = time.perf_counter()
    answer = Local().run(layerkit.script(wanted, place.root, uv))
    taken = time.perf_counter() - begun
    there = [os.path.exists(one.place / ".rvstate-environment") for one in wanted]
    if answer.status != 0 or not all(there):
        raise SystemExit(answer.errors)
    return taken


def _bytes(root: Path) -> int:
    seen = {}
    for folder, _, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            found = os.lstat(path)
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
