"""keepalive against one find, the quickest touch, and touching everything."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.measure import Bench
from benchmarks.table import line
from rvstate import keepalive
from rvstate.keepalive import Policy
from rvstate.model.site import Purge

_MANY, _FEWER, _FEW = 200_000, 20_000, 1000
_PURGE = Purge(90, "atime", "allowed", None, "touch")
# Times a command inside the cluster, as the user, and says what the largest of its processes took.
_WATCH = """
import resource, subprocess, sys, time
begun = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
took = time.perf_counter() - begun
print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
_MAKE = """
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    folder = f"{top}/lib/python3.12/site-packages/package{number // 500}"
    if number % 500 == 0:
        os.makedirs(folder)
    with open(f"{folder}/module_{number:06}.py", "w"):
        pass
"""
_AGE = """
import os, sys, time
old, left = time.time() - 60 * 86400, int(sys.argv[2])
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        if left > 0:
            os.utime(os.path.join(folder, name), (old, old))
            left -= 1
"""


def rows(bench: Bench) -> Iterator[str]:
    """None stale, all stale, few stale, and memory; all on the cluster itself."""
    yield f"keepalive: {_MANY} files in one cache, on the login node, without the way there"
    tree = f"/scratch/{bench.user}/.cache/uv"
    _prepare(bench, tree, _MANY)
    ours = _ours(bench)
    # keepalive gives way to everybody else, so on a busy machine the others must do so, too
    calm = ("nice", "-n", "19")
    nothing = (*calm, "find", tree, "-atime", "+45")
    every = (*calm, "sh", "-c", 'find "$1" -type f -print0 | xargs -0 touch -a -c -h', "sh", tree)
    seed = (*calm, "find", tree, "-exec", "touch", "-a", "{}", "+")

    find, mine = _alternating(bench, tree, 0, nothing, ours)
    yield line("one find that finds nothing", find[0])
    yield line("keepalive, none stale", mine[0])
    yield line("times the find", mine[0] / find[0], "at most 1.3", most=1.3)
    many = mine[1]

    quickest, mine = _alternating(bench, tree, _MANY, every, ours)
    yield line("the quickest touch of all", quickest[0])
    yield line("keepalive, all stale", mine[0])
    yield line("times the touch", mine[0] / quickest[0], "at most 1.2", most=1.2)
    many = max(many, mine[1])

    all_of_them, mine = _alternating(bench, tree, _FEW, seed, ours)
    yield line("touching everything", all_of_them[0])
    yield line(f"keepalive, {_FEW} stale", mine[0])
    yield line("faster than touching everything", all_of_them[0] / mine[0], "at least 3", least=3)

    _prepare(bench, tree, _FEWER)
    (fewer,) = _alternating(bench, tree, _FEWER, ours)
    yield line(f"largest process, {_FEWER} files, MiB", fewer[1], "")
    yield line(f"largest process, {_MANY} files, MiB", many, "")
    yield line("times as much memory", many / fewer[1], "at most 1.5", most=1.5)


def _prepare(bench: Bench, tree: str, count: int) -> None:
    bench.cluster.run_as(bench.user, "sh", "-c", 'rm -rf "$1" && mkdir -p "$1"', "sh", tree)
    bench.cluster.run_as(bench.user, "mkdir", "-p", f"/scratch/{bench.user}/.rv")
    bench.cluster.run_as(bench.user, "/usr/bin/python3.11", "-c", _MAKE, tree, str(count))


def _ours(bench: Bench) -> tuple[str, ...]:
    """What the remote command runs, without the way there."""
    policy = Policy("touch", _PURGE)
    words = keepalive.arguments("touch", policy, f"/scratch/{bench.user}", "", ("uv",), queued=True)
    return ("sh", "-c", keepalive.script(words).text)


def _alternating(
    bench: Bench, tree: str, stale: int, *commands: tuple[str, ...]
) -> tuple[tuple[float, float], ...]:
    """Median seconds and largest MiB of each command, in turns, each from the same dates."""
    taken: list[list[tuple[float, float]]] = [[] for _ in commands]
    for turn in range(bench.runs + 1):
        for command, found in zip(commands, taken, strict=True):
            bench.cluster.run_as(bench.user, "find", tree, "-exec", "touch", "{}", "+")
            if stale:
                bench.cluster.run_as(
                    bench.user, "/usr/bin/python3.11", "-c", _AGE, tree, str(stale)
                )
            done = bench.cluster.run_as(bench.user, "/usr/bin/python3.11", "-c", _WATCH, *command)
            seconds, kib = map(float, done.stdout.split()[-2:])
            if turn:
                found.append((seconds, kib / 1024))
    return tuple(
        (statistics.median(s for s, _ in found), max(m for _, m in found)) for found in taken
    )
