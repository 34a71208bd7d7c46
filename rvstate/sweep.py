"""Arrays and sweeps: which elements a run has, what each is given, how they become jobs; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from rvstate.errors import ConfigError
from rvstate.model.job import Array
from rvstate.shell import quote

# slurm.conf(5), MaxArraySize: the default; an index must be less.
USUAL_MOST = 1001
# More would be a mistake: each element is a job, and has directories of its own.
_MOST = 100_000
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([1-9][0-9]{0,8}))?)?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
INDEX = "index"
_ODD = re.compile(r"[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Given:
    """What `--array` says: indices in order, and how many elements may run at once."""

    indices: tuple[int, ...] = ()
    at_once: int | None = None


def parse_array(text: str) -> Given:
    """Read `0-99%10`, `1,3,5-9:2`, or `%10` alone, which bounds a sweep.

    Raises:
        ConfigError: It is none of these.
    """
    listed, percent, most = text.partition("%")
    bad = ConfigError(
        f"--array {text!r} is no list of elements.", "For example: --array 0-99%10, --array 1,3,5."
    )
    if percent and not re.fullmatch(r"[1-9][0-9]{0,8}", most):
        raise bad
    found: set[int] = set()
    for part in listed.split(",") if listed else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            raise bad
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first:
            raise bad
        if last - first >= _MOST * step:
            raise ConfigError(
                f"--array {text} is more than {_MOST} elements.", "Do more in each of them."
            )
        found.update(range(first, last + 1, step))
    if not found and not percent:
        raise bad
    return Given(tuple(sorted(found)), int(most) if percent else None)


def parse_sweep(texts: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read `lr=1e-3,1e-4` and the like, one for each parameter.

    Raises:
        ConfigError: It is no parameter with values, or one stands twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        values = tuple(listed.split(","))
        if not equals or not _NAME.fullmatch(name) or name == INDEX or "" in values:
            raise ConfigError(
                f"--sweep {text!r} is no parameter with values.", "For example: --sweep lr=0.1,0.2"
            )
        if variable(name) in {variable(known) for known in found}:
            raise ConfigError(f"--sweep {name} is given twice.", "List its values with commas.")
        if len(set(values)) < len(values):
            raise ConfigError(f"--sweep {text} has a value twice.", "Remove one of them.")
        found[name] = values
    return tuple(found.items())


def array(
    listed: str, sweep: tuple[tuple[str, tuple[str, ...]], ...], most: int | None
) -> Array | None:
    """The elements of a run; None where it is one job.

    Args:
        listed: `--array`, or empty.
        sweep: As `parse_sweep` gives it; its product is counted with the last parameter fastest.
        most: The site's MaxArraySize, where it is known.

    Raises:
        ConfigError: They contradict each other.
    """
    if not listed and not sweep:
        return None
    given = parse_array(listed) if listed else Given()
    alike = Counter(variable(name) for name, _ in sweep)
    for name, _ in sweep:
        if alike[variable(name)] > 1:
            raise ConfigError(
                f"Two parameters of the sweep are {variable(name)} to the job, one of them {name}.",
                "Sweep over one of them at a time.",
            )
    size = prod(len(values) for _, values in sweep)
    if sweep and size > _MOST:
        raise ConfigError(f"The sweep has {size} elements.", f"At most {_MOST} are possible.")
    indices = given.indices or tuple(range(size) if sweep else ())
    if not indices:
        raise ConfigError(
            f"--array {listed} says how many at once, and not which.", "For example: 0-99%10."
        )
    if sweep and indices[-1] >= size:
        raise ConfigError(
            f"The sweep has elements 0 to {size - 1}, and --array names {indices[-1]}.",
            "Leave out --array for all of them.",
        )
    return Array(indices, given.at_once, sweep, _parts(indices, given.at_once, most or USUAL_MOST))


def _parts(indices: tuple[int, ...], at_once: int | None, most: int) -> tuple[tuple[int, str], ...]:
    bound = f"%{at_once}" if at_once else ""
    found: dict[int, list[int]] = {}
    for index in indices:
        found.setdefault(index // most, []).append(index % most)
    return tuple((k * most, compress(part) + bound) for k, part in sorted(found.items()))


def compress(indices: Iterable[int]) -> str:
    """Indices as `--array` takes them: `0-3,7`."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def values(found: Array, index: int) -> tuple[tuple[str, str], ...]:
    """The parameters of one element, name to value."""
    return tuple(
        (name, listed[index // stride % len(listed)])
        for (name, listed), stride in zip(found.sweep, strides(found), strict=True)
    )


def strides(found: Array) -> tuple[int, ...]:
    """For each parameter how many elements have the same value in a row."""
    sizes = [len(listed) for _, listed in found.sweep]
    return tuple(prod(sizes[at + 1 :]) for at in range(len(sizes)))


def variable(name: str) -> str:
    """The variable that has a parameter's value in the job."""
    return "RV_ARRAY_INDEX" if name == INDEX else f"RV_SWEEP_{_ODD.sub('_', name).upper()}"


def command(words: tuple[str, ...], found: Array) -> tuple[str, ...]:
    """The words of an array's command: parameters that it does not place are options behind it.

    Args:
        words: Resolved, with `{lr}` or `{index}` where a value belongs.
        found: The array.

    Raises:
        ConfigError: A line of shell does not say where a parameter belongs, or a value of one
            would be more than a word in it.
    """
    line = words[2] if words[:2] == ("bash", "-c") and len(words) == 3 else None
    loose = [
        name
        for name, _ in found.sweep
        if not any(f"{{{name}}}" in word or variable(name) in word for word in words)
    ]
    if line is None:
        return (*words, *(w for name in loose for w in (f"--{name}", f"{{{name}}}")))
    if loose:
        raise ConfigError(
            f"The command does not say where {loose[0]} belongs.",
            f"Write {{{loose[0]}}} or ${variable(loose[0])} in it.",
        )
    for name, listed in found.sweep:
        odd = next((v for v in listed if not re.fullmatch(r"[A-Za-z0-9_.,:/@%+=-]+", v)), None)
        if odd is not None and f"{{{name}}}" in line:
            raise ConfigError(
                f"The value {odd!r} of {name} is more than a plain word to a shell.",
                f'Write "${variable(name)}" in the command in the place of {{{name}}}.',
            )
    return ("bash", "-c", _marks(found).sub(lambda m: f"${{{variable(m[1])}}}", line))


def word(text: str, found: Array) -> str:
    """A word of the command as the batch script writes it, values in their places."""
    pieces = _marks(found).split(text)
    return "".join(
        f'"${variable(piece)}"' if at % 2 else quote(piece)
        for at, piece in enumerate(pieces)
        if piece or len(pieces) == 1
    )


def _marks(found: Array) -> re.Pattern[str]:
    names = "|".join(re.escape(name) for name in (*dict(found.sweep), INDEX))
    return re.compile(rf"\{{({names})\}}")
