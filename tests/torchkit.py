"""A CPU build of torch for the mini-cluster's Python, from wherever pip is configured to look.

The wheel is some 190 MB, so it is kept in a cache outside the clone (RVSTATE_TORCH_CACHE, or
~/.cache/rvstate-torch), with a line in `source` that says where it is from.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PYTHON = "3.11"  # Debian 12's, which the cluster has with --python=debian
_FOR = (f"--python-version={PYTHON}", "--only-binary=:all:", "--disable-pip-version-check")


def cache() -> Path:
    """Where the wheel is kept."""
    default = Path.home() / ".cache" / "rvstate-torch"
    return Path(os.environ.get("RVSTATE_TORCH_CACHE") or default)


def wheel() -> Path | None:
    """A wheel of torch for CPUs, or None where pip's sources have none; `source` says which."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    kept = sorted(folder.glob("torch-*+cpu-*.whl"))
    if kept:
        return kept[-1]
    found = re.search(r"[0-9.]+\+cpu", versions("torch"))
    if found is None:
        _say(f"not run: pip's configured sources have no CPU build of torch for Python {PYTHON}")
        return None
    version = found[0]
    part = folder / f".part-{os.getpid()}"
    done = _pip("download", "--no-deps", "--dest", str(part), f"torch=={version}")
    made = list(part.glob("*.whl"))
    if done.returncode != 0 or not made:
        _say(f"not run: torch {version} could not be fetched by pip")
        return None
    target = folder / made[0].name
    made[0].replace(target)
    part.rmdir()
    _say(f"torch {version}, a wheel from pip's configured sources")
    return target


def versions(name: str) -> str:
    """The versions of a package that pip's sources have, or nothing."""
    return _pip("index", "versions", name).stdout


def _pip(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", verb, *words, *_FOR]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _say(text: str) -> None:
    (cache() / "source").write_text(f"real torchrun on two nodes: {text}\n")
