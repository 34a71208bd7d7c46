"""Which Python environment a project declares."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

_INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", re.M)


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment, by everything that decides what is in it.

    Args:
        sources: Files below the project's root that uv installs from.
        digest: Over the files with their includes, interpreter, module and kind.
        python: A version or absolute path, or empty for the module's.
        module: The environment module that brings the interpreter, or empty.
    """

    sources: tuple[str, ...]
    digest: str
    python: str
    module: str


def spec(
    read: Callable[[str], str | None], python: str, module: str
) -> EnvironmentSpec | None:
    """The environment that a project declares, or None where it declares none.

    Args:
        read: The text of a file below the project's root; None where there is none.
        python: As in `EnvironmentSpec`.
        module: As in `EnvironmentSpec`.
    """
    sources = next((f for f in ("requirements.txt", "pyproject.toml") if read(f) is not None), None)
    if sources is None:
        return None
    total = hashlib.sha256(f"uv 1\0{python}\0{module}\0".encode())
    for name, text in _with_includes(sources, read):
        total.update(f"{name}\0{text}\0".encode("utf-8", "surrogateescape"))
    return EnvironmentSpec((sources,), total.hexdigest()[:20], python, module)


def _with_includes(name: str, read: Callable[[str], str | None]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        text = read(current)
        if text is None or current in found:
            continue
        found[current] = text
        if not current.endswith(".toml"):
            base = current.rpartition("/")[0]
            waiting += [f"{base}/{n}" if base else n for n in _INCLUDE.findall(text)]
    return list(found.items())
