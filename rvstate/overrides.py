"""Arguments of `dvc exp run`: what of them rvstate must understand, and sweeps in them; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from rvstate.errors import ConfigError

# `dvc exp run --help`, DVC 3; argparse takes an unmistakable beginning of a name for it.
_WITH_VALUE = {
    "--name": "-n",
    "--set-param": "-S",
    "--jobs": "-j",
    "--copy-paths": "-C",
    "--message": "-m",
}
_LETTERS = "nSjCmM"
_FLAG_LETTERS = "fispPRkvqh"
_FLAGS = (
    *("--queue", "--run-all", "--temp", "--no-hydra", "--force", "--interactive", "--single-item"),
    *("--pipeline", "--all-pipelines", "--recursive", "--downstream", "--force-downstream"),
    *("--pull", "--allow-missing", "--dry", "--keep-going", "--ignore-errors", "--verbose"),
    *("--quiet", "--help"),
)
# Hydra's functions that make a sweep and are not enumerated here.
_FUNCTION = re.compile(r"(glob|interval|sort|shuffle|tag)\(")
_RANGE = re.compile(r"range\((.*)\)", re.DOTALL)
_CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)
_MOST = 100_000
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Argument:
    """An option of DVC's in a list of words.

    Args:
        option: Its name: the letter of one with a value, else the long name.
        value: Its value, or empty.
        word: The number of the word that holds the value, or else the option.
        start: Where in that word the value begins.
    """

    option: str
    value: str
    word: int
    start: int


def read(words: tuple[str, ...]) -> tuple[Argument, ...]:
    """The options among DVC's arguments, as argparse reads them; what it would refuse is left out.

    Args:
        words: What stands behind `dvc exp run`.
    """
    found: list[Argument] = []
    at = 0
    while at < len(words) and words[at] != "--":
        argument = _long(words, at) if words[at].startswith("--") else _short(words, at)
        if argument is None:
            at += 1
            continue
        found.append(argument)
        at = argument.word + 1
    return tuple(found)


def misplaced(words: tuple[str, ...], ours: frozenset[str]) -> str:
    """The first word that only rvstate takes for an option, standing where it would go to DVC.

    Args:
        words: What stands behind `dvc exp run`.
        ours: rvstate's own options.
    """
    values = {a.word for a in read(words) if len(a.option) == 2 and a.start == 0}
    for at, word in enumerate(words):
        if word == "--":
            break
        long = word.startswith("--")
        name = word.partition("=")[0] if long else word[:2]
        if at in values or name not in ours:
            continue
        theirs = any(known.startswith(name) for known in (*_WITH_VALUE, *_FLAGS))
        if not (theirs if long else name[1:] in _FLAG_LETTERS or name[1:] in _LETTERS):
            return name
    return ""


def _long(words: tuple[str, ...], at: int) -> Argument | None:
    name, equals, value = words[at].partition("=")
    names = (*_WITH_VALUE, *_FLAGS)
    meant = [known for known in names if known == name] or [k for k in names if k.startswith(name)]
    if len(meant) != 1:
        return None
    if meant[0] not in _WITH_VALUE:
        return Argument(meant[0], "", at, 0)
    option = _WITH_VALUE[meant[0]]
    if equals:
        return Argument(option, value, at, len(name) + 1)
    return Argument(option, words[at + 1], at + 1, 0) if at + 1 < len(words) else None


def _short(words: tuple[str, ...], at: int) -> Argument | None:
    word = words[at]
    if not word.startswith("-"):
        return None
    # flags may stand together, with one that takes a value behind them
    for place, letter in enumerate(word[1:], start=1):
        if letter not in _LETTERS:
            continue
        if place + 1 < len(word):
            return Argument(f"-{letter}", word[place + 1 :], at, place + 1)
        return Argument(f"-{letter}", words[at + 1], at + 1, 0) if at + 1 < len(words) else None
    return None


def sweep(words: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The parameters that have several values (`-S a=1,2`, `-S a=range(3)`), in their order.

    The grammar is that of DVC's overrides, which is Hydra's (hydra.cc, override grammar): commas
    in quotes and brackets belong to one value.

    Args:
        words: What stands behind `dvc exp run`.

    Raises:
        ConfigError: A sweep cannot be enumerated here, or a parameter stands twice.
    """
    return tuple((name, values) for _, name, values in _swept(words))


