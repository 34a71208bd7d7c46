"""This machine as the account's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rvstate.script import Answer, Input, Script, read_answer
from rvstate.transport.base import LOCAL, Completed, Running, nothing_ran, whole_text
from rvstate.transport.child import spawn, unlinked
from rvstate.transport.stream import Tap, relay


@dataclass(slots=True)
class Local:
    """This machine, with `home` as the account's home directory (None: the real one)."""

    home: Path | None = None
    name: str = LOCAL
    commands: int = 0
    heard: Callable[[str], None] | None = None
    inherits: bool = False
    """Whether commands have our own surroundings, whatever `home` is."""

    def execute(self, command: str, data: bytes | Input = b"") -> Completed:
        """Run one command line with `sh -c`."""
        self.commands += 1
        child = spawn(["sh", "-c", command], data, self._env(), apart=True)
        child.heard = self.heard
        return child.result()

    def begin(self, script: Script) -> Running:
        """Start a script; its text comes from an unlinked file, so that no list shows it."""
        self.commands += 1
        with _text_file(script) as text:
            fd = text.fileno()
            return spawn(_from_descriptor(fd), script.data, self._env(), (fd,), apart=True)

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer."""
        done = running.result()
        answer = read_answer(script.nonce, done.output, done.errors)
        if answer is None:
            raise nothing_ran("This machine", whole_text(done))
        return answer

    def stream(self, script: Script, source: int | None, sink: Callable[[bytes], object]) -> int:
        """As `Ssh.stream`; Ctrl-C reaches the command by itself, it is of our process group."""
        self.commands += 1
        tap = Tap(script.nonce)
        with _text_file(script) as text:
            fd = text.fileno()
            process = subprocess.Popen(
                _from_descriptor(fd),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._env(),
                pass_fds=(fd,),
            )
        status = relay(process, tap, script.data, source, sink)
        return status if tap.status is None else tap.status

    def terminal(self, script: Script) -> int:
        """As `Ssh.terminal`: the terminal is ours."""
        self.commands += 1
        with _text_file(script) as text:
            fd = text.fileno()
            argv = _from_descriptor(fd)
            return subprocess.run(argv, check=False, env=self._env(), pass_fds=(fd,)).returncode

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""
        return self.finish(script, self.begin(script))

    def as_it_is(self) -> Local:
        """The same, with our own surroundings for its commands, and with a count of its own."""
        return Local(self.home, self.name, heard=self.heard, inherits=True)

    def _env(self) -> dict[str, str]:
        env = dict(os.environ)
        if self.inherits:
            return env
        # our own Python and uv are found first: the embedded default needs nothing installed
        env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", "")))
        if self.home is not None:
            env["HOME"] = str(self.home)
        return env


def _from_descriptor(fd: int) -> list[str]:
    return ["sh", "-c", f'eval "$(cat /dev/fd/{fd})"']


def _text_file(script: Script) -> BinaryIO:
    text = unlinked()
    text.write(script.text.encode("utf-8", "surrogateescape"))
    text.flush()
    text.seek(0)
    return text
