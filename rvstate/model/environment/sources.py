"""The files that an environment is installed from, with all that they name; pure."""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rvstate.errors import ConfigError, RefusedError

# https://packaging.python.org, "pylock.toml specification": a name may stand in the middle.
_PYLOCK = re.compile(r"pylock(\.[^.]+)?\.toml")
_OWN = re.compile(r"^(?:(?:-e|--editable)[ =]?\s*)?\.?/?\.(?:/)?(?:\[([\w,.\s-]*)\])?(?:\s*;.*)?$")
_OPTION = re.compile(
    r"^(-r|-c|-e|-f|--requirement|--constraint|--editable|--find-links)(?:\s*=\s*|\s+|(?=[^-\s]))"
    r"(\"[^\"]*\"|'[^']*'|\S+)"
)
_REMOTE = re.compile(r"^(?:[a-z+]+://|git\+|[A-Za-z]:\\|/|\$\{|file:/)")
_IN_YAML = re.compile(r"^\s*-\s*[\"']?(?:-r|--requirement)[ =]\s*([^\s\"']+)", re.M)


@dataclass(slots=True)
class Inputs:
    """What a source and all that it names come to.

    Args:
        files: Path below the project's root to contents, or to the digest of what is no text.
        extras: Extras of the project's own package that a requirements file asks for.
        own: Whether a requirements file installs the project itself.
    """

    files: dict[str, str] = field(default_factory=dict)
    extras: list[str] = field(default_factory=list)
    own: bool = False


class _Reader:
    def __init__(
        self,
        read: Callable[[str], str | None],
        below: Callable[[str], dict[str, str]],
    ) -> None:
        self._read = read
        self._below = below
        self.found = Inputs()

    def take(self, name: str, by: str = "") -> str:
        """One file; an error where it is not there."""
        text = self._read(name)
        if text is None:
            what = f"{by} names {name}" if by else f"The environment's source is {name}"
            raise ConfigError(
                f"{what}, and there is no such file in the project.", "Add it, or mend the name."
            )
        self.found.files[name] = text
        return text

    def requirements(self, name: str, by: str = "") -> None:
        """A requirements file with its includes, local packages and wheels."""
        if name in self.found.files:
            return
        for line in logical_lines(self.take(name, by)):
            self._line(name, line)

    def _line(self, name: str, line: str) -> None:
        own = _OWN.match(line)
        if own is not None:
            self.found.own = True
            self.found.extras += [e.strip() for e in (own[1] or "").split(",") if e.strip()]
            return
        option = _OPTION.match(line)
        if option is not None:
            word, value = option[1], option[2].strip("\"'")
            if _REMOTE.match(value):
                return
            if word in ("-r", "-c", "--requirement", "--constraint"):
                self.requirements(_inside(_beside(name, value), name), name)
            elif word in ("-e", "--editable"):
                raise RefusedError(
                    f"{name} installs {value} as editable, and a later sync would change it under "
                    "jobs that run.",
                    f"Write {value} without -e: every change of it makes a new environment.",
                )
            else:
                self.tree(_inside(value, name))
            return
        path = _local(line)
        if path is not None:
            self.tree(_inside(path, name))

    def tree(self, path: str) -> None:
        """Everything below a path of the project."""
        self.found.files.update(self._below(path))

    def pyproject(self) -> dict[str, Any]:
        """pyproject.toml, and what its dependencies need to be read."""
        table = _toml("pyproject.toml", self.take("pyproject.toml"))
        project = table.get("project", {})
        dynamic = project.get("dynamic", ())
        more: list[str] = []
        if "dependencies" in dynamic or "optional-dependencies" in dynamic:
            more += ["setup.py", "setup.cfg", *_strings(project.get("readme"))]
            tool = table.get("tool", {}).get("setuptools", {}).get("dynamic", {})
            more += _strings(tool.get("dependencies", {}).get("file"))
            for extra in tool.get("optional-dependencies", {}).values():
                more += _strings(extra.get("file"))
        self._optional(*more)
        self.own_settings()
        self._settings(table.get("tool", {}).get("uv", {}))
        for source in _tables(table.get("tool", {}).get("uv", {}).get("sources", {})):
            if isinstance(source.get("path"), str) and not _REMOTE.match(source["path"]):
                self.tree(_inside(source["path"], "pyproject.toml"))
        return table

    def own_settings(self) -> None:
        """uv.toml, which uv reads beside the sources."""
        self._optional("uv.toml")
        if "uv.toml" in self.found.files:
            self._settings(_toml("uv.toml", self.found.files["uv.toml"]))

    def _settings(self, table: dict[str, Any]) -> None:
        """What uv's settings name below the project: directories of wheels."""
        for path in _strings(table.get("find-links")):
            if not _REMOTE.match(path):
                self.tree(_inside(path, "uv's settings"))

    def lock(self) -> None:
        """uv.lock, with the packages of the project that it names."""
        table = _toml("uv.lock", self.take("uv.lock"))
        for package in table.get("package", ()):
            source = package.get("source", {})
            for key in ("editable", "directory", "virtual", "path"):
                if isinstance(source.get(key), str) and source[key] != ".":
                    self.tree(_inside(source[key], "uv.lock"))

    def pylock(self, name: str) -> None:
        """pylock.toml, with the packages of the project that it names."""
        for package in _toml(name, self.take(name)).get("packages", ()):
            for key in ("directory", "archive", "sdist", "wheels"):
                parts = package.get(key, ())
                for part in parts if isinstance(parts, list) else (parts,):
                    if isinstance(part, dict) and isinstance(part.get("path"), str):
                        self.tree(_inside(_beside(name, part["path"]), name))

    def _optional(self, *names: str) -> None:
        for name in names:
            text = self._read(name)
            if text is not None:
                self.found.files[name] = text

    def conda(self, name: str) -> None:
        """An environment.yml, with the requirements files of its pip section."""
        for include in _IN_YAML.findall(self.take(name)):
            self.requirements(_inside(_beside(name, include), name), name)