def _swept(words: tuple[str, ...]) -> Iterator[tuple[Argument, str, tuple[str, ...]]]:
    seen: set[str] = set()
    for argument in read(words):
        name, equals, text = argument.value.partition("=")
        values = _values(argument.value, text) if argument.option == "-S" and equals else ()
        if len(values) < 2:
            continue
        if name in seen:
            raise ConfigError(f"-S {name} has several values twice.", "Name them in one -S.")
        if len(set(values)) < len(values):
            raise ConfigError(f"-S {argument.value} has a value twice.", "Remove one of them.")
        if not name or "{" in name or "}" in name or name == "index":
            raise ConfigError(
                f"-S {argument.value} cannot be a sweep, for {{{name}}} would mean something else.",
                f"Name its file, too: -S params.yaml:{argument.value}.",
            )
        seen.add(name)
        yield argument, name, values


def _values(whole: str, text: str) -> tuple[str, ...]:
    text = text.strip()
    if _FUNCTION.match(text):
        raise ConfigError(
            f"-S {whole} is a sweep that rvstate does not enumerate.",
            "Name the values with commas, as -S model.lr=0.1,0.2, or use range(START,STOP,STEP).",
        )
    if (match := _RANGE.fullmatch(text)) is not None:
        return _range(whole, match[1])
    if (match := _CHOICE.fullmatch(text)) is not None:
        text = match[1]
    return _split(text)


def _split(text: str) -> tuple[str, ...]:
    """What stands between commas; nothing where it is one value, or what DVC is to refuse."""
    found, start, closers, quoted, escaped = [], 0, "", "", False
    for at, letter in enumerate(text):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        elif letter in _CLOSED_BY:
            closers += _CLOSED_BY[letter]
        elif closers and letter == closers[-1]:
            closers = closers[:-1]
        elif letter == "," and not closers:
            found.append(text[start:at].strip())
            start = at + 1
    found.append(text[start:].strip())
    return () if quoted or closers or "" in found else tuple(found)


def _range(whole: str, text: str) -> tuple[str, ...]:
    """The numbers of Hydra's `range(START,STOP,STEP)`, written as it writes them."""
    bad = ConfigError(
        f"-S {whole} is no range.", "For example: -S model.depth='range(2,10,2)', stop excluded."
    )
    named: dict[str, str] = {}
    plain: list[str] = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            named[name.strip()] = value.strip()
        else:
            plain.append(part.strip())
    names = ("stop",) if len(plain) == 1 and "stop" not in named else ("start", "stop", "step")
    if len(plain) > 3 or not {*named} <= {"start", "stop", "step"}:
        raise bad
    given = {"start": "0", "step": "1", **dict(zip(names, plain, strict=False)), **named}
    try:
        start, stop, step = (Decimal(given[name]) for name in ("start", "stop", "step"))
    except (InvalidOperation, KeyError):
        raise bad from None
    if not (start.is_finite() and stop.is_finite() and step.is_finite()) or step == 0:
        raise bad
    count = max(0, int(((stop - start) / step).to_integral_value("ROUND_CEILING")))
    if count > _MOST:
        raise ConfigError(f"-S {whole} is {count} values.", f"At most {_MOST} are possible.")
    if count == 0:
        raise bad
    numbers = [start + step * n for n in range(count)]
    whole_numbers = all("." not in part and "e" not in part.lower() for part in given.values())
    return tuple(str(int(n)) if whole_numbers else str(float(n)) for n in numbers)


def parameters(words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What is set by `-S`, name to value.

    Args:
        words: What stands behind `dvc exp run`.
    """
    pairs = (setting.partition("=") for setting in settings(words))
    return tuple((name, value) for name, equals, value in pairs if equals)


def settings(words: tuple[str, ...]) -> tuple[str, ...]:
    """The values of `-S`, as they stand there.

    Args:
        words: What stands behind `dvc exp run`.
    """
    return tuple(a.value for a in read(words) if a.option == "-S")


def called(words: tuple[str, ...]) -> str:
    """The name that the user gave the experiment, or empty."""
    return next((a.value for a in reversed(read(words)) if a.option == "-n"), "")


def command(words: tuple[str, ...], called: str) -> tuple[str, ...]:
    """DVC's arguments for the elements of an array: `{NAME}` where a value of a sweep belongs.

    Each element's experiment has a name of its own, with the element's number behind it.

    Args:
        words: What stands behind `dvc exp run`.
        called: What experiments are called that have no `--name`.
    """
    found = list(words)
    for argument, name, _ in _swept(words):
        word = found[argument.word]
        found[argument.word] = f"{word[: argument.start]}{name}={{{name}}}"
    names = [argument for argument in read(words) if argument.option == "-n"]
    for argument in names:
        word = found[argument.word]
        if "{index}" not in word:
            found[argument.word] = f"{word}-{{index}}"
    if not names:
        return ("-n", f"{called}-{{index}}", *found)
    return tuple(found)
