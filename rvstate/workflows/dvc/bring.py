"""Experiments brought over rvstate's own connection: their commits, and files of DVC's cache."""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rvstate import history
from rvstate.errors import ConvergeError
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.workflows.session import Session

_FILE = re.compile(r"files/md5/([0-9a-f]{2})/([0-9a-f]{30})(\.dir)?")


def commits(session: Session, root: Path, store: RemotePath, wanted: dict[str, str]) -> None:
    """Bring experiments' commits, and name them here.

    Args:
        session: Which account.
        root: Where git is asked here.
        store: The account's repository of the project.
        wanted: The reference that each gets here, to its commit.

    Raises:
        ConvergeError: They did not arrive whole.
    """
    # an experiment's reference names the commit that it started from
    bases = ("".join(name.split("/")[2:4]) for name in wanted)
    have = "\n".join(history.known(root, bases))
    asked = ("commits", store, have, "\n".join(wanted.values()))
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        packed = Path(folder) / "packed"
        _stream(session, Script("dvc_kept", asked), packed)
        history.take(root, packed, wanted)


def files(
    session: Session,
    root: Path,
    store: RemotePath,
    cache: RemotePath,
    wanted: Iterable[str],
    only: Iterable[str] = (),
) -> tuple[int, tuple[str, ...]]:
    """Bring what DVC's cache on the cluster has of commits, into DVC's cache here.

    Args:
        session: Which account.
        root: Where DVC is asked here.
        store: The account's repository of the project.
        cache: DVC's cache there.
        wanted: The commits.
        only: Names of files as DVC has them; empty for all that the commits need.

    Returns:
        How many files came, and what the user should know.

    Raises:
        ConvergeError: Something did not arrive whole.
    """
    program = history.dvc(root)
    status, said = history.run_dvc(program, root, "cache", "dir") if program else (1, "")
    if status != 0:
        return 0, ("there is no dvc on this machine, so only commits came",)
    asked = ("files", store, cache, "\n".join(wanted), "\n".join(only))
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        packed = Path(folder) / "packed"
        _stream(session, Script("dvc_kept", asked), packed)
        return _unpack(packed, Path(said.strip().splitlines()[-1])), ()


def _stream(session: Session, script: Script, target: Path) -> None:
    with target.open("wb") as file:
        status = session.transport.stream(script, None, file.write)
    if status != 0:
        raise ConvergeError("What was asked for did not arrive whole.", "Run the command again.")


def _unpack(packed: Path, cache: Path) -> int:
    """Put files into DVC's cache, each only where it is what its name says; how many were new."""
    count = 0
    with tarfile.open(packed, "r:") as archive:
        for member in archive:
            found = _FILE.fullmatch(member.name)
            source = archive.extractfile(member) if found and member.isfile() else None
            if found is None or source is None:
                continue
            target = cache / "files" / "md5" / found[1] / f"{found[2]}{found[3] or ''}"
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.rvstate-part")
            total = hashlib.md5(usedforsecurity=False)
            with part.open("wb") as file:
                while piece := source.read(1 << 20):
                    total.update(piece)
                    file.write(piece)
            if total.hexdigest() != found[1] + found[2]:
                part.unlink()
                raise ConvergeError(
                    f"{member.name} is damaged on the cluster.",
                    "Run the experiment again with `dvc exp run --force`.",
                )
            # as DVC keeps its cache
            part.chmod(0o444)
            part.replace(target)
            count += 1
    return count
