import base64
import hashlib
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from rvstate import archive
from rvstate.errors import ConvergeError
from rvstate.model.project import File
from rvstate.script import Script, Spool


def entry(root: Path, name: str, kind: str = "f") -> File:
    path = root / name
    if kind == "l":
        return File(name, "l", os.fsencode(os.readlink(path)).hex(), 0)
    data = path.read_bytes()
    return File(name, kind, hashlib.sha256(data).hexdigest(), len(data))


def unpacked(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as found:
        return {member.name.removeprefix("code/"): member for member in found}


def test_names_modes_and_links_travel_and_nothing_else_does(tmp_path: Path) -> None:
    """Odd names and the executable bit arrive; dates, owners and other bits stay behind."""
    names = ["plain.py", "with space", "line\nbreak", "-dash", "donn\udce9es", "deep/er/file"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
        (tmp_path / name).chmod(0o604)
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o711)
    (tmp_path / "link").symlink_to("/nowhere/at all")
    files = [entry(tmp_path, n) for n in names]
    files += [entry(tmp_path, "tool", "x"), entry(tmp_path, "link", "l")]
    found = unpacked(archive.pack(str(tmp_path), files))
    assert {n: found[n].mode for n in names} == dict.fromkeys(names, 0o644)
    assert found["tool"].mode == 0o755
    assert (found["link"].type, found["link"].linkname) == (tarfile.SYMTYPE, "/nowhere/at all")
    assert {(m.mtime, m.uid, m.uname) for m in found.values()} == {(0, 0, "")}


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Packing twice makes no difference, so a digest of the archive means something."""
    (tmp_path / "a").write_text("a")
    files = [entry(tmp_path, "a")]
    assert archive.pack(str(tmp_path), files) == archive.pack(str(tmp_path), files)


@pytest.mark.parametrize("change", ["vanish", "shrink", "grow", "same size"])
def test_a_file_that_changes_meanwhile_is_said(tmp_path: Path, change: str) -> None:
    """What was read must be what was listed; a torn file never travels in silence."""
    path = tmp_path / "data"
    path.write_text("0123456789")
    file = entry(tmp_path, "data")
    if change == "vanish":
        path.unlink()
    elif change == "shrink":
        path.write_text("01")
    elif change == "same size":
        path.write_text("9876543210")
    else:
        path.write_text("0123456789 and more")
    with pytest.raises(ConvergeError, match="changed while it was being sent"):
        archive.pack(str(tmp_path), [file])


def test_lists_travel_in_front(tmp_path: Path) -> None:
    """Paths of any bytes come through as a list that find and tar read."""
    data = archive.pack(str(tmp_path), [], {"deleted": ["a b", "line\nbreak", "donn\udce9es"]})
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as found:
        member = found.extractfile("deleted")
        assert member is not None
        assert member.read() == b"a b\0line\nbreak\0donn\xe9es\0"


@pytest.mark.slow
def test_a_large_payload_never_is_in_memory(tmp_path: Path) -> None:
    """Packed into a file, made text piece by piece; what arrives is what was packed."""
    (tmp_path / "weights").write_bytes(os.urandom(1 << 20) * 60)
    with (tmp_path / "weights").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told: list[tuple[int, int]] = []
    files = (File("weights", "f", digest, 60 << 20),)
    tracemalloc.start()
    payload = archive.pack(
        str(tmp_path), files, {"files": ["./weights"]}, lambda *n: told.append(n)
    )
    assert isinstance(payload, Spool)
    sent = Script("push", (), payload).input
    assert isinstance(sent, list)
    # for every connector of pyinfra a member is a line, and lines end with a line break
    assert all(piece.endswith("\n") for piece in sent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert told[-1] == (payload.size, payload.size)
    assert told == sorted(told)
    packed = b"".join(base64.b64decode(piece) for piece in payload.lines())
    with tarfile.open(fileobj=io.BytesIO(packed)) as found:
        member = found.extractfile("code/weights")
        assert member is not None
        assert hashlib.file_digest(member, "sha256").hexdigest() == digest
