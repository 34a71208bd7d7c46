"""Looks into the environment whose Python runs it: can be imported what was declared?

    python check.py imports KEPT ENVIRONMENTS declared|named [MODULE]...
    python check.py spoiled [NAME==VERSION]...
    python check.py origins DIRECTORY

Runs on the cluster with whatever Python (3.8 or later) the environment has, so it imports nothing
of rvstate.  `declared`: the modules of every distribution that was asked for by name.  Each is
imported by a process of its own.  What fails for want of a module or a library is said, and the
exit status is 1; what wants a GPU, or fails for reasons of its own, is only noted.
`origins`: the distributions in a site-packages directory, of whichever environment, that came from
an address or a directory and from no index: `NAME==VERSION`, a blank, and what pip would be asked.

KEPT gets a line for each import that succeeded: the module, and NAME=DIGEST for the interpreter and
for all that the import loaded or looked for (`-` where it found nothing).  Where the same stands in
such a file of another environment, ENVIRONMENTS/*/*/.rvstate/imported, that import is not tried
again: nothing that it depends on differs.
"""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

BUDGET = 90  # seconds for all of it: a login node is shared, and a slow file system is slow
AT_ONCE = 4  # imports; fewer where there are fewer processors
_GPU = re.compile(
    "libcuda|libnvidia|libnvml|cuda driver|no kernel image|nvidia|no gpu|gpu|libamdhip|libxpu", re.I
)
# Says what was loaded or looked for, but for what every Python has.
_IMPORT = """
import importlib, sys
asked = []
class Asked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        asked.append(name)
sys.meta_path.insert(0, Asked)
importlib.import_module(sys.argv[1])
names = {name.partition(".")[0] for name in (*asked, *list(sys.modules))}
names -= {*getattr(sys, "stdlib_module_names", ()), "__main__"}
print("\\n@@loaded " + " ".join(sorted(names)))
"""


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


class Contents:
    """What is installed under each name that can be imported, as digests."""

    def __init__(self) -> None:
        python = f"{os.path.realpath(sys.executable)} {sys.version}"
        self._digests = {"python": _digest([python])}
        lines: dict[str, list[str]] = {}
        for distribution in importlib.metadata.distributions():
            # each line ends with the file's own digest; programs name the environment's path
            record = (distribution.read_text("RECORD") or "").splitlines()
            record = [
                x for x in record if not re.match(r"\.\.|/|[^/]*\.dist-info/(?!METADATA,)", x)
            ]
            tops = {re.split(r"[/.,]", x, maxsplit=1)[0] for x in record if ".dist-info/" not in x}
            for top in tops:
                lines.setdefault(top, []).extend(record)
        self._digests.update((top, _digest(sorted(found))) for top, found in lines.items())

    def of(self, name: str) -> str:
        """The digest of all distributions that have a part of it."""
        return self._digests.get(name, "-")

    def line(self, module: str, names: list[str]) -> str:
        """What an import depended on, as one line of KEPT."""
        return " ".join((module, *(f"{name}={self.of(name)}" for name in ("python", *names))))

    def hold(self, line: str) -> bool:
        """Whether all that an import depended on is the same here."""
        pairs = (word.partition("=") for word in line.split()[1:])
        return all(self.of(name) == digest for name, _, digest in pairs)


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def known(environments: str, here: Contents) -> dict[str, str]:
    """Imports that succeeded in another environment and so must in this one: module to line."""
    found: dict[str, str] = {}
    for path in glob.glob(f"{glob.escape(environments)}/*/*/.rvstate/imported"):  # noqa: PTH207
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - a plain path
            found.update((x.split()[0], x) for x in file.read().splitlines() if here.hold(x))
    return found


