"""How busy the GPUs of running jobs are, and which of them nobody uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from rvstate.errors import ConfigError, RvstateError, UnsupportedError
from rvstate.model.job import RunRecord
from rvstate.script import Answer, Script
from rvstate.shell import join
from rvstate.sitetools import nvidia
from rvstate.sitetools.nvidia import Gpu
from rvstate.slurm.states import JobState
from rvstate.workflows import jobs
from rvstate.workflows.session import Session

# A job that loads data or compiles may leave its GPUs alone for a while.
LONG = 600  # seconds


@dataclass(frozen=True, slots=True)
class Use:
    """The GPUs of one run at one moment.

    Args:
        run: The run.
        gpus: Those of its GPUs of which something is known.
        error: Why nothing is known of others; empty where all were told.
    """

    run: RunRecord
    gpus: tuple[Gpu, ...]
    error: str = ""


def look(session: Session, wanted: str | None = None) -> tuple[Use, ...]:
    """Ask the nodes of runs that hold GPUs, each run by one step inside it.

    Args:
        session: Which account.
        wanted: One run; None for all that hold GPUs.

    Raises:
        ConfigError: No run is called so, or it does not run, or it holds no GPU.
        UnsupportedError: The account has no GPUs.
        RvstateError: Nobody could be asked.
    """
    if session.config.site.scheduler == "process":
        raise UnsupportedError(
            "Jobs of site local hold no GPUs.", "On a cluster, `rvstate gpu` shows them."
        )
    runs = _chosen(jobs.runs(session), wanted)
    if not runs:
        return ()
    words = [word for run in runs for word in (run.job or "", str(len(run.nodes) or 1))]
    answer = session.transport.run(Script("gpu", (join(nvidia.COMMAND), *words)))
    if answer.status != 0:
        lines = answer.errors.strip().splitlines()
        raise RvstateError(
            f"The nodes could not be asked: {lines[-1] if lines else 'no reason given'}.",
            "Try again, or see `rvstate doctor`.",
        )
    return read(runs, answer)


def read(runs: tuple[RunRecord, ...], answer: Answer) -> tuple[Use, ...]:
    """What `remote/gpu.sh` says of each of the runs."""
    said: dict[str, tuple[str, str]] = {}
    errors: dict[str, str] = {}
    for header, body in answer.sections:
        text = body.decode("utf-8", "replace")
        match header.split(" "):
            case ["gpu", job, status]:
                said[job] = (status, text)
            case ["errors", job]:
                errors[job] = text
    return tuple(
        _use(run, *said.get(run.job or "", ("1", "")), errors.get(run.job or "", ""))
        for run in runs
    )


def _chosen(runs: tuple[RunRecord, ...], wanted: str | None) -> tuple[RunRecord, ...]:
    if wanted is None:
        return tuple(r for r in runs if r.state is JobState.RUNNING and "gpu" in r.gpus)
    run = jobs.find(runs, wanted)
    if run.state is not JobState.RUNNING:
        raise ConfigError(
            f"Run {wanted} is {run.state.value}; only one that runs can be asked.",
            "See `rvstate ps`.",
        )
    if "gpu" not in run.gpus:
        raise ConfigError(f"Run {wanted} holds no GPU.", "Submit it with -g and -t.")
    return (run,)


def _use(run: RunRecord, status: str, text: str, errors: str) -> Use:
    rows: dict[tuple[str, str], list[str]] = {}
    failed: dict[str, str] = {}
    for line in text.splitlines():
        node, _, rest = line.partition("|")
        devices, _, row = rest.partition("|")
        if row.startswith("failed "):
            failed[node] = _why(*row.split(" ", 2)[1:])
        else:
            rows.setdefault((node, devices), []).append(row)
    found: list[Gpu] = []
    for key, lines in sorted(rows.items()):
        here = nvidia.parse(*key, "\n".join(lines))
        found += here
        if not here:
            failed.setdefault(key[0], lines[-1] or "nvidia-smi shows no GPU")
    if not found and not failed:
        spoken = errors.strip().splitlines()
        return Use(run, (), spoken[-1] if spoken else f"no answer (exit code {status})")
    return Use(run, tuple(found), "; ".join(f"{node}: {why}" for node, why in failed.items()))


def _why(status: str, words: str = "") -> str:
    if status == "124":
        return "nvidia-smi does not answer"
    if status == "127":
        return "there is no nvidia-smi"
    return words.strip() or f"nvidia-smi failed with exit code {status}"


@dataclass(slots=True)
class Idle:
    """Remembers since when GPUs compute nothing, over several looks."""

    since: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def seen(self, uses: tuple[Use, ...], now: float) -> tuple[str, ...]:
        """Add a look; say which GPUs have been idle for long.

        A single look knows it only of a GPU that holds nothing either, in a job that has run for
        long: a program that computes now and then keeps its memory.

        Args:
            uses: The look.
            now: Its time in seconds, by a clock that never goes back.
        """
        found = []
        for use in uses:
            for gpu in use.gpus:
                key = (use.run.job or "", gpu.node, gpu.index)
                if gpu.busy != 0:
                    self.since.pop(key, None)
                    continue
                start = self.since.setdefault(key, now)
                text = _words(use, gpu, now - start)
                if text:
                    found.append(text)
        return tuple(found)


def _words(use: Use, gpu: Gpu, idle: float) -> str:
    where = f"GPU {gpu.index} of {gpu.node} (job {use.run.job} {use.run.name})"
    elapsed = use.run.elapsed or 0
    if gpu.empty and elapsed >= LONG:
        return (
            f"{where} holds nothing and computes nothing, {elapsed // 60} minutes after the start"
        )
    if idle >= LONG:
        return f"{where} has computed nothing for {int(idle) // 60} minutes"
    return ""
