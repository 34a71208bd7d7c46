"""The one way to a login node: OpenSSH, or this machine itself.

`Ssh` keeps one ControlMaster connection for the day and sends every script over it; `Local` runs
the same scripts here.  Both take a `Script` and give back its `Answer`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from rvstate.errors import (
    ConfigError,
    MissingToolError,
    NotAuthenticatedError,
    ProbeError,
    RefusedError,
    RvstateError,
    UnreachableError,
)
from rvstate.script import Answer, Script, read_answer

LOCAL = "@local"
# The least that an 8 hour day with meetings needs; OpenSSH closes the connection afterwards.
_PERSIST = "12h"
# What a pipe takes without a reader on every system that we know (Linux 64 KiB, macOS 16 KiB).
_PIPE = 16000
_GZIP = 31  # zlib's window bits for the gzip format
_ATTEMPTS = 5
# sshd takes ten sessions on one connection (MaxSessions, sshd_config(5)); ssh answers the eleventh
# by silently logging in again, which a second factor would make a prompt.  Two stay free for the
# user's own use of the socket, and a stream that may last for hours leaves two more.
_SESSIONS = 8
_LASTING_SESSIONS = 6
_SLOT_TRIES = 600
_SLOT_PAUSE = 0.1
# What ssh says only before it has logged in: nothing can have begun, so asking again is safe.
_BUSY = re.compile(
    r"^(?:kex_exchange_identification|ssh_exchange_identification):"
    r"|^(?:banner|Banner) exchange:.*(?:closed|reset)"
    r"|^Connection (?:closed|reset) by \S+(?: port \d+)?\s*$",
    re.M,
)
# With one of these beside it, the same text tells of something else.
_NOT_BUSY = re.compile(r"client_loop:|mux_client_|Broken pipe|Timeout, server|stdio forwarding")


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished remote command: exit status, standard output, standard error."""

    status: int
    output: bytes
    errors: str


class Running(Protocol):
    """A command under way."""

    def result(self, timeout: float | None = None) -> Completed:
        """Wait for its end; `timeout` in seconds."""

    def cancel(self) -> None:
        """End it here; whoever began it does not want its answer any more."""


class Transport(Protocol):
    """A way to an account."""

    name: str
    commands: int

    def begin(self, script: Script) -> Running:
        """Start a script and come back at once."""

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for a script that was begun."""

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""

    def execute(self, command: str, data: bytes = b"") -> Completed:
        """Run one command line of a POSIX shell with `data` on its standard input."""

    def stream(self, script: Script, source: int | None, sink: Callable[[bytes], object]) -> int:
        """Run a script that shows what it does as it happens; see `Ssh.stream`."""

    def terminal(self, script: Script) -> int:
        """Run a script with a terminal of its own; see `Ssh.terminal`."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that already ended, in the place of one under way."""

    done: Completed

    def result(self, timeout: float | None = None) -> Completed:
        """What it came to."""
        return self.done

    def cancel(self) -> None:
        """It has ended already."""


