"""What a stage adds to the base environment: packages by uv or pip, and variables; pure.

The table has the form of Ray's `runtime_env` (https://docs.ray.io, "Environment Dependencies"),
as far as that is about packages and variables.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rvstate.errors import ConfigError, nearest
from rvstate.model.environment.installer import file_lines, installer_options
from rvstate.model.environment.requirement import (
    requirement,
    requirement_name,
    split_requirements,
)

INSTALLERS = ("uv", "pip")
_KEYS = (*INSTALLERS, "env_vars", "merge")
# Beside our own word those of Ray's dictionaries.
_OPTION_KEYS = ("options", "uv_pip_install_options", "pip_install_options")
# Names of what is nobody else's to read, as tools call it.
_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?)$", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Raise it where the same layer begins to be made otherwise.
_FORMAT = "1"


@dataclass(frozen=True, slots=True)
class RuntimeEnv:
    """What a stage adds to the base environment.

    Args:
        installer: `uv` or `pip`; empty where no packages are added.
        packages: Requirements, each as `requirement` writes it, in the order of the declaration.
        requirements: Path of a requirements file below the project's root, or empty.
        contents: The lines of that file with its includes in their places, without comments.
        options: Words for the installer.
        env_vars: Variables of the stage, name and value, by name.
        merge: Whether it is laid over what it would replace.
    """

    installer: Literal["", "uv", "pip"] = ""
    packages: tuple[str, ...] = ()
    requirements: str = ""
    contents: str = ""
    options: tuple[str, ...] = ()
    env_vars: tuple[tuple[str, str], ...] = ()
    merge: bool = False

    @property
    def layered(self) -> bool:
        """Whether it needs a layer: without packages, the base itself does."""
        return bool(self.packages or self.contents)

    @property
    def empty(self) -> bool:
        """Whether it adds nothing, not even a variable."""
        return not self.layered and not self.env_vars

    @property
    def lines(self) -> tuple[str, ...]:
        """What is installed, as the lines of a requirements file: options first, then by name."""
        found = [line.strip() for line in self.contents.splitlines()]
        options = [line for line in found if line.startswith("-")]
        rest = {line for line in found if line and not line.startswith("-")}
        return (*dict.fromkeys(options), *sorted(rest | set(self.packages)))

    @property
    def words(self) -> str:
        """How output names what it adds."""
        what = self.requirements if self.requirements and not self.packages else ""
        return f"{self.installer}: {what or ', '.join(self.lines)}" if self.layered else "the base"

    def key(self, base: str, pins: tuple[str, ...] = ()) -> str:
        """The name of the layer, by everything that decides what is in it; empty for none.

        Order, case and white space of packages do not matter, nor whether a file or a list has
        them; variables do not either.

        Args:
            base: The key of the base environment, which stands for its requirements, interpreter,
                modules, settings of indexes, and what the site adds (`EnvironmentSpec.digest`).
            pins: Patterns of packages that stay as they are in the base.
        """
        if not self.layered:
            return ""
        total = hashlib.sha256()
        for key, value in (("format", _FORMAT), *self.recipe(base, pins)):
            total.update(f"{key} {value}\0".encode("utf-8", "surrogateescape"))
        return total.hexdigest()[:20]

    def recipe(self, base: str, pins: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """What the build of the layer is told, key and value; `key` has the arguments."""
        return (
            *(("base", base), ("installer", self.installer)),
            *(("option", word) for word in self.options),
            *(("line", line) for line in self.lines),
            *(("pin", pattern) for pattern in pins),
        )

    def replaced_by(self, other: RuntimeEnv | None) -> RuntimeEnv:
        """What holds where something else is given: None keeps, empty means the base.

        Args:
            other: What is given; it replaces all of this, or is laid over it where it says `merge`.

        Raises:
            ConfigError: It is to be laid over what another installer installs.
        """
        if other is None:
            return self
        return self.merged_with(other) if other.merge else other

    def merged_with(self, other: RuntimeEnv) -> RuntimeEnv:
        """This with another laid over it.

        Variables go by name and the other's win; packages and options come one after the other,
        and of a package that both name the other's requirement holds.

        Args:
            other: What is laid over it.

        Raises:
            ConfigError: The two name different installers.
        """
        if self.installer and other.installer and self.installer != other.installer:
            raise ConfigError(
                f"A runtime_env by {other.installer} cannot be merged into one by "
                f"{self.installer}.",
                "Write both with the same installer, or leave out merge.",
            )
        named = {requirement_name(line) for line in other.lines if not line.startswith("-")}

        def stays(line: str) -> bool:
            return line.startswith("-") or requirement_name(line) not in named

        contents = (*filter(stays, self.contents.splitlines()), *other.contents.splitlines())
        return RuntimeEnv(
            installer=other.installer or self.installer,
            packages=tuple(dict.fromkeys((*filter(stays, self.packages), *other.packages))),
            requirements=other.requirements or self.requirements,
            contents="".join(f"{line}\n" for line in dict.fromkeys(contents)),
            options=(*self.options, *other.options),
            env_vars=tuple(sorted({**dict(self.env_vars), **dict(other.env_vars)}.items())),
        )


def runtime_env(table: Any, by: str, read: Callable[[str], str | None]) -> RuntimeEnv | None:
    """What a `runtime_env` table declares; None for None, which is "not said".

    Args:
        table: The table, or None.
        by: What declares it, for messages: `runtime_env of stage train`.
        read: The text of a file below the project's root; None where there is none.

    Raises:
        ConfigError: It is wrong, or names a file that is not there.
    """
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise ConfigError(f"{by} should be a table.", 'Write { uv = ["NAME==VERSION"] } or so.')
    for key in table:
        if key not in _KEYS:
            raise _unknown(key, _KEYS, by)
    said = [key for key in INSTALLERS if key in table]
    if len(said) > 1:
        raise ConfigError(f"{by} has both uv and pip.", "Leave out one of them.")
    if not isinstance(table.get("merge", False), bool):
        raise ConfigError(f"merge in {by} should be true or false.", "Mend that value.")
    found = _installed(said[0], table[said[0]], by, read) if said else RuntimeEnv()
    variables = _variables(table.get("env_vars", {}), by)
    return replace(found, env_vars=variables, merge=bool(table.get("merge", False)))


def _installed(
    installer: str, value: Any, by: str, read: Callable[[str], str | None]
) -> RuntimeEnv:
    options: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        for key in value:
            if key not in ("packages", *_OPTION_KEYS):
                raise _unknown(key, ("packages", "options"), f"{installer} of {by}")
        given = [key for key in _OPTION_KEYS if key in value]
        if len(given) > 1:
            raise ConfigError(f"{by} has {given[0]} and {given[1]}.", "Leave out one of them.")
        options = installer_options(value[given[0]], by) if given else ()
        value = value.get("packages", ())
    requirements = contents = ""
    packages: tuple[str, ...] = ()
    if isinstance(value, str):
        requirements = posixpath.normpath(value)
        contents = "".join(f"{line}\n" for line in file_lines(requirements, by, read))
    elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        packages = tuple(dict.fromkeys(requirement(one, by) for one in value))
    else:
        raise ConfigError(
            f"{installer} of {by} should be a list of packages or a path.",
            'Write ["NAME==VERSION"], or "requirements-NAME.txt".',
        )
    if not packages and not contents:
        return RuntimeEnv()
    return RuntimeEnv(
        "uv" if installer == "uv" else "pip", packages, requirements, contents, options
    )


def _variables(table: Any, by: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"env_vars of {by} should be a table.", 'Write { NAME = "VALUE" }.')
    for name, value in table.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            raise ConfigError(
                f"{name!r} in env_vars of {by} is not a variable's name.",
                "Use letters, digits and _, and no digit first.",
            )
        if not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"{name} in env_vars of {by} should be a text.", "Put it in quotes.")
        if value and _SECRET.search(name):
            raise ConfigError(
                f"{name} in env_vars of {by} sounds like a secret, and would stand in batch "
                "scripts and receipts.",
                f"Take it out, and keep it by `rvstate env set {name}`: every job has it then.",
            )
    return tuple(sorted(table.items()))


def stage_env(text: str, read: Callable[[str], str | None]) -> tuple[str, RuntimeEnv]:
    """The stage and what it gets, of `NAME:uv=a==1,b==2`, `NAME:pip=FILE.txt` or `NAME:none`.

    Args:
        text: What was given with `--stage-env`.
        read: The text of a file below the project's root; None where there is none.

    Raises:
        ConfigError: It is none of these, or what it names is wrong.
    """
    stage, _, rest = text.partition(":")
    installer, told, value = (part.strip() for part in rest.partition("="))
    if not stage.strip() or (installer not in INSTALLERS if told else installer != "none"):
        raise ConfigError(
            f"--stage-env {text} is wrong.",
            "Write NAME:uv=PACKAGE==VERSION,..., NAME:pip=..., or NAME:none.",
        )
    if not told:
        return stage.strip(), RuntimeEnv()
    given: Any = value if value.endswith((".txt", ".in")) else list(split_requirements(value))
    if not given:
        raise ConfigError(
            f"--stage-env {text} names no package.", f"For the base itself write {stage}:none."
        )
    found = runtime_env({installer: given}, f"--stage-env {stage.strip()}", read)
    assert found is not None
    return stage.strip(), found


def _unknown(key: Any, known: tuple[str, ...], by: str) -> ConfigError:
    near = nearest(str(key), known)
    hint = f"Did you mean {near}?" if near else f"Known here: {', '.join(known)}."
    return ConfigError(f"{key} in {by} is not a key that rvstate knows.", hint)
