"""The last look's question, sent again before anything else is loaded.

Working out a look's question takes about as long as its answer needs for the way, and from one day
to the next it is the same question.  So `converge` and `run` send last time's at once,
work out this time's while that is under way, and take the answer only if both are equal to the
letter: the same ssh command line with the same script.  A look only reads, so a question too many
does no harm.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from rvstate.script import Script
from rvstate.transport import Running, Ssh, spawn_ssh

_MANY = 20  # kept questions; each way of calling `converge` has one


@dataclass(frozen=True, slots=True)
class Sent:
    """A question under way."""

    argv: tuple[str, ...]
    nonce: str
    running: Running


@dataclass(slots=True)
class _Place:
    """Where this invocation's question is kept; and what was sent."""

    file: Path | None = None
    sent: Sent | None = None


_here = _Place()


def send(words: tuple[str, ...]) -> None:
    """Send the question that the same command line led to last time, if there is one.

    Args:
        words: The command line behind the program's name: `converge ...` or `run ...`.
    """
    home = Path(os.environ.get("RVSTATE_HOME") or "~/.rv").expanduser().absolute()
    config = Path(os.environ.get("RVSTATE_CONFIG") or home / "config.toml").expanduser()
    _here.file, _here.sent = None, None
    try:
        settings = config.read_bytes()
        _here.file = home / "state" / f"question-{_key(_telling(words), settings):08x}"
        nonce, slot, *argv = _here.file.read_text("utf-8", "surrogateescape").split("\0")
    except (OSError, ValueError):
        # no settings or nothing kept: the look begins when its question is known
        return
    with contextlib.suppress(OSError):
        running = spawn_ssh(argv, slot, nonce, hold=words[0] == "run")
        _here.sent = Sent(tuple(argv), nonce, running)


def _telling(words: tuple[str, ...]) -> tuple[str, ...]:
    """Of a command line, what decides about the question."""
    if words[0] != "run":
        return words
    # one project and account; what the job is asks nothing of the account
    accounts = ("--cluster", "--site", "--host")
    named = [
        f"{word} {behind}"
        for word, behind in zip(words, (*words[1:], ""), strict=True)
        if word.startswith(accounts)
    ]
    return ("run", str(Path.cwd()), *named)


def _key(words: tuple[str, ...], settings: bytes) -> int:
    # what else decides about the host; a clash only sends a question whose answer is not taken
    variables = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("RVSTATE_"))
    text = "\0".join((*words, *variables)).encode("utf-8", "surrogateescape")
    return zlib.crc32(text + settings)


def begin(transport: Ssh, script: Script, *, hold: bool = False) -> tuple[Script, Running]:
    """Begin a look, or take over the one that was sent ahead.

    Args:
        transport: The way to the account.
        script: The look, which is public.
        hold: As for `Ssh.begin`; a look of `run` may be held, others not.

    Returns:
        The script whose marker the answer will bear, and the command under way.
    """
    sent, _here.sent = _here.sent, None
    if sent is not None:
        same = replace(script, nonce=sent.nonce)
        # it was sent, so it counts, taken or not
        transport.commands += 1
        if transport.command_line(same, hold) == sent.argv:
            return same, sent.running
        sent.running.cancel()
    running = transport.begin(script, hold=hold)
    _keep(transport, script, hold)
    return script, running


def _keep(transport: Ssh, script: Script, hold: bool) -> None:
    if _here.file is None:
        return
    text = "\0".join((script.nonce, transport.slot_name, *transport.command_line(script, hold)))
    # no room to keep it only means that the next look takes a little longer
    with contextlib.suppress(OSError):
        folder = _here.file.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(folder.glob("question-*"), key=lambda p: p.stat().st_mtime)[:-_MANY]:
            old.unlink(missing_ok=True)
        part = folder / f".{_here.file.name}.{os.getpid()}"
        part.touch(0o600)
        part.write_text(text, "utf-8", "surrogateescape")
        part.replace(_here.file)
