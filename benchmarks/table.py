"""One line of a benchmark's table."""

from __future__ import annotations


def line(
    what: str,
    value: float,
    bound: str | None = None,
    *,
    least: float | None = None,
    most: float | None = None,
) -> str:
    """A figure: seconds without a bound, a ratio with one, and whether that holds."""
    text = f"    {what:<34} {value:8.2f}{' s' if bound is None else ''}"
    if not bound:
        return text
    holds = (least is None or value >= least) and (most is None or value <= most)
    return f"{text}   {bound}: {'holds' if holds else 'DOES NOT HOLD'}"
