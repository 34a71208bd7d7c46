"""Which Python environment a project declares, by everything that decides what is in it; pure."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

from rvstate.errors import ConfigError
from rvstate.model.environment.sources import inputs
from rvstate.model.settings import Environment

MANAGED = ("uv", "venv", "virtualenv", "conda")
_KINDS = (*MANAGED, "existing", "apptainer", "none")
# Looked for in this order where no source is named.
_USUAL = ("requirements.txt", "pylock.toml", "uv.lock", "pyproject.toml")
_CONDA = ("environment.yml", "environment.yaml")
_UNREAD = ("setup.py", "setup.cfg", "Pipfile", "poetry.lock")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# Raise it where the same inputs begin to make something else.
_FORMAT = "2"


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment, by everything that decides what is in it.

    Args:
        kind: `uv`, `venv`, `virtualenv` or `conda`; for one that is only activated also
            `existing` or `apptainer`, or empty where the cluster is to say what lies there.
        digest: Over the recipe and the inputs; empty for one that is only activated.
        recipe: What the build is told, key and value.
        inputs: Files below the project's root that the build needs.
        path: Where one lies that rvstate only activates; empty for one that it builds.
        backup: Where copies of what was built are kept, with `{user}` and `{home}`; or empty.
    """

    kind: str
    digest: str = ""
    recipe: tuple[tuple[str, str], ...] = ()
    inputs: tuple[str, ...] = ()
    path: str = ""
    backup: str = ""

    @property
    def managed(self) -> bool:
        """Whether rvstate builds it."""
        return not self.path

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that it is installed from."""
        return tuple(value for key, value in self.recipe if key == "source")

    @property
    def text(self) -> str:
        """The recipe as a file: one `key value` a line, the digest first."""
        lines = (("digest", self.digest), *self.recipe)
        return "".join(f"{key} {value}\n" for key, value in lines)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the site adds.

    Args:
        python: The environment module that brings the interpreter, or empty.
        compiler: The module that compiles what could not be built on the login node, or empty.
        cuda: The module with CUDA, or empty.
        internet: Whether compute nodes reach package indexes.
    """

    python: str = ""
    compiler: str = ""
    cuda: str = ""
    internet: bool = True


def spec(
    wanted: Environment,
    site: Surroundings,
    read: Callable[[str], str | None],
    below: Callable[[str], dict[str, str]],
    also: tuple[str, ...] = (),
) -> EnvironmentSpec | None:
    """The environment that a project declares, or None where it declares none.

    Args:
        wanted: The settings.
        site: What the site adds.
        read: The text of a file below the project's root; None where there is none.
        below: The files at or below a path, each with something that changes with it.
        also: Packages that it gets beside what is declared.

    Raises:
        ConfigError: The declaration contradicts itself, or a file is missing.
        RefusedError: What it names could not be the same in every job.
    """
    _check(wanted)
    if wanted.kind == "none":
        return None
    if wanted.path:
        return EnvironmentSpec(wanted.kind or "", path=wanted.path)
    if wanted.build == "job" and not site.internet:
        raise ConfigError(
            'environment.build is "job", and compute nodes of this site reach no package index.',
            "Leave it out: packages are then fetched on the login node.",
        )
    kind = wanted.kind or "uv"
    source = wanted.source or _usual(kind, read)
    if source is None and kind == "conda":
        raise ConfigError(
            "environment.kind is conda, and the project has no environment.yml.",
            "Add one, or name an environment that is there with path.",
        )
    if source is None:
        return None
    found = inputs(source, read, below)
    sources = [source]
    extras = [*wanted.extras, *found.extras]
    if found.own:
        # the package itself comes from the snapshot, so what it needs is all that is installed
        sources.append("pyproject.toml")
    last = posixpath.basename(source)
    if (extras or wanted.groups) and not found.own and last.endswith((".txt", ".in", ".yml")):
        raise ConfigError(
            f"[environment] asks for extras or groups, and {source} has none.",
            'Add source = "pyproject.toml" or "uv.lock" there.',
        )
    deciding = (
        ("format", _FORMAT),
        ("kind", kind),
        ("python", wanted.python or ""),
        ("module", site.python),
        ("compiler", site.compiler),
        ("cuda", site.cuda),
        *(("source", name) for name in sources),
        *(("extra", name) for name in dict.fromkeys(extras)),
        *(("group", name) for name in dict.fromkeys(wanted.groups)),
        *(("deferred", name.lower()) for name in sorted(set(wanted.deferred))),
        *((("relocatable", "yes"),) if wanted.relocatable else ()),
        *(("also", name) for name in also),
    )
    told = (
        ("imports", "declared" if wanted.imports is None else "named"),
        *(("import", name) for name in wanted.imports or ()),
        ("internet", "yes" if site.internet else "no"),
        ("build", wanted.build),
    )
    recipe = tuple((key, value) for key, value in (*deciding, *told) if value)
    for key, value in recipe:
        if "\n" in value or "\0" in value:
            raise ConfigError(f"{key} of the environment holds a line break.", "Mend it.")
    digest = _digest(deciding, found.files)
    return EnvironmentSpec(
        kind, digest, recipe, tuple(sorted(found.files)), backup=wanted.backup or ""
    )


