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
    """A figure, and where the project sets itself a bound, whether it holds."""
    text = f"    {what:<34} {value:8.2f}{'' if bound else ' s'}"
    if bound is None:
        return text
    holds = (least is None or value >= least) and (most is None or value <= most)
    return f"{text}   {bound}: {'holds' if holds else 'DOES NOT HOLD'}"
