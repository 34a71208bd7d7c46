"""What a job starts where: one program in all, one on each node, or one for each rank; pure."""

from __future__ import annotations

from rvstate import launchcheck
from rvstate.errors import RefusedError
from rvstate.launcher import ALL_GPUS, ALL_NODES, COUNTS, EACH_NODE, Launcher, Reader
from rvstate.model.launch import Launch
from rvstate.shape import Shape, alone, count

STARTS = ("once", "node", "rank")


def launch(found: Launcher, shape: Shape, start: str | None, read: Reader) -> Launch:
    """What is started where, as the launcher means it.

    Args:
        found: The launcher in the command.
        shape: Nodes and GPUs.
        start: As the user says, or None.
        read: The text of a file of the project, or None.

    Raises:
        ConfigError: The command says something else than the request.
        RefusedError: Nobody can know what would be right on several nodes.
    """
    said = launchcheck.counts(found, shape)
    ranks = _ranks(found, shape)
    fronted = found.name == "deepspeed" or (found.name == "accelerate" and shape.nodes > 1)
    if shape.nodes == 1 and start != "rank" and found.name not in ALL_NODES:
        told = (_told(found, shape, "node", ranks),) if found.name in EACH_NODE else alone(shape)
        return Launch(ranks=ranks, notices=(*told, *said), fronted=fronted)
    how = start or _start(found, shape, read)
    if how == "node":
        launchcheck.each_node(found)
    if how == "rank":
        ranks = max(1, shape.gpus)
    told = (_told(found, shape, how, ranks), *said, *_beside(found, how))
    return Launch(how, shape.nodes, ranks, told, fronted and how == "node")


def _ranks(found: Launcher, shape: Shape) -> int:
    """Programs that share a node's CPUs; as many as GPUs where nobody can know."""
    named = found.number(*COUNTS.get(found.name, ()))
    if found.name == "torchrun":
        # without a count it starts one
        return named or (1 if found.option("nproc_per_node") is None else max(1, shape.gpus))
    if found.name == "accelerate" and named:
        return max(1, named // shape.nodes)
    if found.name in ALL_NODES and not found.number("ntasks_per_node"):
        total, nodes = found.number("ntasks"), found.number("nodes") or shape.nodes
        named = -(-total // nodes) if total else None
    return named or max(1, shape.gpus)


def _start(found: Launcher, shape: Shape, read: Reader) -> str:
    """How a command is started that the user said nothing about.

    Raises:
        RefusedError: Nothing in it says how.
    """
    if found.name.partition(" ")[0] in EACH_NODE:
        return "node"
    if found.name in ALL_NODES:
        return "once"
    each = max(1, shape.gpus)
    torchrun = f"torchrun --nproc_per_node={each} {found.script or 'train.py'}"
    if found.name == "python":
        for script in (found.script, *found.beside):
            launchcheck.ranked(script, shape, read)
        return "rank"
    raise RefusedError(
        f"What this command starts on {shape.nodes} nodes is not known.",
        f"Name a launcher (`{torchrun}`), or say --start node (one on each node), --start rank "
        f"({each} on each), or --start once.",
    )


def _told(found: Launcher, shape: Shape, how: str, ranks: int) -> str:
    where = shape.words
    name = found.name or "the command"
    each, there, first, in_all = (
        (" on each", " there", ", on the first node", f", {shape.nodes * ranks} in all")
        if shape.nodes > 1
        else ("", "", "", "")
    )
    if how == "rank":
        return f"{where}: {name} is started {count(ranks, 'time')}{each}{in_all}"
    counts = [x for x in COUNTS.get(found.name, ()) if found.option(x) is not None]
    # a variable of the shell, for example
    unknown = counts and found.number(*counts) is None and found.option(*counts) not in ALL_GPUS
    starts = f", and starts what --{counts[0]} says" if unknown else ""
    if how == "once":
        if not unknown and found.name in ALL_NODES:
            programs = found.number("ntasks") or shape.nodes * ranks
            starts = f", and starts {count(programs, 'program')}"
        return f"{where}: {name} is started once{first}{starts}"
    if not starts and found.name in EACH_NODE:
        starts = f", and starts {count(ranks, 'program')}{there}{in_all}"
    return f"{where}: {name} is started once{each}{starts}"


def _beside(found: Launcher, how: str) -> tuple[str, ...]:
    if how == "once" or not found.beside:
        return ()
    return (
        f"the whole line runs on each node, so {', '.join(found.beside)} does too; if it must run "
        "only once, submit it as a job of its own",
    )
