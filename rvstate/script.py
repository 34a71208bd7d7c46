"""A shipped script with its arguments, as the text that travels, and its answer read back.

A script travels on standard input, so neither a csh login shell, nor `ps`, nor a length limit
matters; its answer is framed by a random marker, so noise from start-up files does not matter.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from rvstate import assets
from rvstate.errors import ProbeError
from rvstate.shell import quote

_BUILDING = ("manifest", "kept_copy", *assets.BUILDING)
# What travels between `lib.sh` and a script, beside those that need nothing more.
_SHARED = {
    **dict.fromkeys(("copy_snapshot", "submit", "tool", "verify"), ("manifest",)),
    "build_environment": _BUILDING,
    "dvc_kept": ("dvc_settle",),
    **dict.fromkeys(("doctor", "probe"), ("environments",)),
    **dict.fromkeys(("heal", "layers"), (*_BUILDING, "build_environment")),
    "show_environment": ("manifest", "build_environment"),
    "stages": ("digests",),
    "submit_stages": ("manifest", "submit"),
    "keepalive": ("keepalive_places", "keepalive_report"),
}


# bytes of a spooled payload that become text at once; whole lines of base64 (57 bytes each)
_CHUNK = 57 * 4096


class Spool:
    """A payload too large for memory, in a file without a name.

    Args:
        file: Holds it from its start; nobody else uses it.
        size: Bytes.
        sent: Called with how many bytes were handed on so far, and how many there are.
    """

    def __init__(
        self, file: BinaryIO, size: int, sent: Callable[[int, int], None] | None = None
    ) -> None:
        self._file = file
        self._sent = sent
        self.size = size

    def lines(self) -> Iterator[str]:
        """It as text, piece by piece; every call begins at the start."""
        self._file.seek(0)
        done = 0
        while chunk := self._file.read(_CHUNK):
            yield base64.encodebytes(chunk).decode("ascii")
            done += len(chunk)
            if self._sent is not None:
                self._sent(done, self.size)
            # lets Ctrl-C be heard: pyinfra writes in a greenlet, which no signal interrupts
            time.sleep(0)


class Input(list[str]):
    """A script's text and then its payload, made piece by piece while they are sent.

    It is a list to pyinfra, whose connectors write a list's members one after the other.

    Args:
        text: What travels in front.
        payload: What follows it.
    """

    def __init__(self, text: str, payload: Spool) -> None:
        super().__init__()
        self._text = text
        self._payload = payload

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        yield self._text
        yield from self._payload.lines()


@dataclass(frozen=True, slots=True)
class Script:
    """One remote command.

    Args:
        name: The file `remote/{name}.sh`, which defines `main`.
        args: Its arguments; they never appear in an argument list of a process.
        payload: Bytes for the script's standard input, where they arrive in base64.
        nonce: The marker of this answer's frame.
        public: Nothing in it is secret: it may travel in the command, a round trip sooner.
    """

    name: str
    args: tuple[str, ...] = ()
    payload: bytes | Spool = field(default=b"", repr=False)
    nonce: str = field(default_factory=lambda: os.urandom(8).hex())
    public: bool = False

    @property
    def text(self) -> str:
        """The whole script; cut short anywhere, it does nothing, for the last line starts it.

        The arguments stand in a function, for a shell would run a last line that was cut between
        two of them.
        """
        return self._whole("rv_run", quote(self.nonce))

    @property
    def plain_text(self) -> str:
        """The same without a frame: for a person at a terminal, who would see it."""
        return self._whole("main")

    def shipped(self, starter: str, commands: Mapping[str, tuple[str, ...]]) -> str:
        """The same as a file that stays: `rv_main` is this script with its arguments.

        Args:
            starter: The script behind it, whose `rv_start` gets the file's own words.
            commands: Further command lines by the names that the starter calls them.
        """
        lines = {"rv_main": ("main", *self.args), **commands}
        named = (
            f'{name}() {{ {" ".join(map(quote, words))} "$@"\n}}' for name, words in lines.items()
        )
        parts = ("lib", *_SHARED.get(self.name, ()), self.name, starter)
        return "\n".join((*map(assets.script, parts), *named, 'rv_start "$@"\n'))

    def _whole(self, *words: str) -> str:
        call = " ".join((*words, *map(quote, self.args)))
        whole = f"rv_run_this() {{ {call}\n}}\nrv_run_this\n"
        parts = ("lib", *_SHARED.get(self.name, ()), self.name)
        return "\n".join((*map(assets.script, parts), whole))

    @property
    def data(self) -> bytes:
        """The payload as it travels: text, for pyinfra's own connectors carry nothing else."""
        if isinstance(self.payload, Spool):
            return "".join(self.payload.lines()).encode("ascii")
        return base64.encodebytes(self.payload)

    @property
    def input(self) -> str | Input:
        """Text and payload as they travel on standard input."""
        if isinstance(self.payload, Spool):
            return Input(self.text, self.payload)
        return self.text + self.data.decode("ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script printed inside its frame.

    Args:
        status: The script's exit status.
        sections: The text before the first section under "", then each section's bytes by name,
            in order.
        errors: What came on standard error, as text.
    """

    status: int
    sections: tuple[tuple[str, bytes], ...]
    errors: str = ""

    @property
    def body(self) -> bytes:
        """What was printed outside any section."""
        return self.first("")

    def first(self, name: str) -> bytes:
        """The first section of that name, or nothing."""
        return next((body for key, body in self.sections if key == name), b"")

    def all(self, name: str) -> tuple[bytes, ...]:
        """Every section of that name."""
        return tuple(body for key, body in self.sections if key == name)


def read_answer(nonce: str, output: bytes, errors: str = "") -> Answer | None:
    """The framed answer in a command's standard output.

    Args:
        nonce: The marker that the script was given.
        output: Everything that came on standard output, noise included.
        errors: Standard error, passed through.

    Returns:
        The answer, or None where the frame never began.

    Raises:
        ProbeError: The frame began and did not end: the connection was cut or the script killed.
    """
    mark = re.escape(f"\n@@rvstate {nonce} ".encode())
    parts = re.split(mark + rb"([^\n]*)\n", b"\n" + output)
    names, bodies = parts[1::2], parts[2::2]
    if not names or names[0] != b"begin":
        return None
    if not names[-1].startswith(b"end "):
        raise ProbeError(
            "The connection ended in the middle of an answer.",
            "Run the command again: every step can be repeated.",
        )
    status = int(names[-1].split()[1])
    keys = ("", *(name.decode("utf-8", "surrogateescape") for name in names[1:-1]))
    return Answer(status, tuple(zip(keys, bodies[:-1], strict=True)), errors)


def read_any(output: bytes) -> Answer | None:
    """The framed answer of a script whose marker is not at hand; None where there is no frame.

    Raises:
        ProbeError: As `read_answer`.
    """
    found = re.search(rb"^@@rvstate ([0-9a-f]+) begin$", output, re.M)
    return read_answer(found.group(1).decode(), output) if found else None
