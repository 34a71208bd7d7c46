"""Looks into the environment whose Python runs it: can be imported what was declared?

    python check.py imports declared|named [MODULE]...
    python check.py spoiled

Runs on the cluster with whatever Python (3.8 or later) the environment has, so it imports nothing
of rvstate.  `declared`: the modules of every distribution that was asked for by name.  Each is
imported by a process of its own.  What fails for want of a module or a library is said, and the
exit status is 1; what wants a GPU, or fails for reasons of its own, is only noted.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import re
import stat
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


def spoiled() -> list[str]:
    """Distributions with a file that is shared with uv's cache and is not what was published.

    Only files whose date differs from their neighbours' are read, so it costs a look at each.
    """
    found = []
    for distribution in importlib.metadata.distributions():
        dates: dict[int, int] = {}
        files = []
        for file in distribution.files or ():
            try:
                seen = os.lstat(str(file.locate()))
            except OSError:
                continue
            if file.hash is not None and stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
                minute = int(seen.st_mtime) // 60
                dates[minute] = dates.get(minute, 0) + 1
                files.append((file, seen, minute))
        usual = max(dates, key=lambda m: dates[m], default=0)
        for file, seen, minute in files:
            odd = abs(minute - usual) > 1 or (file.size is not None and seen.st_size != file.size)
            if odd and not _intact(file):
                found.append(str(distribution.metadata["Name"]))
                break
    return found


def _intact(file: importlib.metadata.PackagePath) -> bool:
    if file.hash is None or file.hash.mode not in hashlib.algorithms_available:
        return True
    with open(str(file.locate()), "rb") as contents:  # noqa: PTH123 - a plain path
        digest = hashlib.new(file.hash.mode, contents.read()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value


def main(words: list[str]) -> int:
    """Check, say what is wrong, and answer the exit status."""
    if words[0] == "spoiled":
        for name in spoiled():
            print(name)
        return 0
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
