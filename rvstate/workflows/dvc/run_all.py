"""DVC's own queue on this machine: filled as DVC does it, and run on the cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rvstate import experiment, git, history, overrides, waiting
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.experiment import Waiting
from rvstate.workflows.run.order import Order


def is_queueing(arguments: tuple[str, ...]) -> bool:
    """Whether DVC's arguments only put something into its queue."""
    return any(argument.option == "--queue" for argument in overrides.read(arguments))


def queue_here(here: Path, arguments: tuple[str, ...]) -> str:
    """Let DVC on this machine put an experiment into its queue; what it said.

    Raises:
        ConfigError: There is no dvc here, or an option would be lost.
        RvstateError: It failed.
    """
    lost = [a for a in overrides.read(arguments) if a.option in ("-C", "-m", "-M")]
    if lost:
        raise ConfigError(
            f"DVC keeps {lost[0].option} for its own worker, and not with what is queued.",
            "Leave it out, or run the experiment without --queue.",
        )
    status, said = history.run_dvc(_program(here), here, *experiment.WORDS[1:], *arguments)
    if status != 0:
        raise RvstateError(f"DVC queued nothing: {said.strip()}", "Mend that, and try again.")
    return said


def with_queue(order: Order) -> Order:
    """The order with all that DVC's queue here holds, where `--run-all` asks for that.

    Raises:
        ConfigError: The queue is empty, or more is asked for.
    """
    given = order.words[len(experiment.WORDS) :]
    found = overrides.read(given)
    if order.dvc is None or "--run-all" not in {argument.option for argument in found}:
        return order
    jobs = [argument.value for argument in found if argument.option == "-j"]
    own = {a.word for a in found if a.option in ("--run-all", "-j")}
    # the letter stands in front of its value
    own |= {a.word - 1 for a in found if a.option == "-j" and a.start == 0}
    other = [word for at, word in enumerate(given) if at not in own]
    if other:
        raise ConfigError(
            f"--run-all runs what is queued as it was queued, and takes no {other[0]}.",
            "Say it when the experiment is queued: rvstate dvc run --queue …",
        )
    project = git.inspect(order.directory)
    queued = waiting.waiting(Path(project.root)) if project.in_git else ()
    if not queued:
        raise ConfigError(
            "DVC's queue here is empty.",
            "Fill it: rvstate dvc run --queue -S model.lr=0.1,0.2",
        )
    return replace(
        order,
        array=order.array or (f"%{jobs[-1]}" if jobs else ""),
        dvc=replace(
            order.dvc,
            mode="snapshot",
            queued=queued,
            gathered=waiting.gathered(Path(project.root), (one.files for one in queued)),
        ),
    )


def taken(here: Path, queued: tuple[Waiting, ...], array: tuple[int, ...]) -> str:
    """Take what is submitted out of DVC's queue here; why that could not be, or empty.

    Args:
        here: Where the user stands.
        queued: What the queue held.
        array: Which of them are submitted.
    """
    names = [queued[index].name for index in array]
    try:
        status, said = history.run_dvc(_program(here), here, "queue", "remove", *names)
    except ConfigError as error:
        status, said = 1, error.message
    if status == 0:
        return ""
    return (
        "submitted, and still in DVC's queue here, from where they would be submitted again "
        f"(`dvc queue remove {' '.join(names)}`): {said.strip()}"
    )


def _program(here: Path) -> str:
    program = history.dvc(Path(git.inspect(here).root))
    if program is None:
        raise ConfigError(
            "There is no dvc on this machine, whose queue it would be.",
            "Install it here. Several values of -S are an array without --queue, too.",
        )
    return program
