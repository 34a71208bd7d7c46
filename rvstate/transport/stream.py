"""What a script prints, handed on while it still runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable


class Tap:
    """Takes the frame of a streaming script off its output while that output still comes.

    Such a script says `group` as its first section, and `status` at its end, at once behind its
    last byte: a line break in front would have to be held back until it is known whose it is.

    Args:
        nonce: The script's marker.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = f"@@rvstate {nonce} ".encode()
        self._held = b""
        self.noise = b""
        """What start-up files printed in front."""
        self.begun = False
        self.group: str | None = None
        """The remote process group."""
        self.status: int | None = None
        """The command's exit status, once it ended."""

    def feed(self, data: bytes) -> bytes:
        """Add what came; give back what is the command's own output, byte for byte."""
        self._held += data
        out = b""
        while (at := self._held.find(self._mark)) >= 0:
            end = self._held.find(b"\n", at + len(self._mark))
            out += self._text(self._held[:at])
            if end < 0:
                self._held = self._held[at:]
                return out
            self._word(self._held[at + len(self._mark) : end])
            self._held = self._held[end + 1 :]
        # a marker may have come half
        keep = next(
            (n for n in range(len(self._mark) - 1, 0, -1) if self._held.endswith(self._mark[:n])), 0
        )
        cut = len(self._held) - keep
        out += self._text(self._held[:cut])
        self._held = self._held[cut:]
        return out

    def rest(self) -> bytes:
        """What is left at the end of the output."""
        out = self._text(self._held)
        self._held = b""
        return out

    def _text(self, data: bytes) -> bytes:
        if self.group is not None:
            return data
        if not self.begun:
            self.noise += data
        return b""

    def _word(self, header: bytes) -> None:
        word, _, value = header.decode("utf-8", "replace").partition(" ")
        if word == "begin":
            self.begun = True
            self.noise = self.noise.removesuffix(b"\n")
        elif word == "group":
            self.group = value
        elif word == "status" and value.isdigit():
            self.status = int(value)


def relay(
    process: subprocess.Popen[bytes],
    tap: Tap,
    first: bytes,
    source: int | None,
    sink: Callable[[bytes], object],
) -> int:
    """Feed a process from a descriptor and hand on what it prints, both as they come."""
    assert process.stdin is not None
    assert process.stdout is not None
    # a thread, for ours may be waiting on the terminal while the process has long ended
    feeder = threading.Thread(target=_feed, args=(process.stdin, first, source), daemon=True)
    feeder.start()
    while chunk := os.read(process.stdout.fileno(), 65536):
        if text := tap.feed(chunk):
            sink(text)
    if text := tap.rest():
        sink(text)
    return process.wait()


def _feed(pipe: object, first: bytes, source: int | None) -> None:
    # the other end may stop listening at any time: its exit status says what that meant
    with contextlib.suppress(OSError, ValueError):
        fd = pipe.fileno()  # type: ignore[attr-defined]
        _write_all(fd, first)
        while source is not None and (chunk := os.read(source, 65536)):
            _write_all(fd, chunk)
    with contextlib.suppress(OSError, ValueError):
        pipe.close()  # type: ignore[attr-defined]


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
