"""A login node behind OpenSSH's own client."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rvstate.errors import (
    MissingToolError,
    NotAuthenticatedError,
    ProbeError,
    RvstateError,
    UnreachableError,
)
from rvstate.script import Answer, Input, Script, read_answer
from rvstate.transport.base import Completed, Running, cut, nothing_ran, whole_text
from rvstate.transport.child import Child, control_directory, spawn, unlinked, which
from rvstate.transport.held import Held
from rvstate.transport.line import encoded_command, held_command, remote_command
from rvstate.transport.places import LASTING_SESSIONS, SESSIONS, take_slot
from rvstate.transport.stream import Tap, relay
from rvstate.transport.trouble import explain

# The least that an 8 hour day with meetings needs; OpenSSH closes the connection afterwards.
_PERSIST = "12h"


_ATTEMPTS = 5


# What ssh says only before it has logged in: nothing can have begun, so asking again is safe.
_BUSY = re.compile(
    r"^(?:kex_exchange_identification|ssh_exchange_identification):"
    r"|^(?:banner|Banner) exchange:.*(?:closed|reset)"
    r"|^Connection (?:closed|reset) by \S+(?: port \d+)?\s*$",
    re.M,
)
# With one of these beside it, the same text tells of something else.
_NOT_BUSY = re.compile(r"client_loop:|mux_client_|Broken pipe|Timeout, server|stdio forwarding")


@dataclass(slots=True)
class Ssh:
    """A login node behind OpenSSH.

    Args:
        name: An alias of the user's ssh config, or a host name.
        user: The user there; None leaves it to the ssh config.
        config: Another ssh config file, as `ssh -F`.
        interactive: Whether a person may be asked for a password or second factor.
        hostname: The address, over what the ssh config says; None leaves it to that.
    """

    name: str
    user: str | None = None
    config: str | None = None
    interactive: bool = False
    hostname: str | None = None
    commands: int = 0
    heard: Callable[[str], None] | None = None
    _ssh: str = field(default="", init=False)
    _held: Held | None = field(default=None, init=False, repr=False)

    def argv(self, *options: str, batch: bool = True) -> list[str]:
        """The beginning of every ssh command line: one shared connection, no surprises."""
        if not self._ssh:
            self._ssh = which("ssh")
        if not self._ssh:
            raise MissingToolError(
                "The program ssh is not on this machine.",
                "Install OpenSSH's client (Debian: openssh-client), then run this again.",
            )
        settings = {
            "BatchMode": "yes" if batch else "no",
            "ControlMaster": "auto",
            "ControlPath": str(control_directory() / "%C"),
            "ControlPersist": _PERSIST,
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "LogLevel": "ERROR",
            # nothing of ours needs these, and a second forward of the same port would fail
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "RequestTTY": "no",
        }
        argv = [self._ssh]
        if self.config:
            argv += ["-F", str(Path(self.config).expanduser())]
        if self.hostname:
            settings["HostName"] = self.hostname
        for key, value in settings.items():
            argv += ["-o", f"{key}={value}"]
        if self.user:
            argv += ["-l", self.user]
        return [*argv, *options, "--", self.name]

    def guest(self, command: str) -> list[str]:
        """The command line of a client that uses the shared connection and never becomes it.

        It neither starts nor ends that connection; without one it logs in by itself, asking nobody.
        """
        argv = ["ControlMaster=no" if w == "ControlMaster=auto" else w for w in self.argv("-T")]
        return [*argv, command]

    def begin(self, script: Script, *, hold: bool = False) -> Running:
        """Start a script over the shared connection.

        Args:
            script: What to run.
            hold: Whether the shell of a public script stays, once that has answered, for the next
                command that is not.
        """
        if script.public:
            self.commands += 1
            slot = self._slot(SESSIONS)
            return _spawn_public(list(self.command_line(script, hold)), slot, script.nonce, hold)
        text = script.text.encode("utf-8", "surrogateescape")
        return self._start(remote_command(len(text)), text + script.data)

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer; log in and repeat where the command never started."""
        done = running.result()
        attempt = _first_attempt(running)
        while (answer := self._read(script, done)) is None:
            self._repeatable(done, attempt)
            attempt += 1
            done = self.begin(script).result()
        if isinstance(running, Held) and running.alive:
            if self._held is not None:
                self._held.cancel()
            self._held = running
        return answer

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""
        return self.finish(script, self.begin(script))

    def execute(self, command: str, data: bytes | Input = b"") -> Completed:
        """Run one command line of the login shell; only connection trouble raises."""
        running = self._start(command, data)
        attempt = _first_attempt(running)
        while (done := running.result()).status == 255:
            if explain(self.name, done.errors) is None:
                if not done.errors.strip():
                    # a session whose master lost its connection ends without a word
                    raise cut(self.name)
                break
            self._repeatable(done, attempt)
            attempt += 1
            running = self._start(command, data)
        return done

    def stream(self, script: Script, source: int | None, sink: Callable[[bytes], object]) -> int:
        """Run a script that shows what it does as it happens.

        Standard error is ours, inherited.  Noise of start-up files is left out.

        Args:
            script: Says `group PGID` first, so that Ctrl-C can end it over there (without a
                terminal sshd sends no signal when the connection goes), and `status N` last.
            source: The descriptor that becomes its standard input, behind the script's own text;
                None for an empty one.
            sink: Called with each piece of its standard output, as it comes.

        Returns:
            The script's own exit status.

        Raises:
            UnreachableError: The connection was cut before the end.
            ProbeError: The login node ran nothing.
        """
        self.open()
        tap = Tap(script.nonce)
        text = script.text.encode("utf-8", "surrogateescape")
        self.commands += 1
        with self.session(lasting=True):
            process = subprocess.Popen(
                [*self.argv("-T"), remote_command(len(text))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            try:
                relay(process, tap, text + script.data, source, sink)
            except BaseException:
                process.kill()
                process.wait()
                self._end(tap.group)
                raise
        if tap.status is not None:
            return tap.status
        if not tap.begun:
            raise nothing_ran(self.name, tap.noise.decode("utf-8", "replace"))
        raise cut(self.name)

    def terminal(self, script: Script) -> int:
        """Run a script with a terminal of its own, for programs that draw on the screen.

        Returns:
            The script's own exit status.

        Raises:
            CutError: The connection ended before it.
        """
        self.open()
        self.commands += 1
        with self.session(lasting=True):
            argv = [*self.argv("-t"), encoded_command(script.plain_text)]
            status = subprocess.run(argv, check=False).returncode
        # 255 is ssh's own, and may be the script's as well
        if status == 255 and not self.connected():
            raise cut(self.name)
        return status

    def _end(self, group: str | None) -> None:
        if group is None or not group.isdigit() or int(group) < 2:
            return
        # the user is leaving: a connection that is gone as well needs no second message
        with contextlib.suppress(RvstateError):
            self.run(Script("execute", ("end", group)))

    @contextlib.contextmanager
    def session(self, *, lasting: bool = False) -> Iterator[None]:
        """Keep one of the connection's sessions for as long as the block lasts.

        Args:
            lasting: It may take hours (a log that is followed), so it leaves room for others.

        Raises:
            UnreachableError: None became free within a minute.
        """
        slot = self._slot(LASTING_SESSIONS if lasting else SESSIONS)
        try:
            yield
        finally:
            if slot is not None:
                slot.close()

    @property
    def slot_name(self) -> str:
        """What the sessions of this connection are counted under."""
        account = ascii((self.name, self.user, self.config, self.hostname)).encode()
        return hashlib.sha256(account).hexdigest()[:16]

    def _slot(self, count: int) -> BinaryIO | None:
        return take_slot(self.slot_name, count, self.name)

    def command_line(self, script: Script, hold: bool = False) -> tuple[str, ...]:
        """The whole local command line that a public script is sent with; `hold` as in `begin`."""
        text = script.text
        line = held_command(text, script.nonce) if hold else encoded_command(text)
        return (*self.argv("-T"), line)

    def _start(self, command: str, data: bytes | Input) -> Running:
        self.commands += 1
        if isinstance(data, Input):
            # so large that a session of its own does not count
            return spawn([*self.argv("-T"), command], data, slot=self._slot(SESSIONS))
        held, self._held = self._held, None
        if held is not None and held.alive:
            child = held.begin(command, data)
        else:
            child = spawn([*self.argv("-T"), command], data, slot=self._slot(SESSIONS))
        child.heard = self.heard
        return child

    def _read(self, script: Script, done: Completed) -> Answer | None:
        """The answer; None where the command never started and ssh itself failed."""
        try:
            answer = read_answer(script.nonce, done.output, done.errors)
        except ProbeError:
            if done.status == 255:
                raise cut(self.name) from None
            raise
        if answer is None and done.status != 255:
            raise nothing_ran(self.name, whole_text(done))
        return answer

    def _repeatable(self, done: Completed, attempt: int) -> None:
        """Come back if nothing ran and asking again can help; raise what happened if not."""
        if attempt < _ATTEMPTS and _BUSY.search(done.errors) and not _NOT_BUSY.search(done.errors):
            # sshd drops some of many logins at once (MaxStartups, sshd_config(5))
            time.sleep((0.2 + 0.6 * os.urandom(1)[0] / 255) * attempt)
            return
        trouble = self._trouble(done)
        if self.interactive and attempt == 1 and isinstance(trouble, NotAuthenticatedError):
            self.login()
            return
        raise trouble

    def login(self) -> None:
        """Log in with a person at the keyboard; the connection then serves the rest of the day.

        Raises:
            NotAuthenticatedError: The login was refused or given up.
            RefusedError: The host key has changed.
        """
        sys.stderr.write(f"Logging in to {self.name} (once for today).\n")
        # prompts go to the terminal itself; the master must not hold a pipe of ours open
        argv = self.argv("-N", "-f", batch=False)
        done = subprocess.run(argv, check=False, stdin=None, stdout=subprocess.DEVNULL)
        if done.returncode != 0 or not self.connected():
            raise NotAuthenticatedError(
                f"The login to {self.name} did not succeed.",
                f"Try `ssh {self.name}` by hand; when that works, run this again.",
            )

    def open(self) -> None:
        """Have the shared connection up, asking a person only where that is allowed.

        Raises:
            RvstateError: It cannot be had; what `explain` says.
        """
        if self.connected():
            return
        attempt = 1
        while (done := self._open_once()).status != 0:
            self._repeatable(done, attempt)
            attempt += 1
            if self.connected():
                return

    def _proxy(self) -> str | None:
        found = self.described()
        for key in ("proxyjump", "proxycommand"):
            if found.get(key, "none") != "none":
                return found[key]
        return None

    def _open_once(self) -> Completed:
        with unlinked() as errors:
            argv = self.argv("-N", "-f")
            done = subprocess.run(
                argv,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            errors.seek(0)
            return Completed(done.returncode, b"", errors.read().decode("utf-8", "replace"))

    def connected(self) -> bool:
        """Whether the shared connection is up; asks only the local master process."""
        argv = self.argv("-O", "check")
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def disconnect(self) -> bool:
        """End the shared connection; whether there was one."""
        argv = self.argv("-O", "exit")
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def described(self) -> dict[str, str]:
        """What ssh's configuration says of this host (`ssh -G`), keyword to value; asks no one."""
        done = subprocess.run(self.argv("-G"), check=False, capture_output=True)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        pairs = (line.partition(" ") for line in lines)
        return {key: value for key, _, value in reversed([*pairs])}

    def _trouble(self, done: Completed) -> RvstateError:
        proxy = self._proxy() if _BUSY.search(done.errors) else None
        if proxy is not None:
            # ssh ends the jump's own client before that could say why
            return UnreachableError(
                f"{self.name} cannot be reached through the jump host {proxy}.",
                "It may be down, or busy with logins: check ProxyJump and HostName, try again.",
            )
        found = explain(self.name, done.errors)
        if found is not None:
            return found
        said = done.errors.strip().splitlines()
        return UnreachableError(
            f"ssh to {self.name} failed: {said[-1] if said else 'it said nothing'}",
            f"Try `ssh {self.name}` by hand.",
        )


def spawn_ssh(argv: list[str], slot: str, nonce: str, *, hold: bool) -> Running:
    """Run an ssh command line that `Ssh.command_line` made.

    Args:
        argv: That line.
        slot: The connection of which it takes a place, `Ssh.slot_name`.
        nonce: The marker of its script's answer.
        hold: As it was when the line was made.
    """
    return _spawn_public(argv, take_slot(slot, SESSIONS, argv[-2]), nonce, hold)


def _spawn_public(argv: list[str], slot: BinaryIO | None, nonce: str, hold: bool) -> Running:
    child = spawn(argv, b"", slot=slot, hold=hold)
    return Held(child, nonce) if hold else child


def _first_attempt(running: Running) -> int:
    """Where the count of attempts begins: what may have run has had its last."""
    return _ATTEMPTS if isinstance(running, Child) and running.begun else 1


def ssh_version() -> str:
    """What `ssh -V` says; empty where there is no ssh."""
    program = which("ssh")
    if not program:
        return ""
    done = subprocess.run([program, "-V"], check=False, capture_output=True)
    return (done.stderr or done.stdout).decode("utf-8", "replace").strip()
