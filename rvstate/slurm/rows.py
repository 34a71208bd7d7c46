"""Rows whose last fields are free text: names and comments may hold `|`, spaces and line breaks."""

from __future__ import annotations

import re

from rvstate.errors import ParseError

# ASCII "unit separator".  Slurm copies it from the format to the output unchanged.
SEPARATOR = "\x1f"

# A row ends with a separator and a line break, and the next one begins with a job id.
_ROW_END = re.compile(rf"{SEPARATOR}\n(?=[0-9][^{SEPARATOR}\n]*{SEPARATOR})")


def split_rows(text: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Split text in which every field is *followed* by a separator, into rows of `count` fields.

    A line break inside a field is kept; a separator inside the last field is kept as well.

    Raises:
        ParseError: A row has fewer fields, or something else was printed in between.
    """
    if not text.strip():
        return ()
    rows = _ROW_END.split(text.removesuffix("\n").removesuffix(SEPARATOR))
    return tuple(_fields(row, count) for row in rows)


def split_lines(text: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Split text without free fields: one row a line, every field followed by a separator.

    Raises:
        ParseError: A line has another number of fields.
    """
    return tuple(
        _fields(line.removesuffix(SEPARATOR), count) for line in text.split("\n") if line.strip()
    )


def _fields(row: str, count: int) -> tuple[str, ...]:
    fields = tuple(row.split(SEPARATOR, count - 1))
    if len(fields) != count:
        raise ParseError(f"Expected {count} fields and found {len(fields)} in {row[:80]!r}.")
    return fields


def number(text: str) -> int:
    """A count; of a range (`1-4` nodes) or a minimum (`64+` CPUs) the smaller number.

    Raises:
        ParseError: No number.
    """
    match = re.match(r"\s*([0-9]{1,18})", text)
    if match is None:
        raise ParseError(f"{text!r} is not a count.")
    return int(match[1])


def epoch(text: str) -> int | None:
    """Seconds since 1970, as `SLURM_TIME_FORMAT=%s` asks for; None for `N/A`, `Unknown`, `None`.

    Raises:
        ParseError: Another form: a clock time without its zone must not be guessed at.
    """
    plain = text.strip()
    if re.fullmatch(r"[0-9]{1,18}", plain):
        return int(plain)
    if plain in {"", "N/A", "Unknown", "None", "(null)"}:
        return None
    raise ParseError(f"{text!r} is not a time in seconds since 1970.")


def free(text: str) -> str:
    """Free text; `(null)`, which C prints for none, becomes empty."""
    return "" if text == "(null)" else text