@dataclass(slots=True)
class _Process:
    """A local process whose input may be larger than a pipe; `slot` is held until its end."""

    process: subprocess.Popen[bytes]
    errors: BinaryIO
    data: bytes
    slot: BinaryIO | None = None

    def result(self, timeout: float | None = None) -> Completed:
        """Feed it, wait for it, collect it."""
        try:
            output, _ = self.process.communicate(self.data or None, timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise UnreachableError(
                f"No answer within {timeout:.0f} seconds.", "Try again; `rvstate doctor` looks why."
            ) from None
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.errors.seek(0)
            errors = self.errors.read().decode("utf-8", "replace")
            self.errors.close()
            if self.slot is not None:
                self.slot.close()
        return Completed(self.process.returncode, output, errors)

    def cancel(self) -> None:
        """End it; the remote side, which only reads, ends by itself."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        if self.slot is not None:
            self.slot.close()


def _unlinked() -> BinaryIO:
    """A private file without a name, in the directory of our sockets.

    The standard library's tempfile would do, and takes longer to load than a look may take.
    """
    path = control_directory() / f"{os.getpid()}-{os.urandom(8).hex()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    path.unlink()
    return os.fdopen(fd, "w+b")


def _spawn(
    argv: list[str],
    data: bytes,
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    slot: BinaryIO | None = None,
) -> _Process:
    # A file, not a pipe: a ControlMaster that stays behind may keep standard error open.
    errors = _unlinked()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=env,
        pass_fds=pass_fds,
        # Ctrl-C reaches us; what was started on the cluster is ended or finished on purpose
        start_new_session=False,
    )
    if len(data) <= _PIPE and process.stdin is not None:
        # a process that died at once is reported by its exit status
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data)
            process.stdin.close()
        process.stdin = None
        data = b""
    return _Process(process, errors, data, slot)


def _nothing_ran(host: str, said: str) -> ProbeError:
    lines = said.strip().splitlines()
    return ProbeError(
        f"{host} ran no command for us; it said: {lines[-1] if lines else '(nothing)'}",
        f"Check that `ssh {host} true` works and that the account has a login shell.",
    )


def _said(done: Completed) -> str:
    return done.output.decode("utf-8", "replace") + done.errors


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


def _stream(
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


@dataclass(slots=True)
class Local:
    """This machine, with `home` as the account's home directory (None: the real one)."""

    home: Path | None = None
    name: str = LOCAL
    commands: int = 0

    def execute(self, command: str, data: bytes = b"") -> Completed:
        """Run one command line with `sh -c`."""
        self.commands += 1
        return _spawn(["sh", "-c", command], data, self._env()).result()

    def begin(self, script: Script) -> Running:
        """Start a script; its text comes from an unlinked file, so that no list shows it."""
        self.commands += 1
        with _text_file(script) as text:
            fd = text.fileno()
            return _spawn(_from_descriptor(fd), script.data, self._env(), (fd,))

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer."""
        done = running.result()
        answer = read_answer(script.nonce, done.output, done.errors)
        if answer is None:
            raise _nothing_ran("This machine", _said(done))
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
        status = _stream(process, tap, script.data, source, sink)
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

    def _env(self) -> dict[str, str]:
        env = dict(os.environ)
        # our own Python and uv are found first: the embedded default needs nothing installed
        env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env.get("PATH", "")))
        if self.home is not None:
            env["HOME"] = str(self.home)
        return env


def _from_descriptor(fd: int) -> list[str]:
    return ["sh", "-c", f'eval "$(cat /dev/fd/{fd})"']


def _text_file(script: Script) -> BinaryIO:
    text = _unlinked()
    text.write(script.text.encode("utf-8", "surrogateescape"))
    text.flush()
    text.seek(0)
    return text


def _take_slot(name: str, count: int, host: str) -> BinaryIO | None:
    """One of `count` places on a connection, held until the file is closed.

    Raises:
        UnreachableError: None became free within a minute.
    """
    base = control_directory() / name
    for _ in range(_SLOT_TRIES):
        for number in range(count):
            try:
                file = Path(f"{base}.{number}").open("ab")  # noqa: SIM115 - held by the caller
            except OSError:
                return None  # a full /tmp: rather one session too many than no session
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            return file
        time.sleep(_SLOT_PAUSE)
    raise UnreachableError(
        f"{count} rvstate commands already use the connection to {host}.",
        "End one of them (for example a `logs -f`), then try again.",
    )


def spawn_ssh(argv: list[str], slot: str) -> Running:
    """Run an ssh command line that `Ssh.command_line` made, on a place of the connection `slot`."""
    return _spawn(argv, b"", slot=_take_slot(slot, _SESSIONS, argv[-2]))


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
    _ssh: str = field(default="", init=False)

    def argv(self, *options: str, batch: bool = True) -> list[str]:
        """The beginning of every ssh command line: one shared connection, no surprises."""
        if not self._ssh:
            self._ssh = _which("ssh")
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

    def begin(self, script: Script) -> Running:
        """Start a script over the shared connection."""
        if script.public:
            self.commands += 1
            return _spawn(list(self.command_line(script)), b"", slot=self._slot(_SESSIONS))
        text = script.text.encode("utf-8", "surrogateescape")
        return self._start(remote_command(len(text)), text + script.data)

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer; log in and repeat where the command never started."""
        done = running.result()
        attempt = 1
        while (answer := self._read(script, done)) is None:
            self._repeatable(done, attempt)
            attempt += 1
            done = self.begin(script).result()
        return answer

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""
        return self.finish(script, self.begin(script))

    def execute(self, command: str, data: bytes = b"") -> Completed:
        """Run one command line of the login shell; only connection trouble raises."""
        attempt = 1
        while (done := self._start(command, data).result()).status == 255:
            if explain(self.name, done.errors) is None:
                if not done.errors.strip():
                    # a session whose master lost its connection ends without a word
                    raise _cut(self.name)
                break
            self._repeatable(done, attempt)
            attempt += 1
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
                _stream(process, tap, text + script.data, source, sink)
            except BaseException:
                process.kill()
                process.wait()
                self._end(tap.group)
                raise
        if tap.status is not None:
            return tap.status
        if not tap.begun:
            raise _nothing_ran(self.name, tap.noise.decode("utf-8", "replace"))
        raise _cut(self.name)

    def terminal(self, script: Script) -> int:
        """Run a script with a terminal of its own, for programs that draw on the screen.

        Returns:
            ssh's exit status, which is the script's unless the connection failed (255).
        """
        self.open()
        self.commands += 1
        with self.session(lasting=True):
            argv = [*self.argv("-t"), encoded_command(script.text)]
            return subprocess.run(argv, check=False).returncode

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
        slot = self._slot(_LASTING_SESSIONS if lasting else _SESSIONS)
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
        return _take_slot(self.slot_name, count, self.name)

    def command_line(self, script: Script) -> tuple[str, ...]:
        """The whole local command line that a public script is sent with."""
        return (*self.argv("-T"), encoded_command(script.text))

    def _start(self, command: str, data: bytes) -> Running:
        self.commands += 1
        return _spawn([*self.argv("-T"), command], data, slot=self._slot(_SESSIONS))

    def _read(self, script: Script, done: Completed) -> Answer | None:
        """The answer; None where the command never started and ssh itself failed."""
        try:
            answer = read_answer(script.nonce, done.output, done.errors)
        except ProbeError:
            if done.status == 255:
                raise _cut(self.name) from None
            raise
        if answer is None and done.status != 255:
            raise _nothing_ran(self.name, _said(done))
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
        with _unlinked() as errors:
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


def _which(program: str) -> str:
    """Where a program is; empty where it is not on PATH."""
    places = (os.path.join(folder, program) for folder in os.get_exec_path())  # noqa: PTH118 - text
    return next((p for p in places if os.access(p, os.X_OK) and Path(p).is_file()), "")


def ssh_version() -> str:
    """What `ssh -V` says; empty where there is no ssh."""
    program = _which("ssh")
    if not program:
        return ""
    done = subprocess.run([program, "-V"], check=False, capture_output=True)
    return (done.stderr or done.stdout).decode("utf-8", "replace").strip()


def encoded_command(text: str) -> str:
    """The command line that holds a script itself, for one that may be seen in a process list.

    sshd opens the way for standard input only after it has started the command, so this saves a
    round trip, and it leaves standard input free.  It is compressed and in the letters of base64,
    for they mean the same in sh, bash, tcsh and fish.

    Raises:
        ConfigError: It is longer than one argument may be (128 KiB on Linux, execve(2)).
    """
    packed = zlib.compress(text.encode("utf-8", "surrogateescape"), 9, _GZIP)
    line = base64.b64encode(packed).decode("ascii")
    if len(line) > 120_000:
        raise ConfigError(
            "The command is too long to be sent.", "Put it into a script on the cluster."
        )
    return f"exec sh -c 'eval \"$(echo {line} | base64 -d | gzip -d)\"'"


def remote_command(size: int) -> str:
    """The command line that reads a script of `size` bytes from standard input and runs it.

    It means the same in sh, bash, tcsh and fish, it shows nothing, and what follows the script on
    standard input is left for the script to read (`head -c` of coreutils never reads further).
    """
    return f"exec sh -c 'eval \"$(head -c {size})\"'"


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


def _cut(host: str) -> UnreachableError:
    return UnreachableError(
        f"The connection to {host} was cut in the middle.",
        "Run the command again: every step can be repeated.",
    )


# The first that fits counts.  Texts of OpenSSH 7.4 to 9.9, and of the macOS resolver and kernel.
_EXPLANATIONS: tuple[tuple[str, type[RvstateError], str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for \S+ has changed",
        RefusedError,
        "The host key of {host} has changed: the site renewed it, or somebody is in between.",
        "Compare the new fingerprint with the site's web page; only then `ssh-keygen -R HOSTNAME`.",
    ),
    (
        r"REVOKED HOST KEY DETECTED|Host key \S+ revoked",
        RefusedError,
        "The host key of {host} is marked as revoked.",
        "Ask the site which key is right before you connect again.",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        NotAuthenticatedError,
        "The host key of {host} is not known on this machine yet.",
        "Run `rvstate login`, compare the fingerprint with the site's page, and accept it.",
    ),
    (
        r"Bad configuration option|terminating, \d+ bad configuration|Can't open user config file"
        r"|Bad owner or permissions on|line \d+: .*(?:[Mm]issing argument|[Uu]nsupported option)",
        ConfigError,
        "ssh cannot use its configuration for {host}.",
        "Run `ssh -G {host}` to see what it complains about, and mend that file.",
    ),
    (
        r"Temporary failure in name resolution",
        UnreachableError,
        "No name can be resolved, so {host} cannot be found.",
        "Check that this machine is online, and the site's VPN.",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        UnreachableError,
        "The name {host} cannot be resolved.",
        "Check the name in `~/.rv/config.toml` and ssh config, the network, and the site's VPN.",
    ),
    (
        r"stdio forwarding failed|channel \d+: open failed: (?:connect failed|administratively)",
        UnreachableError,
        "The jump host answers, but cannot reach {host}.",
        "Check ProxyJump and HostName in your ssh config, and the site's status page.",
    ),
    (
        r"Connection refused",
        UnreachableError,
        "{host} refuses connections.",
        "It may be down, or you are outside the site's network: check VPN and status page.",
    ),
    (
        r"timed out|No route to host|(?:Network|Host) is (?:unreachable|down)|not responding"
        r"|Can't assign requested address",
        UnreachableError,
        "{host} does not answer.",
        "Check the network and the site's VPN.",
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions",
        NotAuthenticatedError,
        "ssh does not use your key for {host}, because others may read its file.",
        "Run `chmod 600` on the private key that ssh names, then try again.",
    ),
    (
        r"account (?:has|is) (?:expired|locked)|[Pp]assword has expired|password change required",
        NotAuthenticatedError,
        "Your account or password on {host} has expired.",
        "Renew it as the site describes; `ssh {host}` shows what it asks for.",
    ),
    (
        r"Permission denied \(|Too many authentication failures|No more authentication methods"
        r"|no more authentication methods|agent refused operation",
        NotAuthenticatedError,
        "{host} wants a login that needs you (password, key or second factor).",
        "Run `rvstate login`, or `ssh {host}` to see what it asks for.",
    ),
    (
        r"no matching (?:host key type|key exchange method|cipher|mac) found",
        UnreachableError,
        "This machine's ssh and {host} have no common encryption method.",
        "One of the two is very old: ask the site, or update OpenSSH here.",
    ),
    (
        r"mux_client_request_session|Session open refused",
        UnreachableError,
        "{host} takes no further session on this connection.",
        "Wait for a running rvstate command to end, then try again.",
    ),
    (
        r"^(?:kex|ssh)_exchange_identification:|Not allowed at this time",
        UnreachableError,
        "{host} turns away new logins just now.",
        "It limits logins at once; wait a minute, then try again.",
    ),
    (
        r"Broken pipe|closed by remote host|Connection closed|[Cc]onnection to \S+ closed"
        r"|Connection reset|disconnect",
        UnreachableError,
        "The connection to {host} was cut.",
        "Run the command again: every step can be repeated.",
    ),
)


def explain(host: str, errors: str) -> RvstateError | None:
    """The error that ssh's standard error tells of, with its remedy; None where it tells none."""
    for pattern, kind, message, remedy in _EXPLANATIONS:
        if re.search(pattern, errors, re.M):
            return kind(message.format(host=host), remedy.format(host=host))
    return None
