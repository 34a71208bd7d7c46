"""Job ids in every spelling that Slurm prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rvstate.errors import ParseError

# No leading zero and at most ten digits: what is read can be written back, and ids are 32 bit.
_NUMBER = r"[1-9][0-9]{0,9}"
_CLUSTER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ID = re.compile(
    rf"(?P<base>{_NUMBER})"
    r"(?:_(?P<array>0|[1-9][0-9]{0,9}|\[[0-9,:%.-]+\]))?"
    r"(?:\+(?P<het>0|[1-9][0-9]{0,9}))?"
    r"(?:\.(?P<step>[a-z][a-z0-9_]*|[0-9]{1,10})(?P<het_step>\+[0-9]{1,10})?)?"
    rf"(?:;(?P<cluster>{_CLUSTER}))?"
)
_SUBMITTED = re.compile(rf"{_NUMBER}(?:;{_CLUSTER})?")


@dataclass(frozen=True, slots=True)
class JobId:
    """One job, task of an array, part of a heterogeneous job, or step.

    Args:
        base: The number that sbatch answered with.
        array: Array index or bracket as printed: `3`, `[0-9%2]`; empty for none.
        het: Offset in a heterogeneous job (`12+1`); None for none.
        step: `batch`, `extern`, `interactive`, `0`, `0+1`; empty for the job itself.
        cluster: Name of the cluster, when several are federated; empty for none.
    """

    base: int
    array: str = ""
    het: int | None = None
    step: str = ""
    cluster: str = ""

    def __str__(self) -> str:
        return (
            str(self.base)
            + (f"_{self.array}" if self.array else "")
            + (f"+{self.het}" if self.het is not None else "")
            + (f".{self.step}" if self.step else "")
            + (f";{self.cluster}" if self.cluster else "")
        )

    @property
    def array_index(self) -> int | None:
        """The index of one array task; None for no array and for several tasks at once."""
        return int(self.array) if self.array.isdecimal() else None

    @property
    def job(self) -> JobId:
        """The job without its step."""
        return JobId(self.base, self.array, self.het, "", self.cluster)


def parse(text: str) -> JobId:
    """Read a job id.

    Args:
        text: `12`, `12_3`, `12_[0-9%2]`, `12+1`, `12;cluster`, `12.batch`, `12_3.extern`.

    Raises:
        ParseError: Anything else.
    """
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise ParseError(f"{text!r} is not a job id.", "Job ids look like 12345 or 12345_7.")
    return JobId(
        base=int(match["base"]),
        array=match["array"] or "",
        het=None if match["het"] is None else int(match["het"]),
        step=(match["step"] or "") + (match["het_step"] or ""),
        cluster=match["cluster"] or "",
    )


def parse_submitted(text: str) -> JobId:
    """Read what `sbatch --parsable` printed: `12345` or `12345;cluster` (sbatch(1)).

    Site wrappers and plugins print lines before it, so the last line that is not blank counts.

    Raises:
        ParseError: That line is not a job id alone.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or _SUBMITTED.fullmatch(lines[-1]) is None:
        raise ParseError(
            f"sbatch answered {(lines[-1] if lines else '')!r}, which is not a job id.",
            "Look with rvstate ps before you submit again.",
        )
    return parse(lines[-1])
