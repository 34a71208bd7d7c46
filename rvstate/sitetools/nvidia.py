"""`nvidia-smi`: how busy the GPUs of a job are."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMMAND = (
    "nvidia-smi",
    "--query-gpu=index,name,utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader",
)
# A driver keeps some of a GPU's memory for itself, so "nothing in use" is not quite zero.
_DRIVER_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it was at one moment; None is what the driver does not tell (`[N/A]`, on MIG).

    Args:
        node: The node's name.
        index: Its number there.
        name: Its model.
        busy: Percent of the last moment in which it computed.
        used: MiB of its memory that is in use.
        total: MiB of its memory.
    """

    node: str
    index: int
    name: str
    busy: int | None
    used: int | None
    total: int | None

    @property
    def empty(self) -> bool:
        """Whether no program has anything on it: it computes nothing and holds nothing."""
        if self.busy or self.used is None or not self.total:
            return False
        return self.busy == 0 and self.used <= self.total * _DRIVER_SHARE


def parse(node: str, devices: str, text: str) -> tuple[Gpu, ...]:
    """The output of `COMMAND` on one node.

    Args:
        node: The node's name.
        devices: The numbers of the job's GPUs, `0,1` or `0-3`; empty where nobody said.
        text: The output; a node that shows all its GPUs to everybody shows strangers' too, which
            are left out.
    """
    found = [gpu for line in text.splitlines() if (gpu := _row(node, line)) is not None]
    mine = _numbers(devices)
    if mine and len(found) > len(mine):
        found = [gpu for gpu in found if gpu.index in mine]
    return tuple(found)


def _row(node: str, line: str) -> Gpu | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) < 5 or not fields[0].isdigit():
        return None
    busy, used, total = (_count(field) for field in fields[-3:])
    return Gpu(node, int(fields[0]), ", ".join(fields[1:-3]), busy, used, total)


def _count(text: str) -> int | None:
    match = re.match(r"[0-9]{1,9}(?=\D|$)", text)
    return int(match[0]) if match else None


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
        if match:
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found
