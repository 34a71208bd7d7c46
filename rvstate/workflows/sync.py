"""The code of a project brought to its workspace without a job, and files brought back."""

from __future__ import annotations

import filecmp
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rvstate import git
from rvstate.errors import ConvergeError, RefusedError, RvstateError
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.request import Request
from rvstate.script import Script
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepare import KINDS, prepare
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.run.submit import push_only
from rvstate.workflows.session import Session

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to: what was prepared, and what the cluster had to say."""

    prepared: Prepared
    notices: tuple[str, ...]
    remote_commands: int


def prepare_push(session: Session, directory: Path, tell: Callable[[str], None]) -> Prepared:
    """What a push would send; writes nothing.

    Args:
        session: Which account.
        directory: Where the user stands, on this machine.
        tell: Told what is being done, in a few words.
    """
    # no job follows, so what a job would ask for does not matter
    order = Order(("true",), Request(gpus=0), None, (), directory)
    prepared = prepare(session, order, tell)
    # no environment is built either
    return replace(prepared, plan=prepared.plan.only(KINDS - {"tool"}))


def push(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> Pushed:
    """Bring the workspace's code to the state of the tree.

    Raises:
        ConvergeError: It failed, or somebody else keeps pushing.
    """
    said = push_only(session, prepared, tell)
    return Pushed(prepared, said, session.transport.commands)


@dataclass(frozen=True, slots=True)
class Found:
    """Files over there: (path relative to what was asked for, bytes) of each."""

    files: tuple[tuple[str, int], ...]


def _script(session: Session, word: str, directory: Path, remote: str) -> Script:
    # a path from / on needs no project to stand in
    base = "/" if remote.startswith("/") else _code(directory, remote)
    return Script("pull", (word, session.scratch, session.home, base, remote))


def _code(directory: Path, remote: str) -> str:
    try:
        project = git.inspect(directory)
    except RefusedError as error:
        raise RefusedError(
            f"{remote} would be looked for in a project's workspace, and {directory} is in none.",
            "Write the path from / on, or stand in the project.",
        ) from error
    return Layout(SYMBOLIC).workspace(project.name, project.branch_component).code


def look(session: Session, directory: Path, remote: str) -> Found:
    """What a pull would bring, with one remote command.

    Raises:
        RvstateError: There is nothing of that name over there.
    """
    answer = session.transport.run(_script(session, "list", directory, remote))
    if answer.status != 0:
        raise _not_there(answer.errors)
    fields = answer.first("files").split(b"\0")
    pairs = zip(fields[::2], fields[1::2], strict=False)
    files = ((name.decode("utf-8", "surrogateescape"), int(size)) for size, name in pairs)
    return Found(tuple(sorted((name.removeprefix("./"), size) for name, size in files)))


def _not_there(said: str) -> RvstateError:
    lines = [line.removeprefix("rvstate: ") for line in said.splitlines() if line.strip()]
    reason = lines[-1] if lines else "the cluster gave no reason"
    return RvstateError(f"Nothing was brought: {reason}.", "`rvstate exec ls` shows what is there.")


def pull(
    session: Session, directory: Path, remote: str, target: Path, *, overwrite: bool
) -> tuple[str, ...]:
    """Bring files here; a file that is there already and differs is never overwritten unasked.

    Args:
        session: Which account.
        directory: Where the user stands, on this machine.
        remote: A path on the cluster; a relative one starts in the workspace's code.
        target: The directory on this machine that they go to.
        overwrite: Whether files that differ are replaced.

    Returns:
        The paths that were written, relative to `target`.

    Raises:
        RvstateError: There is nothing of that name over there.
        RefusedError: Files here differ, or a path would leave `target`; nothing was written.
        ConvergeError: The files did not arrive whole.
    """
    look(session, directory, remote)
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        packed, fresh = Path(folder) / "packed", Path(folder) / "files"
        fresh.mkdir()
        with packed.open("wb") as file:
            script = _script(session, "send", directory, remote)
            status = session.transport.stream(script, None, file.write)
        if status != 0:
            raise ConvergeError("The files did not arrive whole.", "Run the command again.")
        names = _unpack(packed, fresh)
        different = tuple(name for name in names if not _same(fresh / name, target / name))
        there = tuple(name for name in different if _exists(target / name))
        if there and not overwrite:
            more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
            raise RefusedError(
                f"Files here differ from those on the cluster: {', '.join(there[:_SHOWN])}{more}. "
                "Nothing was written.",
                "Add --overwrite to replace them, or give another directory.",
            )
        for name in different:
            _place(fresh / name, target / name)
    return different


def _unpack(packed: Path, folder: Path) -> tuple[str, ...]:
    try:
        with tarfile.open(packed, "r:gz", errors="surrogateescape") as archive:
            members = archive.getmembers()
            archive.extractall(folder, members, filter="data")
    except tarfile.FilterError as error:
        raise RefusedError(
            f"Nothing was written: {error}.", "Bring the files that you need one by one."
        ) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ConvergeError(
            f"The files did not arrive whole ({error}).", "Run the command again."
        ) from error
    return tuple(sorted(member.name.removeprefix("./") for member in members))


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _same(one: Path, two: Path) -> bool:
    if one.is_symlink() or two.is_symlink():
        return one.is_symlink() and two.is_symlink() and one.readlink() == two.readlink()
    return two.is_file() and filecmp.cmp(one, two, shallow=False)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.rvstate-part")
    shutil.copy2(source, part, follow_symlinks=False)
    part.replace(target)