def attempt(name: str, seconds: float) -> tuple[list[str], bool, str]:
    """Import a module.

    Returns:
        The names that it loaded or looked for, whether it failed by the environment's fault, and
        why it failed; no reason where it did not.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return [], False, f"was still being imported after {seconds:.0f} s"
    if done.returncode == 0:
        said = re.findall(r"^@@loaded (.*)$", done.stdout.decode("utf-8", "replace"), re.M)
        return said[-1].split() if said else [], False, ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
    last = lines[-1].strip()
    return (
        [],
        last.startswith(("ImportError", "ModuleNotFoundError")) and not _GPU.search(last),
        last,
    )


def spoiled(among: list[str]) -> list[str]:
    """Distributions that lack a file, or share one with uv's cache that is not what was published.

    Only those that are named, as their directories are, or all where none is.

    A purge may have taken files of the cache, or somebody forced an edit.  Only files whose date
    differs from their neighbours' are read, so it costs a look at each.
    """
    found = []
    for distribution in importlib.metadata.distributions():
        folder = str(getattr(distribution, "_path", "")).replace("\\", "/").rpartition("/")[2]
        if among and folder.replace(".dist-info", "").replace("-", "==", 1) not in among:
            continue
        if _is_spoiled(distribution):
            found.append(str(distribution.metadata["Name"]))
    return found


def _is_spoiled(distribution: importlib.metadata.Distribution) -> bool:
    dates: dict[int, int] = {}
    files = []
    for name, digest, size in _record(distribution):
        path = str(distribution.locate_file(name))
        try:
            seen = os.lstat(path)
        except OSError:
            return True
        if stat.S_ISREG(seen.st_mode) and seen.st_nlink > 1:
            minute = int(seen.st_mtime) // 60
            dates[minute] = dates.get(minute, 0) + 1
            files.append((path, digest, seen.st_size != size, minute))
    usual = max(dates, key=lambda m: dates[m], default=0)
    return any(
        (resized or abs(minute - usual) > 1) and not _intact(path, digest)
        for path, digest, resized, minute in files
    )


def _record(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, str, int]]:
    """Path, digest and bytes of each file that has them in RECORD.

    As https://packaging.python.org, "Recording installed projects", has it.
    """
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if len(row) == 3 and row[1] and row[2].isdecimal():
            yield row[0], row[1], int(row[2])


def _intact(path: str, expected: str) -> bool:
    name, _, value = expected.partition("=")
    if name not in hashlib.algorithms_available:
        return True
    with open(path, "rb") as contents:  # noqa: PTH123 - a plain path
        digest = hashlib.new(name, contents.read()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == value


def origins(directory: str) -> list[str]:
    """What to ask pip for to get again what no index brought (PEP 610)."""
    found = []
    for distribution in importlib.metadata.distributions(path=[directory]):
        try:
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
            name, url = distribution.metadata["Name"], str(origin["url"])
        except (ValueError, KeyError, TypeError):
            continue
        vcs = origin.get("vcs_info", {})
        if vcs:
            url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
        if origin.get("subdirectory"):
            url += f"#subdirectory={origin['subdirectory']}"
        folder = str(getattr(distribution, "_path", "")).rpartition("/")[2]
        pair = folder.replace(".dist-info", "").replace("-", "==", 1)
        editable = origin.get("dir_info", {}).get("editable", False)
        found.append(f"{pair} -e {url}" if editable else f"{pair} {name} @ {url}")
    return sorted(found)


def imports(kept: str, environments: str, names: list[str]) -> int:
    """Try them, say what is wrong, and answer how many failed."""
    here = Contents()
    fine = known(environments, here)
    end = time.monotonic() + BUDGET
    failed = 0
    good = [fine[name] for name in names if name in fine]
    new = [name for name in names if name not in fine]

    def tried(name: str) -> tuple[list[str], bool, str] | None:
        left = end - time.monotonic()
        return attempt(name, left) if left > 1 else None

    # a process each; most of it is waiting for a file system
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        found = list(pool.map(tried, new))
    if None in found:
        print(f"note not every import could be tried within {BUDGET} s")
    for name, result in zip(new, found):  # noqa: B905 - Python 3.8
        if result is None:
            continue
        loaded, faulty, why = result
        if loaded:
            good.append(here.line(name, loaded))
        elif faulty:
            failed += 1
            print(f"import {name} fails: {why}", file=sys.stderr)
        elif why:
            print(f"note import {name} is not certain on this node: {why}")
    with open(kept, "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - a plain path
        file.writelines(f"{line}\n" for line in good)
    return failed


def main(words: list[str]) -> int:
    """Do as the words say, and answer the exit status."""
    if words[0] in ("spoiled", "origins"):
        for line in spoiled(words[1:]) if words[0] == "spoiled" else origins(words[1]):
            print(line)
        return 0
    names = words[4:] if words[3] == "named" else declared()
    return 1 if imports(words[1], words[2], names) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
