"""What this machine runs day by day: its crontab, systemd's user units, launchd's agents (a door).

Texts are compared before anything is written: what somebody changed meanwhile is left alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from rvstate import cron
from rvstate.errors import RefusedError, RvstateError
from rvstate.rcblock import Broken
from rvstate.state import write_private

_PATIENCE = 60  # seconds
# Behind a text on the disk that its manager does not run: then it is not as declared.
_NOT_ON = "# not enabled\n"


def look(name: str, kinds: Iterable[str]) -> dict[str, str]:
    """What is there of each kind: its text under its name, and under `-end` how asking ended.

    Args:
        name: Of the account's units (`schedule.unit_name`).
        kinds: Kinds that live on this machine.
    """
    said: dict[str, str] = {}
    for kind in kinds:
        match kind:
            case "local-cron":
                status, text, errors = _crontab()
            case "systemd-user":
                status, text, errors = _systemd(name)
            case "launchd":
                status, text, errors = _launchd(name)
            case _:
                status, text, errors = 0, "", ""
        said[kind], said[f"{kind}-end"] = text, f"{status}\n{errors}"
    return said


def apply(name: str, verb: str, kind: str, expected: str, text: str) -> None:
    """Put one text in place, or take it out.

    Args:
        name: Of the account's units.
        verb: `install` or `remove`.
        kind: One that lives on this machine.
        expected: The SHA-256 of what the look found.
        text: The whole table or units; for `remove` what remains.

    Raises:
        RefusedError: It changed since the look.
        RvstateError: A program did not do it.
    """
    if kind == "first-command":
        return
    said = look(name, (kind,))
    if hashlib.sha256(said[kind].encode("utf-8", "surrogateescape")).hexdigest() != expected:
        raise RefusedError(
            f"What {kind} holds changed since the look and was left alone.", "Run converge again."
        )
    match kind:
        case "local-cron":
            _put_crontab(text)
        case "systemd-user":
            _put_units(name, text, on=verb == "install")
        case "launchd":
            _put_agent(name, text, on=verb == "install")


def detach(argv: list[str], log: Path) -> None:
    """Start a program that nobody waits for; what it says replaces the log."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
        )
    finally:
        os.close(fd)


def _run(*argv: str, stdin: str = "") -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            argv,
            input=stdin.encode("utf-8", "surrogateescape"),
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, "", f"{argv[0]} did not answer: {error}"
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return done.returncode, out, err.strip()


def _must(*argv: str, stdin: str = "") -> None:
    status, _, errors = _run(*argv, stdin=stdin)
    if status != 0:
        said = errors.splitlines()[-1] if errors else f"it ended with {status}"
        raise RvstateError(f"`{' '.join(argv)}` failed: {said}.", "Mend that, then converge again.")


def _crontab() -> tuple[int, str, str]:
    if shutil.which("crontab") is None:
        return 127, "", "there is no crontab on this machine"
    status, text, errors = _run("crontab", "-l")
    found = cron.table(status, text, errors)
    if isinstance(found, Broken):
        return status, text, errors
    return 0, found, ""


def _put_crontab(text: str) -> None:
    if text:
        _must("crontab", "-", stdin=text)
    else:
        _must("crontab", "-r")
    if _crontab() != (0, text, ""):
        raise RvstateError("crontab took a table and shows another one.", "See `crontab -l`.")


def _folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "systemd" / "user"


def _systemd(name: str) -> tuple[int, str, str]:
    if shutil.which("systemctl") is None:
        return 127, "", "there is no systemd on this machine"
    status, _, errors = _run("systemctl", "--user", "show-environment")
    if status != 0:
        return status, "", f"systemd does not run for this user: {errors}"
    text = "".join(_text(_folder() / f"{name}.{kind}") for kind in ("service", "timer"))
    if text and _run("systemctl", "--user", "is-enabled", f"{name}.timer")[0] != 0:
        text += _NOT_ON
    return 0, text, ""


def _put_units(name: str, text: str, *, on: bool) -> None:
    folder, unit = _folder(), f"{name}.timer"
    if not on:
        if (folder / unit).exists():
            _must("systemctl", "--user", "disable", "--now", unit)
        for kind in ("timer", "service"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
        _must("systemctl", "--user", "daemon-reload")
        return
    folder.mkdir(parents=True, exist_ok=True)
    at = text.index("[Unit]", 1)
    write_private(folder / f"{name}.service", text[:at])
    write_private(folder / unit, text[at:])
    _must("systemctl", "--user", "daemon-reload")
    _must("systemctl", "--user", "enable", "--now", unit)


def _agent_file(name: str) -> Path:
    return Path("~/Library/LaunchAgents").expanduser() / f"{name}.plist"


def _launchd(name: str) -> tuple[int, str, str]:
    if platform.system() != "Darwin" or shutil.which("launchctl") is None:
        return 127, "", "there is no launchd on this machine"
    text = _text(_agent_file(name))
    if text and _run("launchctl", "print", f"gui/{os.getuid()}/{name}")[0] != 0:
        text += _NOT_ON
    return 0, text, ""


def _put_agent(name: str, text: str, *, on: bool) -> None:
    path, domain = _agent_file(name), f"gui/{os.getuid()}"
    if _run("launchctl", "print", f"{domain}/{name}")[0] == 0:
        _must("launchctl", "bootout", f"{domain}/{name}")
    if not on:
        path.unlink(missing_ok=True)
        return
    write_private(path, text)
    _must("launchctl", "bootstrap", domain, str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
