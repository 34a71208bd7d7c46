"""Programs of this machine that a transport starts."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rvstate.errors import RefusedError, UnreachableError
from rvstate.script import Input
from rvstate.transport.base import Completed

# What a pipe takes without a reader on every system that we know (Linux 64 KiB, macOS 16 KiB).
_PIPE = 16000
_LISTEN = 0.2  # seconds between two looks at what a child has said
# Children that nobody waits for any more.
_left: list[Child] = []


@dataclass(slots=True)
class Child:
    """A local process whose input may be larger than a pipe; `slot` is held until its end.

    `begun` says that its session was open before it was given its command: what fails then, may
    have run.  One that is `apart` has a session of its own, and Ctrl-C does not end it.
    """

    process: subprocess.Popen[bytes]
    errors: BinaryIO
    data: bytes | Input
    slot: BinaryIO | None = None
    begun: bool = False
    apart: bool = False
    heard: Callable[[str], None] | None = None
    """Told each line of standard error as it comes."""

    def result(self, timeout: float | None = None) -> Completed:
        """Feed it, wait for it, collect it."""
        listener = None
        if self.heard is not None:
            listener = threading.Thread(target=self._listen, args=(self.heard,), daemon=True)
            listener.start()
        try:
            if isinstance(self.data, Input):
                self._feed(self.data)
                self.data = b""
            output, _ = self.process.communicate(self.data or None, timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise UnreachableError(
                f"No answer within {timeout:.0f} seconds.", "Try again; `rvstate doctor` looks why."
            ) from None
        except BaseException:
            if self.apart:
                # as one on a cluster, which goes on: it tidies up when it is told to end, or is
                # done; its pipes stay open as long as we live, and it is not ended by writing
                _left.append(self)
                listener = None
            else:
                self.process.kill()
                self.process.wait()
            raise
        finally:
            if listener is not None:
                listener.join()
            self.errors.seek(0)
            errors = self.errors.read().decode("utf-8", "replace")
            if self not in _left:
                self.errors.close()
            if self.slot is not None:
                self.slot.close()
        return Completed(self.process.returncode, output, errors)

    def _listen(self, heard: Callable[[str], None]) -> None:
        # pread leaves alone the place at which the child writes
        fd, at, held = self.errors.fileno(), 0, b""
        while True:
            ended = self.process.poll() is not None
            while chunk := os.pread(fd, 65536, at):
                at += len(chunk)
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    heard(line.decode("utf-8", "replace"))
            if ended:
                return
            time.sleep(_LISTEN)

    def _feed(self, data: Input) -> None:
        """Hand on a large input as it is made; its script prints nothing before it has it all."""
        assert self.process.stdin is not None
        # a process that stopped reading is reported by its exit status
        with contextlib.suppress(BrokenPipeError):
            for text in data:
                self.process.stdin.write(text.encode("utf-8", "surrogateescape"))
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdin = None

    def cancel(self) -> None:
        """End it; the remote side, which only reads, ends by itself."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        if self.slot is not None:
            self.slot.close()


def unlinked() -> BinaryIO:
    """A private file without a name, in the directory of our sockets.

    The standard library's tempfile would do, and takes longer to load than a look may take.
    """
    path = control_directory() / f"{os.getpid()}-{os.urandom(8).hex()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    path.unlink()
    return os.fdopen(fd, "w+b")


def spawn(
    argv: list[str],
    data: bytes | Input,
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    slot: BinaryIO | None = None,
    *,
    hold: bool = False,
    apart: bool = False,
) -> Child:
    """Start a program.

    Args:
        argv: Its words.
        data: Its standard input.
        env: Its environment; None for ours.
        pass_fds: Descriptors that it inherits.
        slot: A place on a connection, kept until it ended.
        hold: Whether its standard input stays open for more.
        apart: Whether it is in a session of its own, where no Ctrl-C reaches it.
    """
    # A file, not a pipe: a ControlMaster that stays behind may keep standard error open.
    errors = unlinked()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=env,
        pass_fds=pass_fds,
        # Ctrl-C reaches us; what was started on the cluster is ended or finished on purpose
        start_new_session=apart,
    )
    if isinstance(data, Input):
        return Child(process, errors, data, slot, apart=apart)
    if not hold and len(data) <= _PIPE and process.stdin is not None:
        # a process that died at once is reported by its exit status
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data)
            process.stdin.close()
        process.stdin = None
        data = b""
    return Child(process, errors, data, slot, apart=apart)


def which(program: str) -> str:
    """Where a program is; empty where it is not on PATH."""
    places = (os.path.join(folder, program) for folder in os.get_exec_path())  # noqa: PTH118 - text
    return next((p for p in places if os.access(p, os.X_OK) and Path(p).is_file()), "")


def control_directory() -> Path:
    """A private directory with a short name for control sockets.

    Not in the home directory, which may be full, slow or deep: a socket's path is limited to about
    104 bytes, of which OpenSSH needs 17 for a temporary suffix.

    Raises:
        RefusedError: Somebody else owns that name.
    """
    path = Path("/tmp") / f"rvstate-{os.getuid()}"  # noqa: S108 - checked to be ours and private
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RefusedError(
            f"{path} belongs to somebody else.", "Ask the owner or an administrator to remove it."
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path
