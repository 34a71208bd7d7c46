"""What a job starts where: one program in all, one on each node, or one for each rank; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rvstate.errors import ConfigError, RefusedError
from rvstate.launcher import Launcher, Reader
from rvstate.shape import Shape

STARTS = ("once", "node", "rank")
# Each starts the programs of its own node, told which node that is.
_EACH_NODE = frozenset({"torchrun", "accelerate", "deepspeed"})
# Each starts programs on all nodes by itself.
_ALL_NODES = frozenset({"srun", "mpirun"})

# A model spread over the GPUs of one node by a single program...
_INFERENCE = re.compile(r"\bdevice_map\s*=|\bpipeline\(|^\s*(?:import|from)\s+vllm\b", re.MULTILINE)
# ... unless it is trained.
_TRAINING = re.compile(r"\.backward\(|\bloss[._]|init_process_group|Trainer\(|torchrun")
# A program that reads its rank, or whose library does.
_RANKED = re.compile(
    r"init_process_group|\bRANK\b|LOCAL_RANK|WORLD_SIZE|SLURM_(?:PROCID|LOCALID|NTASKS)"
    r"|^\s*(?:import|from)\s+(?:accelerate|deepspeed|lightning|pytorch_lightning|mpi4py|horovod"
    r"|ray|ignite|composer|colossalai|megatron)\b"
    r"|torch\.distributed|jax\.distributed|Trainer\(|MultiWorkerMirroredStrategy",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How the command is started.

    Args:
        start: `once`, `node` or `rank`; empty for a job of one node, where nothing is special.
        nodes: Count.
        ranks: Programs that share a node.
        notices: What the user should know before it is submitted.
    """

    start: str = ""
    nodes: int = 1
    ranks: int = 1
    notices: tuple[str, ...] = ()


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
    said = _checked(found, shape)
    if shape.nodes == 1 and start in (None, "once", "node"):
        return Launch(ranks=_ranks(found, shape), notices=said)
    how = start or _start(found, shape, read)
    if how == "node":
        _check_each_node(found)
    ranks = _ranks(found, shape) if how == "node" else max(1, shape.gpus)
    told = (_told(found, shape, how, ranks), *said, *_beside(found, how))
    return Launch(how, shape.nodes, ranks, told)


def is_inference(text: str) -> bool:
    """Whether a script runs a model without training it, so that one program uses all its GPUs."""
    return bool(_INFERENCE.search(text)) and not _TRAINING.search(text)


