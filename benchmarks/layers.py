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
# nothing else here imports it; one that others import costs those imports, too
_SMALL = ("1.13.0", "1.14.0", "1.15.0", "1.16.0", "1.17.0")


def rows(bench: Bench) -> Iterator[str]:
    """What one takes, and five."""
    times: dict[int, list[float]] = {1: [], 5: []}
    sizes = {1: 0, 5: 0}
    more = []
    for number in range(_RUNS):
        for count in times:
            place = Place(bench.home / f"layers-{number}-{count}")
            cold = place.build("main", ())
            taken = [_layer(place, version) for version in _SMALL[:count]]
            times[count].append(cold + sum(taken))
            more += taken[1:]
            sizes[count] = _bytes(place.root)
    one, five = (statistics.median(found) for found in times.values())
    yield "layers"
    yield f"  an environment of {place.sizes()[0]} distributions, {place.sizes()[1] / 1e6:.0f} MB"
    yield line("with one layer", one)
    yield line("with five", five)
    yield line("each further layer", statistics.median(more))
    yield line("five, of one", five / one, "at most 1.30", most=1.3)
    yield line("bytes of five, of one", sizes[5] / sizes[1], "at most 1.10", most=1.1)


def _layer(place: Place, version: str) -> float:
    """Build one; the seconds that its script took."""
    wanted = layerkit.layer(place.place, {"uv": [f"six=={version}"]})
    uv = Path(sys.executable).parent / "uv"
    begun = time.perf_counter()
    answer = Local().run(layerkit.script((wanted,), place.root, uv))
    taken = time.perf_counter() - begun
    if answer.status != 0 or not os.path.exists(wanted.place / ".rvstate-environment"):
        raise SystemExit(answer.errors)
    return taken


def _bytes(root: Path) -> int:
    seen = {}
    for folder, _, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            found = os.lstat(path)
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
