"""What an installer of a layer is told: options, and the lines of requirements files; pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any

from rvstate.errors import ConfigError, nearest
from rvstate.model.environment.requirement import refuse_password, requirement
from rvstate.model.environment.sources import logical_lines

# What may be said to an installer; never where to install, what else, or into which cache.
_OPTIONS = (
    *("--index-url", "--default-index", "--index", "--extra-index-url", "--find-links"),
    *("--no-index", "--index-strategy", "--keyring-provider", "--trusted-host"),
    *("--allow-insecure-host", "--pre", "--prerelease", "--prefer-binary", "--only-binary"),
    *("--no-binary", "--no-build", "--no-build-package", "--no-build-isolation"),
    *("--no-build-isolation-package", "--config-setting", "--config-settings", "--no-deps"),
    *("--resolution", "--exclude-newer", "--torch-backend", "--require-hashes"),
)
# In requirements files these are written short (https://pip.pypa.io, "Requirements File Format").
_SHORT = {"-i": "--index-url", "-f": "--find-links"}
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s*=\s*|\s+|(?=[^-\s]))(\"[^\"]*\"|'[^']*'|\S+)$")


def file_lines(
    name: str, by: str, read: Callable[[str], str | None], above: tuple[str, ...] = ()
) -> list[str]:
    """The lines of a requirements file of a layer, with its includes in their places.

    Each requirement stands there in the one way in which equal ones are equal text.

    Args:
        name: Path below the project's root.
        by: What names it, for messages.
        read: The text of a file below the project's root; None where there is none.
        above: The files that include it.

    Raises:
        ConfigError: It is not there, or holds what a layer cannot be made of.
    """
    if name.startswith(("/", "../", "~", "-")) or name in (".", ".."):
        raise ConfigError(
            f"{by} names {name}, which is not a path in the project.",
            "Write it from the project's root on.",
        )
    text = read(name)
    if text is None:
        raise ConfigError(
            f"{by} names {name}, and there is no such file in the project.",
            "Add it, or mend the name.",
        )
    found: list[str] = []
    for line in logical_lines(text):
        include = _INCLUDE.match(line)
        if include is not None:
            inner = posixpath.normpath(
                posixpath.join(posixpath.dirname(name), include[1].strip("\"'"))
            )
            if inner not in (*above, name):
                found += file_lines(inner, name, read, (*above, name))
        elif line.startswith("-"):
            option, *value = re.split(r"[\s=]+", line, maxsplit=1)
            found.append(" ".join(installer_options((_SHORT.get(option, option), *value), name)))
        else:
            package, *more = re.split(r"\s+(?=--)", line)
            found.append(" ".join((requirement(package, name), *more)))
    return list(dict.fromkeys(found))


def installer_options(words: Any, by: str) -> tuple[str, ...]:
    """Words for an installer, as they are.

    Args:
        words: What was declared.
        by: What declares it, for messages.

    Raises:
        ConfigError: They are no list of texts, or say more than where packages come from and how.
    """
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"The options of {by} should be a list of texts.", "Mend that value.")
    awaited = False
    for word in words:
        refuse_password(word, by)
        if not word or "\n" in word or "\0" in word:
            raise ConfigError(f"An option of {by} is empty or holds a line break.", "Mend it.")
        option = word.partition("=")[0]
        if word.startswith("-") and option not in _OPTIONS:
            near = nearest(option, _OPTIONS)
            raise ConfigError(
                f"{option} in {by} is not an option that a layer can be built with.",
                f"Did you mean {near}?" if near else f"Known here: {', '.join(_OPTIONS)}.",
            )
        if not word.startswith("-") and not awaited:
            raise ConfigError(f"{word!r} among the options of {by} belongs to none.", "Mend it.")
        awaited = word.startswith("-") and "=" not in word
    for option, value in zip(words, (*words[1:], ""), strict=True):
        if option.partition("=")[0] == "--find-links" and "://" not in (option + value):
            raise ConfigError(
                f"--find-links in {by} names a path, and no files are sent for a layer.",
                "Put packages of the project into the base environment's requirements.",
            )
    return tuple(words)
