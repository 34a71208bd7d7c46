"""What a project's own package looks like, as far as its metadata is written down."""

from __future__ import annotations

import configparser
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rvstate.errors import ConfigError

# Build backends that make more than a copy of the Python files.
_COMPILING = {
    "maturin": "maturin (Rust)",
    "mesonpy": "meson-python",
    "scikit_build_core.build": "scikit-build-core",
    "setuptools_rust": "setuptools-rust",
}
_EXTENSION = re.compile(r"\b(?:ext_modules|cythonize|CUDAExtension|CppExtension|rust_extensions)\b")
_ENTRY = re.compile(r"\s*([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(?:\[[^]]*\])?\s*")


@dataclass(frozen=True, slots=True)
class Package:
    """The project's own package, as far as its metadata is written down.

    Args:
        name: Its name; empty where nothing says it.
        version: Its version, or empty where the build would find it out.
        entry_points: Group to (name to object).
        extensions: Whether setup.py builds compiled extensions.
        backend: A build backend whose result cannot be had from the sources alone, or empty.
    """

    name: str = ""
    version: str = ""
    entry_points: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    extensions: bool = False
    backend: str = ""


def package(read: Callable[[str], str | None]) -> Package | None:
    """What the project says of its own package; None where it is none.

    Args:
        read: The text of a file below the project's root; None where there is none.

    Raises:
        ConfigError: pyproject.toml is not valid TOML.
    """
    toml, setup, config = read("pyproject.toml"), read("setup.py"), read("setup.cfg")
    if toml is None and setup is None:
        return None
    try:
        table = tomllib.loads(toml or "")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"pyproject.toml is not valid TOML: {error}.", "Mend it.") from error
    backend = str(table.get("build-system", {}).get("build-backend", ""))
    name, version, groups = _declared(table, config or "")
    return Package(
        name,
        version,
        tuple((group, tuple(sorted(entries.items()))) for group, entries in sorted(groups.items())),
        setup is not None and _EXTENSION.search(setup) is not None,
        _COMPILING.get(backend, ""),
    )


def _declared(table: dict[str, Any], config: str) -> tuple[str, str, dict[str, dict[str, str]]]:
    found = table.get("project") or table.get("tool", {}).get("poetry") or {}
    groups: dict[str, dict[str, str]] = {
        "console_scripts": dict(found.get("scripts", {})),
        "gui_scripts": dict(found.get("gui-scripts", {})),
        **{k: dict(v) for k, v in found.get("entry-points", {}).items()},
    }
    name, version = str(found.get("name", "")), str(found.get("version", ""))
    if not name and config:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(config)
        except configparser.Error:
            return "", "", {}
        name = parser.get("metadata", "name", fallback="")
        version = parser.get("metadata", "version", fallback="")
        for group, text in (
            parser.items("options.entry_points")
            if parser.has_section("options.entry_points")
            else ()
        ):
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
            groups[group] = {key.strip(): value.strip() for key, _, value in pairs}
    if not re.fullmatch(r"[0-9][A-Za-z0-9.+!-]*", version):
        version = ""  # read from a file or by a plugin
    return name, version, {k: v for k, v in groups.items() if v}


def package_files(found: Package, version: str) -> tuple[tuple[str, str], ...]:
    """Metadata and commands of a package that is imported from its sources, path to text.

    What `importlib.metadata` reads (https://packaging.python.org, "Recording installed projects")
    and one small program for each console script, in `bin/`.

    Args:
        found: The package.
        version: Where it names none itself.
    """
    if not found.name:
        return ()
    shown = found.version or version
    folder = f"{re.sub(r'[-_.]+', '_', found.name).lower()}-{shown}.dist-info"
    files = [
        (f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {found.name}\nVersion: {shown}\n"),
        (f"{folder}/INSTALLER", "rvstate\n"),
    ]
    if found.entry_points:
        text = "\n".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries)
            for group, entries in found.entry_points
        )
        files.append((f"{folder}/entry_points.txt", text))
    for group, entries in found.entry_points:
        if group in ("console_scripts", "gui_scripts"):
            files += [
                (f"bin/{key}", _program(value)) for key, value in entries if _safe(key, value)
            ]
    return tuple(files)


def _safe(key: str, value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][\w.-]*", key) is not None and bool(_ENTRY.fullmatch(value))


def _program(value: str) -> str:
    match = _ENTRY.fullmatch(value)
    assert match is not None
    module, attribute = match[1], match[2]
    first = attribute.partition(".")[0]
    return (
        "#!/usr/bin/env python\n"
        f"import sys\nfrom {module} import {first}\nsys.exit({attribute}())\n"
    )


def uses_paths(paths: Iterable[str]) -> bool:
    """Whether the tree keeps its packages below `src`, going by its files."""
    return any(path.startswith("src/") and path.endswith(".py") for path in paths)
