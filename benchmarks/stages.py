"""Pipelines: ten stages in five environments, run once, and again with nothing changed.

Commands are counted by the mini-cluster's sshd, and files of uv's cache and of the environments
tell of an installer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.environments import installed
from benchmarks.measure import HERE, Bench
from benchmarks.table import line

sys.path.insert(0, str(HERE.parent / "tests"))
from runkit import repository

# One small package in five versions; two stages share each, as stages of one library do.
_VERSIONS = ("23.0", "23.1", "23.2", "24.0", "24.1")
_STAGES = 10


def rows(bench: Bench) -> Iterator[str]:
    """What a pipeline costs of which nothing changed."""
    project = repository(bench.home / "stages", _files())
    first = _run(bench, project, "--wait")
    if {stage["state"] for stage in first["stages"]} != {"COMPLETED"}:
        raise SystemExit(f"a stage failed, so nothing was measured: {first}")
    if len({stage["environment"] for stage in first["stages"]}) != len(_VERSIONS):
        raise SystemExit("the environments are not as many as they should be")
    mark, before = bench.cluster.logins()["mark"], installed(bench)
    again = _run(bench, project)
    commands = bench.cluster.logins(mark)["sessions"][bench.user]["command"]
    touched = len(set(installed(bench)) ^ set(before))
    if [stage["action"] for stage in again["stages"]] != ["skip"] * _STAGES:
        raise SystemExit(f"something ran again: {again}")
    bare = bench.seconds(*bench.ssh_argv(bench.user), "rv-far", "true")
    whole = bench.seconds("rvstate", "pipeline", "run", "--json", cwd=project)
    yield f"stages: {_STAGES} in {len(_VERSIONS)} environments, nothing changed"
    yield line("remote commands", commands, "at most 4", most=4)
    yield line("files that an installer touched", touched, "0", most=0)
    yield line("a bare ssh", bare)
    yield line("rvstate pipeline run", whole)
    yield line("of a bare ssh", whole / bare, "")


def _files() -> dict[str, str]:
    """A project whose stages each read what the one before made."""
    tables = []
    for number in range(_STAGES):
        made = f'inputs = ["data/{number - 1}"]\n' if number else ""
        version = _VERSIONS[number % len(_VERSIONS)]
        tables.append(
            f"[stages.s{number}]\n"
            f'command = "stage.py data/{number}"\n{made}outputs = ["data/{number}"]\n'
            f'runtime_env = {{ uv = ["packaging=={version}"] }}\n'
            'resources = { account = "mygroup" }\n'
        )
    return {
        "rvstate.toml": "\n".join(tables),
        "requirements.txt": "packaging==25.0\nsix\n",
        "stage.py": "import packaging, sys\nopen(sys.argv[1], 'w').write(packaging.__version__)\n",
    }


def _run(bench: Bench, project: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        bench.run("rvstate", "pipeline", "run", "--json", *words, cwd=project)
    )
    return found