def _digest(deciding: tuple[tuple[str, str], ...], files: dict[str, str]) -> str:
    total = hashlib.sha256()
    for key, value in deciding:
        total.update(f"{key} {value}\0".encode("utf-8", "surrogateescape"))
    for name, text in sorted(files.items()):
        total.update(f"\0{name}\0{text}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:20]


def overlooked(wanted: Environment, read: Callable[[str], str | None]) -> str:
    """What a project without an environment may have meant to be one, in words; empty if nothing.

    Args:
        wanted: The settings.
        read: The text of a file below the project's root; None where there is none.
    """
    if wanted.kind is not None or wanted.path or wanted.source:
        return ""
    for name in _CONDA:
        if read(name) is not None:
            return f'{name} is built only with kind = "conda" in [environment]'
    name = next((name for name in _UNREAD if read(name) is not None), "")
    return f"{name} is not read; requirements.txt or pyproject.toml would be" if name else ""


def _usual(kind: str, read: Callable[[str], str | None]) -> str | None:
    names = _CONDA if kind == "conda" else _USUAL
    return next((name for name in names if _declares(name, read(name))), None)


def _declares(name: str, text: str | None) -> bool:
    """Whether a file declares an environment; many a pyproject.toml holds only tools' settings."""
    if name != "pyproject.toml":
        return text is not None
    return re.search(r"^\[(?:project|build-system|tool\.poetry)[].]", text or "", re.M) is not None


def _check(wanted: Environment) -> None:
    if wanted.kind is not None and wanted.kind not in _KINDS:
        raise ConfigError(
            f"environment.kind is {wanted.kind!r}, which is none.", f"Known: {', '.join(_KINDS)}."
        )
    if wanted.kind in ("existing", "apptainer") and not wanted.path:
        raise ConfigError(
            f"environment.kind is {wanted.kind}, and environment.path does not say where it lies.",
            "Add path, an absolute path on the cluster or ./PATH in the project.",
        )
    if wanted.path and wanted.source:
        raise ConfigError(
            "environment.path names an environment that is there, and environment.source one that "
            "is to be built.",
            "Leave out one of them.",
        )
    if (wanted.path or "").startswith("~"):
        raise ConfigError(
            f"environment.path is {wanted.path}, and ~ is not expanded.",
            "Write an absolute path on the cluster, or ./PATH in the project.",
        )
    if wanted.relocatable and wanted.kind in ("venv", "virtualenv", "conda"):
        raise ConfigError(
            f"environment.relocatable is set, and environment.kind is {wanted.kind}, which makes "
            "none that can be moved.",
            "Leave out one of them: uv makes such environments.",
        )
    if wanted.backup and not wanted.backup.startswith(("/", "{home}")):
        raise ConfigError(
            f"environment.backup is {wanted.backup}, which is not an absolute path on the cluster.",
            "Write it from / on, or begin it with {home}; ~ is not expanded.",
        )
    if wanted.source and (wanted.source.startswith(("/", "~", "..", "-"))):
        raise ConfigError(
            f"environment.source is {wanted.source}, which is not a path in the project.",
            "Write it from the project's root on.",
        )
    for key in ("extras", "groups", "deferred"):
        for name in getattr(wanted, key):
            if not _NAME.fullmatch(name):
                raise ConfigError(f"{name!r} in environment.{key} is no name.", "Mend it.")
    for name in wanted.imports or ():
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"{name!r} in environment.imports is no module.", "Mend it.")