def _ranks(found: Launcher, shape: Shape) -> int:
    """Programs that share a node's CPUs."""
    if found.name == "torchrun":
        named = found.option("nproc_per_node")
        return found.number("nproc_per_node") or (max(1, shape.gpus) if named else 1)
    if found.name == "accelerate":
        total = found.number("num_processes")
        return max(1, total // shape.nodes) if total else max(1, shape.gpus)
    if found.name == "deepspeed":
        return found.number("num_gpus", "num_accelerators") or max(1, shape.gpus)
    return max(1, shape.gpus)


def _start(found: Launcher, shape: Shape, read: Reader) -> str:
    """How a command is started that the user said nothing about.

    Raises:
        RefusedError: Nothing in it says how.
    """
    if found.name.partition(" ")[0] in _EACH_NODE:
        return "node"
    if found.name in _ALL_NODES:
        return "once"
    each = max(1, shape.gpus)
    torchrun = f"torchrun --nproc_per_node={each} {found.script or 'train.py'}"
    if found.name == "python":
        text = read(found.script) if found.script else None
        if text is not None and is_inference(text) and not shape.given:
            raise RefusedError(
                f"{found.script} runs a model without training it, which uses the GPUs of one "
                f"node, and {shape.nodes * shape.gpus} need {shape.nodes} nodes.",
                f"Ask for fewer GPUs, or name --nodes {shape.nodes} if it is meant.",
            )
        if text is None or _RANKED.search(text):
            return "rank"
        raise RefusedError(
            f"{found.script} does not look at its rank, so {shape.nodes} nodes would run the same "
            "thing again and again.",
            f"Start it with `{torchrun}`, or say --start rank for {shape.nodes * each} programs, "
            "--start once for one.",
        )
    raise RefusedError(
        f"What this command starts on {shape.nodes} nodes is not known.",
        f"Name a launcher (`{torchrun}`), or say --start node (one on each node), --start rank "
        f"({each} on each), or --start once.",
    )


def _checked(found: Launcher, shape: Shape) -> tuple[str, ...]:
    """What the command says of nodes and programs, against the request.

    Raises:
        ConfigError: It is something else.
    """
    for option in ("nnodes", "num_machines", "num_nodes"):
        if found.name.partition(" ")[0] in _EACH_NODE and (said := found.option(option)):
            _check_nodes(found, option, said, shape)
    if found.name == "torchrun":
        return _check_programs(found, "nproc_per_node", shape.gpus, shape)
    if found.name == "accelerate":
        return _check_programs(found, "num_processes", shape.nodes * shape.gpus, shape)
    if found.name == "deepspeed":
        return _check_programs(found, "num_gpus", shape.gpus, shape)
    return ()


def _check_nodes(found: Launcher, option: str, said: str, shape: Shape) -> None:
    if said.isdecimal() and int(said) != shape.nodes:
        raise ConfigError(
            f"{found.name} is told --{option} {said}, and the job has "
            f"{_count(shape.nodes, 'node')}.",
            f"Leave --{option} out, or ask for --nodes {said}.",
        )


def _check_programs(found: Launcher, option: str, want: int, shape: Shape) -> tuple[str, ...]:
    """Whether there is one program for each GPU."""
    said = found.number(option)
    where = "in all" if option == "num_processes" else "on each node"
    if option == "num_processes" and said and said % shape.nodes:
        raise ConfigError(
            f"accelerate's --num_processes {said} cannot be shared evenly by {shape.nodes} nodes: "
            "it counts the programs of all nodes together.",
            f"Use --num_processes {want or shape.nodes}.",
        )
    if not want:
        return ()
    if said is None:
        if found.name == "torchrun" and found.option(option) is None and want > 1:
            told = f"torchrun starts 1 program {where} unless it is told --{option}"
            if shape.nodes > 1:
                raise ConfigError(f"{told}, and there are {want} GPUs.", f"Add --{option}={want}.")
            return (f"{told}; the job has {want} GPUs",)
        return ()
    if said == want:
        return ()
    shown = _count(shape.nodes, "node") + (f" of {shape.gpus} GPUs" if shape.gpus else "")
    text = f"{found.name} is told --{option} {said}, and the job has {want} GPUs {where} ({shown})"
    if said < want and shape.given:
        return (f"{text}: {want - said} of them stay idle unless each program uses several",)
    raise ConfigError(f"{text}.", _remedy(option, said, want, shape))


def _remedy(option: str, said: int, want: int, shape: Shape) -> str:
    total = shape.nodes * shape.gpus
    if option == "num_processes":
        return f"Use --{option} {want}, or ask for -g {said}."
    nodes = total // said if said and total % said == 0 else 0
    other = (
        f" --nodes {nodes} for {nodes} nodes of {said}" if nodes > shape.nodes else f" -g {said}"
    )
    return f"Use --{option}={want}, or ask for{other}."


def _check_each_node(found: Launcher) -> None:
    """What one program a node cannot be told by its command."""
    name, _, module = found.name.partition(" ")
    if module:
        raise RefusedError(
            f"{name} is started as a Python module, so it cannot be told about several nodes.",
            f"Use `{name}{' launch' if name == 'accelerate' else ''} ...` instead.",
        )
    if found.name == "torchrun" and found.option("standalone") is not None:
        raise RefusedError(
            "torchrun --standalone is for one node.",
            "Leave --standalone out, or add --single-node.",
        )
    own = [x for x in ("hostfile", "H", "launcher") if found.option(x) is not None]
    if found.name == "deepspeed" and own:
        raise RefusedError(
            f"deepspeed --{own[0]} starts programs by ssh, which compute nodes do not allow.",
            "Leave it out: the job starts deepspeed on each node and tells it about the others.",
        )


def _told(found: Launcher, shape: Shape, how: str, ranks: int) -> str:
    gpus = f" of {shape.gpus} GPUs" if shape.gpus else ""
    where = f"{_count(shape.nodes, 'node')}{gpus}"
    name = found.name or "the command"
    if how == "once":
        return f"{where}: {name} is started once, on the first node"
    if how == "rank":
        times = _count(ranks, "time")
        return f"{where}: {name} is started {times} on each, {shape.nodes * ranks} in all"
    return (
        f"{where}: {name} is started once on each, and starts {_count(ranks, 'program')} there, "
        f"{shape.nodes * ranks} in all"
    )


def _beside(found: Launcher, how: str) -> tuple[str, ...]:
    if how == "once" or not found.beside:
        return ()
    return (
        f"the whole line runs on each node, so {', '.join(found.beside)} does too; if it must run "
        "only once, submit it as a job of its own",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
