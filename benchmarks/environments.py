"""Environments: unchanged, cold, on a new branch with a warm cache, with one dependency changed.

A scientist's usual packages, some fifty with what they need, from the index that this machine is
set up for; seconds of the build script alone, its checks included.  An unchanged one is submitted
to the mini-cluster, where sshd counts commands and files tell of an installer.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import HERE, Bench
from benchmarks.table import line
from rvstate import archive, assets
from rvstate.model.environment.spec import Surroundings, spec
from rvstate.model.settings import Environment
from rvstate.script import Script
from rvstate.transport.local import Local

sys.path.insert(0, str(HERE.parent / "tests"))
from runkit import repository

_PACKAGES = (
    *("numpy", "pandas", "scipy", "matplotlib", "scikit-learn", "networkx", "sympy", "pillow"),
    *("requests", "tqdm", "jinja2", "pyyaml", "click", "rich", "fsspec", "joblib", "packaging"),
    *("h5py", "pyarrow", "tokenizers", "safetensors", "huggingface-hub", "regex", "filelock"),
)
_RUNS = 3
# the one that changes: nothing else here needs it
_CHANGED = ("networkx<3.5",)


def rows(bench: Bench) -> Iterator[str]:
    """What an unchanged one costs, and what building one does."""
    yield from _unchanged(bench)
    yield from _built(bench)


def _unchanged(bench: Bench) -> Iterator[str]:
    """A run with an environment that is there, and one of a project that has none."""
    commands = []
    for name, files in (("without", {}), ("with", {"requirements.txt": "packaging\n"})):
        project = repository(bench.home / name, {"a.py": "", **files})
        _run(bench, project)
        mark, before = bench.cluster.logins()["mark"], installed(bench)
        _run(bench, project)
        commands.append(bench.cluster.logins(mark)["sessions"][bench.user]["command"])
    if not any("/packaging/" in entry for entry in before):
        raise SystemExit("there is no environment, so nothing was measured")
    yield "environments"
    yield "  an unchanged one"
    yield line("remote commands more than without", commands[1] - commands[0], "0", most=0)
    written = len(set(installed(bench)) ^ set(before))
    yield line("files that an installer touched", written, "0", most=0)


def _run(bench: Bench, project: Path) -> None:
    bench.run("rvstate", "run", "--json", "-A", "mygroup", "--", "python", "a.py", cwd=project)


def installed(bench: Bench) -> list[str]:
    """Every file of uv's cache and of the environments, with its last change."""
    places = [f"/scratch/{bench.user}/{name}" for name in (".cache/uv", ".rv/envs", ".rv/tools")]
    shown = bench.cluster.exec("find", *places, "-printf", "%p %C@\n", check=False).stdout
    return str(shown).splitlines()


def _built(bench: Bench) -> Iterator[str]:
    """The median of three, and ratios to the cold build."""
    found: dict[str, list[float]] = {"cold": [], "branch": [], "one": []}
    for number in range(_RUNS):
        place = Place(bench.home / f"envs-{number}")
        found["cold"].append(place.build("main", ()))
        found["branch"].append(place.build("feature", ()))
        count, total, new = place.sizes()
        found["one"].append(place.build("main", _CHANGED))
    cold, branch, one = (statistics.median(times) for times in found.values())
    yield f"  building {count} distributions, {total / 1e6:.0f} MB, by uv from the index here"
    yield line("cold build", cold)
    yield line("a new branch, warm cache", branch)
    yield line("one dependency changed", one)
    yield line("a new branch, of cold", branch / cold, "at most 0.20", most=0.2)
    yield line("one changed, of cold", one / cold, "at most 0.33", most=1 / 3)
    yield line("new bytes of the branch, of all", new / total, "at most 0.02", most=0.02)


class Place:
    """An account's environments with an empty cache."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def build(self, branch: str, changed: tuple[str, ...]) -> float:
        """Build an environment; the seconds that its script took."""
        names = {re.split("[<=>]", one)[0] for one in changed}
        lines = [name for name in _PACKAGES if name not in names]
        text = "\n".join((*lines, *changed, ""))
        work = self.root / "work" / branch
        (work / "code").mkdir(parents=True, exist_ok=True)
        (work / "code/requirements.txt").write_text(text)
        (work / "manifest").write_text("state\n")
        files = {"requirements.txt": text}
        made = spec(Environment(), Surroundings(), files.get, lambda _: {})
        assert made is not None
        envs = self.root / ".rv/envs/p"
        self.place = envs / ".generations" / branch / made.digest
        script = Script(
            "build_environment",
            (
                *("build", str(self.place.parent / "lock"), "60", str(envs / branch)),
                *(str(self.place), str(Path(sys.executable).parent / "uv")),
                *(str(self.root / ".cache/uv"), str(work / "code"), "state", "bench"),
            ),
            archive.bundle(
                {"recipe": made.text, "check.py": assets.program("check_environment")},
                {"inputs": ("./requirements.txt",)},
            ),
        )
        begun = time.perf_counter()
        answer = Local().run(script)
        taken = time.perf_counter() - begun
        if answer.status != 0 or not os.path.exists(self.place / ".rvstate-environment"):
            raise SystemExit(answer.errors)
        return taken

    def sizes(self) -> tuple[int, int, int]:
        """Distributions, bytes of the last environment, and those that it shares with nothing."""
        kept = self.place / ".rvstate"
        _, total, new = (kept / "size").read_text().split()
        return len((kept / "installed").read_text().splitlines()), int(total), int(new)
