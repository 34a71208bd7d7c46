"""The files of a tree as one compressed archive (part of the disk door: it reads the tree)."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from rvstate.errors import ConvergeError
from rvstate.model.project import File
from rvstate.script import Spool

# level 1: source code shrinks nearly as well, at a fifth of the time
_LEVEL = 1
# Bytes of files that are packed in memory; more go through a file.
_IN_MEMORY = 8 << 20


def pack(
    root: str,
    files: Iterable[File],
    lists: Mapping[str, Iterable[str]] | None = None,
    sent: Callable[[int, int], None] | None = None,
) -> bytes | Spool:
    """A gzip-compressed tar of `files` below `root`, as `code/PATH`.

    Owner, dates and every mode bit but "executable" stay behind: they are not part of a tree's
    state, and files on a purged file system should start young.

    Args:
        root: The project's root on this machine.
        files: What to pack; each must still be what it was when it was listed.
        lists: Lists of paths, name to paths, that travel in front as members `NAME`, each path
            ended by NUL.
        sent: Told of a large archive, while it is sent, how many bytes are, and of how many.

    Returns:
        The archive, in a file without a name where it is too large for memory.

    Raises:
        ConvergeError: A file changed or vanished since it was listed.
    """
    files = tuple(files)
    large = sum(file.size for file in files) > _IN_MEMORY
    buffer = tempfile.TemporaryFile(prefix="rvstate-") if large else io.BytesIO()  # noqa: SIM115 - handed on
    with tarfile.open(
        fileobj=buffer, mode="w:gz", compresslevel=_LEVEL, format=tarfile.GNU_FORMAT
    ) as archive:
        for name, paths in (lists or {}).items():
            _add_list(archive, name, paths)
        for file in files:
            _add(archive, Path(root) / file.path, file)
    if isinstance(buffer, io.BytesIO):
        return buffer.getvalue()
    return Spool(buffer, buffer.tell(), sent)


def bundle(texts: Mapping[str, str], lists: Mapping[str, Iterable[str]]) -> bytes:
    """A gzip-compressed tar of small files, name to text, and of lists as in `pack`.

    What lies in a directory `bin` is executable.
    """
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", compresslevel=_LEVEL, format=tarfile.GNU_FORMAT
    ) as archive:
        for name, paths in lists.items():
            _add_list(archive, name, paths)
        for name, text in texts.items():
            mode = 0o755 if "/bin/" in name else 0o644
            _add_text(archive, name, text.encode("utf-8", "surrogateescape"), mode)
    return buffer.getvalue()


def _add_list(archive: tarfile.TarFile, name: str, paths: Iterable[str]) -> None:
    text = "".join(f"{path}\0" for path in paths)
    _add_text(archive, name, text.encode("utf-8", "surrogateescape"), 0o644)


def _add_text(archive: tarfile.TarFile, name: str, text: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text), mode
    archive.addfile(info, io.BytesIO(text))


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, contents: BinaryIO) -> None:
        self._contents = contents
        self._total = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        data = self._contents.read(size)
        self._total.update(data)
        return data

    def is_whole(self, digest: str) -> bool:
        """Whether it was read to its end and holds what the digest says."""
        return not self._contents.read(1) and self._total.hexdigest() == digest


def _add(archive: tarfile.TarFile, path: Path, file: File) -> None:
    info = tarfile.TarInfo(f"code/{file.path}")
    try:
        if file.kind == "l":
            info.type = tarfile.SYMTYPE
            info.linkname = os.fsdecode(bytes.fromhex(file.digest))
            archive.addfile(info)
            return
        info.mode = 0o755 if file.kind == "x" else 0o644
        info.size = file.size
        with path.open("rb") as contents:
            hashed = _Hashed(contents)
            archive.addfile(info, hashed)
            if not hashed.is_whole(file.digest):
                raise _changed(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConvergeError(
                f"There is no room in {tempfile.gettempdir()} to pack what is sent.",
                "Free some, or set TMPDIR to a directory with room.",
            ) from error
        raise _changed(path) from error


def _changed(path: Path) -> ConvergeError:
    return ConvergeError(f"{path} changed while it was being sent.", "Run the command again.")
