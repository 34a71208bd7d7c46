"""Whether a request is an event of ours, fresh and whole; pure."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rvstate.notification import EVENTS, SCHEMA, TEST

MOST_BYTES = 16384
# Seconds by which the clocks of cluster and receiver, and the way between them, may differ.
TOLERANCE = 300
_LONGEST = 300  # characters of a text
_TEXTS = ("run", "name", "project", "cluster", "user", "id", "event", "state", "job", "node")
_MUST = frozenset({"schema", "id", "event", "run", "job", "name"})


@dataclass(frozen=True, slots=True)
class Event:
    """One event; texts hold no control characters, `at` is in seconds since 1970."""

    id: str
    event: str
    run: str
    job: str
    name: str
    project: str = ""
    cluster: str = ""
    user: str = ""
    state: str = ""
    node: str = ""
    at: int = 0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status and, in a word or two, why."""

    status: int
    reason: str


def signature(token: str, time: int, body: bytes) -> str:
    """The signature of a body that is sent at `time` (seconds since 1970), in hexadecimal."""
    return hmac.new(token.encode(), b"v1:%d:" % time + body, "sha256").hexdigest()


def check(headers: Mapping[str, str], body: bytes, token: str, now: float) -> Event | Refusal:
    """The event of a request, or why it is none.

    Args:
        headers: By names in small letters.
        body: As it came.
        token: The secret.
        now: Seconds since 1970.
    """
    if len(body) > MOST_BYTES:
        return Refusal(413, "too large")
    sent = headers.get("rvstate-time", "")
    signed = headers.get("rvstate-signature", "")
    if not re.fullmatch(r"[1-9][0-9]{0,11}", sent, re.A) or not signed.isascii():
        return Refusal(403, "not signed")
    # first who it is, so that nobody else learns anything from what follows
    if not hmac.compare_digest(signed, f"v1={signature(token, int(sent), body)}"):
        return Refusal(403, "not signed with this secret")
    if abs(now - int(sent)) > TOLERANCE:
        return Refusal(403, "stale")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return Refusal(400, "no JSON")
    event = _event(found)
    return event if event is not None else Refusal(400, "no event")


def _event(found: object) -> Event | None:
    if not isinstance(found, dict) or not found.keys() >= _MUST or found["schema"] != SCHEMA:
        return None
    texts = {key: found.get(key, "") for key in _TEXTS}
    if not all(isinstance(t, str) and len(t) <= _LONGEST for t in texts.values()):
        return None
    if found["event"] not in (*EVENTS, TEST) or not found["id"]:
        return None
    at, code = found.get("at", 0), found.get("exit_code")
    if type(at) is not int or not (code is None or type(code) is int):
        return None
    return Event(**{key: plain(text) for key, text in texts.items()}, at=at, exit_code=code)


def plain(text: str) -> str:
    """Text without line breaks and other characters that are not printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def subject(event: Event) -> str:
    """One line that says it."""
    if event.event == TEST:
        return f"rvstate: this is a test from {event.cluster or event.node}"
    return f"rvstate: {event.name} ({event.job}) {event.event} on {event.cluster or event.node}"


def text(event: Event) -> str:
    """All of it, for people, as plain text."""
    import datetime

    when = datetime.datetime.fromtimestamp(max(0, min(event.at, 1 << 37)), datetime.UTC)
    rows = (
        ("event", event.event),
        ("state", event.state if event.state != event.event else ""),
        ("exit code", "" if event.exit_code is None else str(event.exit_code)),
        ("job", event.job),
        ("name", event.name),
        ("project", event.project),
        ("run", event.run),
        ("cluster", event.cluster),
        ("user", event.user),
        ("told by", event.node),
        ("at", f"{when:%Y-%m-%d %H:%M:%S} UTC"),
    )
    return "".join(f"{name:<10} {value}\n" for name, value in rows if value)
