"""The one way to a login node: OpenSSH, or this machine itself.

`Ssh` keeps one ControlMaster connection for the day and sends every script over it; `Local` runs the
same scripts here.  Both take a `Script` and give back its `Answer`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

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
_ATTEMPTS = 5
_BUSY = re.compile(
    r"kex_exchange_identification|Connection closed by .* port|Connection reset by peer", re.I
)


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


@dataclass(slots=True)
class _Process:
    """A local process whose standard input may be larger than a pipe."""

    process: subprocess.Popen[bytes]
    errors: tempfile._TemporaryFileWrapper[bytes]
    data: bytes

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
        return Completed(self.process.returncode, output, errors)


def _spawn(
    argv: list[str],
    data: bytes,
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> _Process:
    # A file, not a pipe: a ControlMaster that stays behind may keep standard error open.
    errors = tempfile.NamedTemporaryFile(prefix="rvstate-")  # noqa: SIM115 - closed by result()
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
    return _Process(process, errors, data)


def _answer(script: Script, done: Completed, host: str) -> Answer:
    answer = read_answer(script.nonce, done.output, done.errors)
    if answer is not None:
        return answer
    said = (done.output.decode("utf-8", "replace") + done.errors).strip().splitlines()
    raise ProbeError(
        f"{host} ran no command for us; it said: {said[-1] if said else '(nothing)'}",
        f"Check that `ssh {host} true` works and that the account has a login shell.",
    )


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
        with tempfile.TemporaryFile() as text:
            text.write(script.text.encode("utf-8", "surrogateescape"))
            text.flush()
            text.seek(0)
            fd = text.fileno()
            argv = ["sh", "-c", f'eval "$(cat /dev/fd/{fd})"']
            return _spawn(argv, script.data, self._env(), (fd,))

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer."""
        return _answer(script, running.result(), "This machine")

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


@dataclass(slots=True)
class Ssh:
    """A login node behind OpenSSH.

    Args:
        name: An alias of the user's ssh config, or a host name.
        user: The user there; None leaves it to the ssh config.
        config: Another ssh config file, as `ssh -F`.
        interactive: Whether a person may be asked for a password or second factor.
    """

    name: str
    user: str | None = None
    config: str | None = None
    interactive: bool = False
    commands: int = 0
    _ssh: str = field(default="", init=False)

    def argv(self, *options: str, batch: bool = True) -> list[str]:
        """The beginning of every ssh command line: one shared connection, no surprises."""
        if not self._ssh:
            self._ssh = shutil.which("ssh") or ""
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
        for key, value in settings.items():
            argv += ["-o", f"{key}={value}"]
        if self.user:
            argv += ["-l", self.user]
        return [*argv, *options, "--", self.name]

    def begin(self, script: Script) -> Running:
        """Start a script over the shared connection."""
        text = script.text.encode("utf-8", "surrogateescape")
        return self._start(remote_command(len(text)), text + script.data)

    def finish(self, script: Script, running: Running) -> Answer:
        """Wait for its answer; log in and repeat where the command never started."""
        done = running.result()
        for attempt in range(1, _ATTEMPTS + 1):
            begun = f"@@rvstate {script.nonce} begin".encode() in done.output
            if done.status != 255 or begun:
                break
            if not self._may_repeat(done, attempt):
                raise self._trouble(done)
            done = self.begin(script).result()
        if done.status == 255 and b"begin" in done.output:
            _raise_cut(self.name)
        return _answer(script, done, self.name)

    def run(self, script: Script) -> Answer:
        """Run a script to its end."""
        return self.finish(script, self.begin(script))

    def execute(self, command: str, data: bytes = b"") -> Completed:
        """Run one command line of the login shell; only connection trouble raises."""
        done = self._start(command, data).result()
        if done.status == 255 and (trouble := explain(self.name, done.errors)):
            raise trouble
        return done

    def _start(self, command: str, data: bytes) -> Running:
        self.commands += 1
        return _spawn([*self.argv("-T"), command], data)

    def _may_repeat(self, done: Completed, attempt: int) -> bool:
        """Whether the command never ran and asking again can help."""
        if attempt >= _ATTEMPTS:
            return False
        if _BUSY.search(done.errors):
            # sshd drops some of many logins at once (MaxStartups, sshd_config(5))
            time.sleep(random.uniform(0.2, 0.8) * attempt)  # noqa: S311 - not a secret
            return True
        if "Permission denied" in done.errors and self.interactive and attempt == 1:
            self.login()
            return True
        return False

    def login(self) -> None:
        """Log in with a person at the keyboard; the connection then serves the rest of the day.

        Raises:
            NotAuthenticatedError: The login was refused or given up.
        """
        print(f"Logging in to {self.name} (once for today).", file=sys.stderr)
        argv = self.argv("-N", "-f", batch=False)
        if subprocess.run(argv, check=False).returncode != 0:
            raise NotAuthenticatedError(
                f"The login to {self.name} did not succeed.",
                f"Try `ssh {self.name}` by hand; when that works, run this again.",
            )

    def connected(self) -> bool:
        """Whether the shared connection is up; asks only the local master process."""
        argv = self.argv("-O", "check")
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def disconnect(self) -> None:
        """End the shared connection."""
        subprocess.run(self.argv("-O", "exit"), check=False, capture_output=True)

    def _trouble(self, done: Completed) -> RvstateError:
        found = explain(self.name, done.errors)
        if found is not None:
            return found
        said = done.errors.strip().splitlines()
        return UnreachableError(
            f"ssh to {self.name} failed: {said[-1] if said else 'it said nothing'}",
            f"Try `ssh {self.name}` by hand.",
        )


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


