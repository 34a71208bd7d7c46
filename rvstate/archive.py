"""The files of a tree as one compressed archive (part of the disk door: it reads the tree)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from rvstate.errors import ConvergeError
from rvstate.model.project import File


def pack(root: str, files: Iterable[File]) -> bytes:
    """A gzip-compressed tar of `files` below `root`.

    Owner, dates and every mode bit but "executable" stay behind: they are not part of a tree's
    state, and files on a purged file system should start young.

    Raises:
        ConvergeError: A file changed or vanished while it was read.
    """
    buffer = io.BytesIO()
    # level 1: source code shrinks nearly as well, at a fifth of the time
    with tarfile.open(
        fileobj=buffer, mode="w:gz", compresslevel=1, format=tarfile.GNU_FORMAT
    ) as archive:
        for file in files:
            _add(archive, Path(root) / file.path, file)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: Path, file: File) -> None:
    info = tarfile.TarInfo(file.path)
    try:
        if file.kind == "l":
            info.type = tarfile.SYMTYPE
            info.linkname = os.fsdecode(bytes.fromhex(file.digest))
            archive.addfile(info)
            return
        info.mode = 0o755 if file.kind == "x" else 0o644
        info.size = file.size
        with path.open("rb") as contents:
            archive.addfile(info, contents)
    except OSError as error:
        raise ConvergeError(
            f"{path} changed while it was being sent ({error}).", "Run the command again."
        ) from error
