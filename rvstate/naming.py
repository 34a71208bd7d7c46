"""A job's name from a language model, where the user asked for that (the door to its providers).

Only what `outline` says ever leaves this machine, and nobody waits longer than a second.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PATIENCE = 1.0  # seconds, all told
_MOST = 200  # characters
_HIDDEN = "…"
_PROMPT = (
    "Give a name of two to four lower-case words joined by dashes for the computing job that runs "
    "the command below. Answer with the name only.\n\n"
)
_SECRET_NAME = re.compile(
    r"key|token|secret|passw|passphrase|pwd|auth|credential|bearer|cookie|session|user|login|mail",
    re.I,
)
# Options whose value is a secret or a name of somebody in so many programs.
_SECRET_OPTIONS = frozenset({"-p", "-P", "-u", "-U", "-H", "-k", "--header"})
_PREFIXES = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(?:(?:sk|pk|rk|hf|gh[opsur]|glpat|xox[a-z]|npm|pypi|ya29)[-_.]|AKIA|ASIA|AIza|eyJ)"
)
_HARMLESS = re.compile(r"[A-Za-z0-9._:+,=-]{1,32}")


@dataclass(frozen=True, slots=True)
class Provider:
    """Who is asked.

    Args:
        name: For people.
        url: Where.
        headers: With the key in them.
        model: Which model.
    """

    name: str
    url: str
    headers: dict[str, str]
    model: str

    @property
    def host(self) -> str:
        """The host that is asked."""
        return urllib.parse.urlsplit(self.url).netloc


def provider(key: str) -> Provider:
    """The provider of a key: `sk-ant-…` is Anthropic's, any other OpenAI's.

    `ANTHROPIC_BASE_URL` and `OPENAI_BASE_URL` lead elsewhere, as in the providers' own libraries.
    """
    if key.startswith("sk-ant-"):
        base = os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return Provider(
            "Anthropic", f"{base.rstrip('/')}/v1/messages", headers, "claude-haiku-4-5-20251001"
        )
    base = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    headers = {"Authorization": f"Bearer {key}"}
    return Provider("OpenAI", f"{base.rstrip('/')}/chat/completions", headers, "gpt-4o-mini")


def outline(words: tuple[str, ...]) -> str:
    """What of a command may leave this machine: plain short words, and dots for all others.

    Left out are values of options and variables whose name sounds secret, what looks like a key or
    a password, addresses, directories of paths, and every word with characters that are no plain
    argument's.
    """
    if len(words) == 1:
        try:
            words = tuple(shlex.split(words[0]))
        except ValueError:
            # quotes that do not match: nobody can say where a secret ends
            return _HIDDEN
    return " ".join(_shown(words))[:_MOST]


def _shown(words: tuple[str, ...]) -> Iterator[str]:
    hide = False
    for word in words:
        name, equals, value = word.partition("=")
        if hide and not word.startswith("-"):
            hide = False
            yield _HIDDEN
        elif equals:
            hide = False
            secret = _SECRET_NAME.search(name) or not _HARMLESS.fullmatch(name.lstrip("-"))
            yield f"{_plain(name)}={_HIDDEN if secret else _plain(value)}"
        else:
            # an option without its value, or a word that announces one: `Bearer`, `--token`
            hide = bool(_SECRET_NAME.search(word)) or word in _SECRET_OPTIONS
            yield _plain(word)


def _plain(word: str) -> str:
    last = word.rsplit("/", 1)[-1] if "://" not in word and "@" not in word else ""
    if not _HARMLESS.fullmatch(last) or _PREFIXES.search(last):
        return _HIDDEN
    # letters and digits mixed at length are what keys and hashes look like, not what options do
    for part in re.split(r"[._:+,=-]", last):
        mixed = any(c.isdigit() for c in part) and any(c.isalpha() for c in part)
        if (mixed and len(part) >= 12) or len(part) >= 24:
            return _HIDDEN
    return last


def ask(key: str, text: str) -> str | None:
    """A name for what `outline` says, or None where there was no good answer within a second."""
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_asked(key, text)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else None


def _asked(key: str, text: str) -> str | None:
    whom = provider(key)
    body: dict[str, Any] = {
        "model": whom.model,
        "max_tokens": 20,
        "messages": [{"role": "user", "content": _PROMPT + text}],
    }
    try:
        request = urllib.request.Request(  # noqa: S310 - the providers' https, or the user's own
            whom.url,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **whom.headers},
            method="POST",
        )
        with _opener().open(request, timeout=PATIENCE) as answer:
            return _name(json.loads(answer.read(65536)))
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        # the plain name does as well
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes where it belongs and nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Never."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _name(answer: Any) -> str | None:
    said = (
        answer["content"][0]["text"]
        if "content" in answer
        else answer["choices"][0]["message"]["content"]
    )
    line = said.strip().splitlines()[0]
    clean = re.sub(r"[^a-z0-9]+", "-", line.lower()).strip("-").removeprefix("rv-")[:37].strip("-")
    # a sentence is no name
    return f"rv-{clean}" if clean and clean.count("-") < 6 else None
