"""Reads `remote/*` and `sites/*.toml`, which travel inside the wheel."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

# Not importlib.resources: it reads packages in archives too, which pip never makes, and takes
# longer to load than a look may take.
_HERE = Path(__file__).parent
# What `build_environment.sh` needs in front of it.
BUILDING = ("make_environment", "install_packages", "layer")


@cache
def script(name: str) -> str:
    """The text of `remote/{name}.sh`."""
    return (_HERE / "remote" / f"{name}.sh").read_text("utf-8")


@cache
def job_scripts() -> dict[str, str]:
    """The scripts that jobs and schedules use on the cluster, name to text."""
    names = ("chain", "hold", "inside", "into", "launch", "lib", "notify")
    # few files, for each one costs the look a question
    job = "\n".join(map(script, ("job", "job_python", "job_signals")))
    # what a job builds at its start
    build = "\n".join(map(script, ("manifest", *BUILDING, "build_environment")))
    dvc = f"{script('dvc')}\n{script('dvc_settle')}"
    stage = f"{script('digests')}\n{script('stage')}"
    return {
        "dvc.sh": dvc,
        "environment.sh": build,
        "job.sh": job,
        "stage.sh": stage,
        **{f"{name}.sh": script(name) for name in names},
    }


@cache
def program(name: str) -> str:
    """The text of `remote/{name}.py`, which an environment's own Python runs on the cluster."""
    return (_HERE / "remote" / f"{name}.py").read_text("utf-8")


def pipeline_modules() -> dict[str, str]:
    """What a pipeline that is written as code imports, path to text.

    It stands in front of an installed rvstate, and leaves that one's other modules where they are.
    """
    beside = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n'
    stages = (_HERE / "stages.py").read_text("utf-8")
    return {"rvstate/__init__.py": beside, "rvstate/stages.py": stages}


@cache
def job_scripts_digest() -> str:
    """A short SHA-256 over names and texts of `job_scripts()`."""
    total = hashlib.sha256()
    for name, text in sorted(job_scripts().items()):
        total.update(f"{name}\0{text}\0".encode())
    return total.hexdigest()[:16]


@cache
def site(name: str) -> str | None:
    """The text of `sites/{name}.toml`, or None where there is no such profile."""
    path = _HERE / "sites" / f"{name}.toml"
    return path.read_text("utf-8") if path.is_file() else None


def site_names() -> tuple[str, ...]:
    """The names of the profiles that ship with rvstate."""
    return tuple(sorted(path.stem for path in (_HERE / "sites").glob("*.toml")))