def _raise_cut(host: str) -> None:
    raise UnreachableError(
        f"The connection to {host} was cut in the middle.",
        "Run the command again: every step can be repeated.",
    )


_EXPLANATIONS: tuple[tuple[str, type[RvstateError], str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        RefusedError,
        "The host key of {host} has changed: either the site renewed it, or somebody is in between.",
        "Compare the new fingerprint with the site's web page; only then `ssh-keygen -R HOSTNAME`.",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        NotAuthenticatedError,
        "The host key of {host} is not known on this machine yet.",
        "Run `ssh {host}` once, compare the fingerprint with the site's page, and accept it.",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        UnreachableError,
        "The name {host} cannot be resolved.",
        "Check the name in `~/.rv/config.toml` and ssh config, the network, and the site's VPN.",
    ),
    (
        r"Connection refused",
        UnreachableError,
        "{host} refuses connections.",
        "The login node may be down, or you are outside the site's network: check VPN and status page.",
    ),
    (
        r"timed out|No route to host|Network is unreachable|not responding",
        UnreachableError,
        "{host} does not answer.",
        "Check the network and the site's VPN.",
    ),
    (
        r"Permission denied \(|Too many authentication failures|No more authentication methods",
        NotAuthenticatedError,
        "{host} wants a login that needs you (password, key or second factor).",
        "Run `rvstate login`, or `ssh {host}` to see what it asks for.",
    ),
    (
        r"mux_client_request_session|Session open refused",
        UnreachableError,
        "{host} takes no further session on this connection.",
        "Wait for a running rvstate command to end, then try again.",
    ),
    (
        r"Broken pipe|closed by remote host|Connection closed|Connection reset|disconnect",
        UnreachableError,
        "The connection to {host} was cut.",
        "Run the command again: every step can be repeated.",
    ),
    (
        r"Bad configuration option|terminating, \d+ bad configuration|Can't open user config file",
        ConfigError,
        "ssh cannot read its configuration for {host}.",
        "Run `ssh -G {host}` to see the line it complains about.",
    ),
)


def explain(host: str, errors: str) -> RvstateError | None:
    """The error that ssh's standard error tells of, with its remedy; None where it tells nothing."""
    for pattern, kind, message, remedy in _EXPLANATIONS:
        if re.search(pattern, errors):
            return kind(message.format(host=host), remedy.format(host=host))
    return None
