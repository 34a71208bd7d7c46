"""What a command says of nodes, programs and ranks, against the request; pure."""

from __future__ import annotations

import posixpath
import re

from rvstate.errors import ConfigError, RefusedError
from rvstate.launcher import ALL_NODES, COUNTS, EACH_NODE, Launcher, Reader
from rvstate.shape import Shape, count

# What deepspeed starts other nodes by, or calls nodes by name with.
_SSH = ("hostfile", "H", "launcher", "include", "i", "exclude", "e")
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
_IMPORTED = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\b|import\s+([\w.]+))", re.MULTILINE)
# What a launcher calls the number of a node, and the address of the first one.
_NODE = ("node_rank", "machine_rank")
_ADDRESS = ("master_addr", "main_process_ip", "rdzv_endpoint")
_LOCAL = re.compile(r"(?:localhost|127\.[0-9.]+|\[?::1\]?)(?::[0-9]*)?")


def counts(found: Launcher, shape: Shape) -> tuple[str, ...]:
    """What the command says of nodes and programs, against the request.

    Raises:
        ConfigError: It is something else.
    """
    if found.name.partition(" ")[0] in EACH_NODE:
        for option in ("nnodes", "num_machines", "num_nodes"):
            if said := found.option(option):
                _check_nodes(found, option, said, shape)
        if shape.nodes > 1:
            _check_places(found)
    if found.name in ALL_NODES:
        _check_tasks(found, shape)
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
            f"{count(shape.nodes, 'node')}.",
            f"Leave --{option} out, or ask for --nodes {said}.",
        )


def _check_places(found: Launcher) -> None:
    """What every node would be told in the same words, and is different on each."""
    for option in (*_NODE, *_ADDRESS):
        said = found.option(option) or ""
        if (option in _NODE and said.isdecimal()) or (
            option in _ADDRESS and _LOCAL.fullmatch(said)
        ):
            raise ConfigError(
                f"{found.name} is told --{option} {said}, which would be so on every node.",
                f"Leave --{option} out: the job tells each node its own.",
            )
    kind = found.option("distributed_type")
    alone = "--cpu" if found.option("cpu") is not None else f"distributed_type: {kind}"
    kinds = ("multi_gpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")
    named = any(found.option(x) is not None for x in kinds)
    if found.option("cpu") is not None or (kind in ("NO", "MULTI_CPU") and not named):
        raise ConfigError(
            f"accelerate is told {alone}, so each node would run as if it were the only one.",
            "Use --multi_gpu instead, which serves CPUs as well.",
        )
    backend = found.option("rdzv_backend")
    if backend not in (None, "static") and found.option("rdzv_endpoint") is None:
        raise ConfigError(
            f"torchrun is told --rdzv_backend {backend}, and not where it is.",
            "Leave --rdzv_backend out: the job names the first node and a port.",
        )


def _check_tasks(found: Launcher, shape: Shape) -> None:
    """What an srun or MPI says of nodes and programs."""
    nodes = found.number("nodes")
    if nodes and nodes > shape.nodes:
        raise ConfigError(
            f"srun is told {count(nodes, 'node')}, and the job has {shape.nodes}.",
            f"Ask for --nodes {nodes}.",
        )
    if found.inner.partition(" ")[0] in EACH_NODE and not found.number(*COUNTS["srun"]):
        raise ConfigError(
            f"srun would start {found.inner} once for each rank, and {found.inner} starts the "
            "ranks of a node by itself.",
            "Leave srun out: the job starts it once on each node.",
        )


def _check_programs(found: Launcher, option: str, want: int, shape: Shape) -> tuple[str, ...]:
    """Whether there is one program for each GPU."""
    said = found.number(option)
    where = "in all" if option == "num_processes" else "on each node"
    if want and found.option(option) == "cpu":
        raise ConfigError(
            f"{found.name} --{option}=cpu starts a program for each CPU of the node.",
            f"Use --{option}={want}.",
        )
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
    has = f"the job has {count(want, 'GPU')} {where} ({shape.words})"
    text = f"{found.name} is told --{option} {said}, and {has}"
    if said < want and shape.given:
        return (f"{text}: {want - said} of them stay idle unless each program uses several",)
    raise ConfigError(f"{text}.", _remedy(option, said, want, shape))


def _remedy(option: str, said: int, want: int, shape: Shape) -> str:
    total = shape.nodes * shape.gpus
    if shape.nodes > 1 and said > want and option != "num_processes":
        return f"Use --{option}={want}: it counts the programs of one node."
    if option == "num_processes":
        return f"Use --{option} {want}, or ask for -g {said}."
    nodes = total // said if said and total % said == 0 else 0
    other = (
        f" --nodes {nodes} for {nodes} nodes of {said}" if nodes > shape.nodes else f" -g {said}"
    )
    return f"Use --{option}={want}, or ask for{other}."


def each_node(found: Launcher) -> None:
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
    own = [x for x in _SSH if found.option(x) is not None]
    if found.name == "deepspeed" and own:
        raise RefusedError(
            f"deepspeed --{own[0]} needs names of nodes or ssh between them, and the job has "
            "neither before it runs.",
            "Leave it out: the job starts deepspeed on each node and tells it about the others.",
        )


def is_inference(text: str) -> bool:
    """Whether a script runs a model without training it, so that one program uses all its GPUs."""
    return bool(_INFERENCE.search(text)) and not _TRAINING.search(text)


def ranked(script: str | None, shape: Shape, read: Reader) -> None:
    """Whether a Python program can be started once for each rank.

    Raises:
        RefusedError: It would do the same thing again and again, or nobody can know.
    """
    each = max(1, shape.gpus)
    total = shape.nodes * each
    meant = f"say --start rank for {total} programs, --start once for one"
    text = read(script) if script else None
    if script is None or text is None:
        raise RefusedError(
            f"Whether {script or 'this Python command'} looks at its rank is not known, for it is "
            f"no file of the project, and the job has {shape.nodes} nodes.",
            f"{meant[0].upper()}{meant[1:]}.",
        )
    knows = _looks_at_rank(script, text, read)
    if is_inference(text) and not (knows and shape.given):
        raise RefusedError(
            f"{script} runs a model without training it, which uses the GPUs of one node, and the "
            f"job has {shape.nodes} nodes.",
            f"Ask for the GPUs of one node, or {meant}.",
        )
    if not knows:
        raise RefusedError(
            f"{script} does not look at its rank, so {shape.nodes} nodes would run the same "
            "thing again and again.",
            f"Start it with `torchrun --nproc_per_node={each} {script}`, or {meant}.",
        )


def _looks_at_rank(script: str, text: str, read: Reader) -> bool:
    """Whether a program, or a file of the project that it imports, speaks of ranks."""
    if _RANKED.search(text):
        return True
    folder = posixpath.dirname(script)
    for match in _IMPORTED.finditer(text):
        path = (match[1] or match[2]).strip(".").replace(".", "/")
        for base in dict.fromkeys((folder, "", "src")):
            for end in (".py", "/__init__.py"):
                imported = read(posixpath.join(base, path + end))
                if imported is not None and _RANKED.search(imported):
                    return True
    return False
