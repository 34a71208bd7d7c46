"""Looks into the environment whose Python runs it: can be imported what was declared?

    python inspect.py imports declared|named [MODULE]...

Runs on the cluster with whatever Python (3.8 or later) the environment has, so it imports nothing
of rvstate.  `declared`: the modules of every distribution that was asked for by name.  Each is
imported by a process of its own.  What fails for want of a module or a library is said, and the
exit status is 1; what wants a GPU, or fails for reasons of its own, is only noted.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import time

BUDGET = 90  # seconds for all of it: a login node is shared, and a slow file system is slow
_GPU = re.compile(
    "libcuda|libnvidia|libnvml|cuda driver|no kernel image|nvidia|no gpu|gpu|libamdhip|libxpu", re.I
)
_IMPORT = "import importlib, sys; importlib.import_module(sys.argv[1])"


def modules(distribution: importlib.metadata.Distribution) -> list[str]:
    """The names that a distribution is imported by, the likeliest first, at most two."""
    tops: dict[str, bool] = {}
    for file in distribution.files or ():
        parts = file.parts
        if len(parts) == 2 and parts[1] == "__init__.py":
            tops[parts[0]] = True
        elif len(parts) == 1 and re.search(r"(\.py|\.so|\.pyd)$", parts[0]):
            tops[parts[0].split(".")[0]] = True
    name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"] or "").lower()
    found = [n for n in tops if n.isidentifier() and not n.startswith("_")]
    found = [n for n in found if n not in ("tests", "test", "docs", "examples", "setup")]
    return sorted(found, key=lambda n: (n.lower() != name, n))[:2]


def declared() -> list[str]:
    """The modules of the distributions that were asked for, as their installer noted."""
    found: list[str] = []
    for distribution in importlib.metadata.distributions():
        if distribution.read_text("REQUESTED") is not None:
            found += modules(distribution)
    tools = ("pip", "setuptools", "wheel", "pkg_resources")
    return [n for n in dict.fromkeys(found) if n not in tools]


def trouble(name: str, seconds: float) -> tuple[bool, str] | None:
    """Why a module cannot be imported, and whether that is the environment's fault."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False, f"was still being imported after {seconds:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
    last = lines[-1].strip()
    faulty = last.startswith(("ImportError", "ModuleNotFoundError")) and not _GPU.search(last)
    return faulty, last


def main(words: list[str]) -> int:
    """Check, say what is wrong, and answer the exit status."""
    named = words[1] == "named"
    names = words[2:] if named else declared()
    end = time.monotonic() + BUDGET
    failed = 0
    for name in names:
        left = end - time.monotonic()
        if left <= 1:
            print(f"note not every import could be tried within {BUDGET} s")
            break
        found = trouble(name, left)
        if found is None:
            continue
        if found[0]:
            failed += 1
            print(f"import {name} fails: {found[1]}", file=sys.stderr)
        else:
            print(f"note import {name} is not certain on this node: {found[1]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
