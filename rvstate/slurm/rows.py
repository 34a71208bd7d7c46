"""Rows whose last fields are free text: names and comments may hold `|`, spaces and line breaks."""

from __future__ import annotations

import re

from rvstate.errors import ParseError

# ASCII "unit separator".  Slurm copies it from the format to the output unchanged.
SEPARATOR = "\x1f"

# Behind the last field of a row comes the end, or a line break and the job id of the next row.
_ROW_END = re.compile(rf"{SEPARATOR}\n?(?:\Z|(?<=\n)(?=[0-9][^{SEPARATOR}\n]*{SEPARATOR}))")


def split_rows(text: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Split text in which every field is *followed* by a separator, into rows of `count` fields.

    Fields are counted, so a line break in any of them is kept; a separator is kept in the last.

    Raises:
        ParseError: A row has fewer fields, or something else was printed in between.
    """
    rows: list[tuple[str, ...]] = []
    position = 0 if text.strip() else len(text)
    while position < len(text):
        fields: list[str] = []
        for _ in range(count - 1):
            end = text.find(SEPARATOR, position)
            if end < 0:
                raise _short(text[position:], count)
            fields.append(text[position:end])
            position = end + 1
        last = _ROW_END.search(text, position)
        if last is None or not re.match(r"[0-9][^\n]*\Z", fields[0]):
            raise _short(SEPARATOR.join(fields), count)
        rows.append((*fields, text[position : last.start()]))
        position = last.end()
    return tuple(rows)


def split_lines(text: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Split text without free fields: one row a line, every field followed by a separator.

    Raises:
        ParseError: A line has another number of fields.
    """
    rows = tuple(
        tuple(line.removesuffix(SEPARATOR).split(SEPARATOR))
        for line in text.split("\n")
        if line.strip()
    )
    for row in rows:
        if len(row) != count:
            raise _short(SEPARATOR.join(row), count)
    return rows


def _short(row: str, count: int) -> ParseError:
    return ParseError(f"Expected a row of {count} fields, beginning with its id, in {row[:80]!r}.")


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
