"""Whether a node, not the program, was at fault when a run failed; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rvstate.slurm.states import JobState

# Seconds of run time within which an error of a GPU is one of the start.
AT_START = 300
_FAILED = frozenset({JobState.NODE_FAIL, JobState.BOOT_FAIL})
# Words of CUDA, NVML and the driver that no program of the user's can bring about.
_GPU = re.compile(
    r"uncorrectable ECC error|[Ff]allen off the bus|CUDA unknown error|cudaErrorUnknown"
    r"|[Uu]nable to determine the device handle|NVML_?Error_?Unknown|NVRM: Xid"
    r"|couldn't communicate with the NVIDIA driver|CUDA driver initialization failed"
    r"|hardware error.{0,40}GPU|cudaErrorDevicesUnavailable|cudaErrorHardwareStackError"
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault of the hardware.

    Args:
        nodes: Where, as far as anybody says.
        what: In words.
    """

    nodes: tuple[str, ...]
    what: str


def trouble(
    state: JobState,
    elapsed: int | None,
    nodes: tuple[str, ...],
    logs: Iterable[tuple[int | None, str]],
    down: frozenset[str],
) -> Trouble | None:
    """The hardware's fault, or None where nothing speaks of one.

    Args:
        state: How the run ended.
        elapsed: Seconds of run time, or None.
        nodes: The run's nodes, in Slurm's order.
        logs: The ends of its error logs: which node wrote it, None where that could be any of
            several, and the text.
        down: Those of the nodes that Slurm does not use any more.
    """
    if state in _FAILED:
        bad = nodes if len(nodes) == 1 else tuple(node for node in nodes if node in down)
        return Trouble(bad, "failed")
    if state is not JobState.FAILED or elapsed is None or elapsed > AT_START:
        return None
    found: dict[str, str] = {}
    for number, text in logs:
        match = _GPU.search(text)
        if match is not None:
            known = number is not None and number < len(nodes)
            found.setdefault(nodes[number or 0] if known else "", _line(text, match.start()))
    if not found:
        return None
    what = f"had an error of a GPU at the start ({next(iter(found.values()))})"
    return Trouble(tuple(filter(None, found)), what)


def _line(text: str, at: int) -> str:
    begin = text.rfind("\n", 0, at) + 1
    return text[begin:].partition("\n")[0].strip()[:160]