def inputs(
    source: str, read: Callable[[str], str | None], below: Callable[[str], dict[str, str]]
) -> Inputs:
    """A source with everything that it names.

    Args:
        source: Path below the project's root.
        read: The text of a file below the root; None where there is none.
        below: The files at or below a path, each with something that changes with it.

    Raises:
        ConfigError: A file is missing or cannot be read.
        RefusedError: Something that it names could not be the same in every job.
    """
    reader = _Reader(read, below)
    last = posixpath.basename(source)
    if last == "pyproject.toml":
        reader.pyproject()
    elif last == "uv.lock" or _PYLOCK.fullmatch(last):
        reader.pyproject() if read("pyproject.toml") is not None else None
        reader.lock() if last == "uv.lock" else reader.pylock(source)
    elif last.endswith((".yml", ".yaml")):
        reader.conda(source)
    else:
        reader.requirements(source)
        if reader.found.own:
            _own(reader, read, source)
        else:
            reader.own_settings()
    return reader.found


def _own(reader: _Reader, read: Callable[[str], str | None], source: str) -> None:
    if read("pyproject.toml") is None or "project" not in reader.pyproject():
        raise RefusedError(
            f"{source} installs the project itself, and only its setup.py knows what that needs.",
            "Write its dependencies into requirements.txt, or into [project] of pyproject.toml; "
            "the package itself is imported from the job's snapshot.",
        )


def logical_lines(text: str) -> list[str]:
    """The lines of a requirements file: continued ones joined, comments and blanks away.

    As pip reads them (https://pip.pypa.io, "Requirements File Format").
    """
    joined = re.sub(r"\\\r?\n", "", text)
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _local(line: str) -> str | None:
    """The path that a requirement names, or None where it names none."""
    word = re.split(r"\s+;|\s+--", line, maxsplit=1)[0].strip()
    _, found, url = word.partition(" @ ")
    if found:
        word = url.strip()
    word = word.removeprefix("file:")
    if _REMOTE.match(word) or word.startswith("-"):
        return None
    word = re.sub(r"\[[^]]*\]$", "", word)
    is_path = word.startswith(("./", "../")) or word.endswith((".whl", ".tar.gz", ".zip"))
    return word if is_path else None


def _beside(name: str, path: str) -> str:
    return posixpath.join(posixpath.dirname(name), path)


def _inside(path: str, by: str) -> str:
    found = posixpath.normpath(path)
    if found.startswith("../") or found == "..":
        raise RefusedError(
            f"{by} names {path}, which is outside the project and is not sent.",
            "Move it into the project, or install it from an index or a git address.",
        )
    return found


def _toml(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.", "Mend it.") from error


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _tables(sources: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for value in sources.values():
        found += [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, dict)]
    return found
