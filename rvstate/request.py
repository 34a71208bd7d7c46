"""What the user asks for, made into sbatch's options by the site's data; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rvstate.errors import ConfigError, RefusedError, nearest
from rvstate.model.settings import Settings
from rvstate.model.site import Gpu, Site
from rvstate.shape import Limits, Shape, shape
from rvstate.slurm import duration, memory, token, when
from rvstate.slurm.options import SbatchOptions, check_raw

_HOUR = 3600
# In the place of a type: whichever serves.
ANY = "any"
# In the place of a preset: none, though the settings name one.
NO_PRESET = "none"
# What a preset says in the words of the request; sbatch's own options beside it.
_PRESET = (
    *("gpus", "gpu_type", "gpu_mem", "nodes", "gpus_per_node", "exclusive", "constraint"),
    *("exclude", "time", "mem", "cpus", "partition", "account", "wckey", "comment"),
    *("mail_type", "mail_user", "begin", "deadline"),
)
# How many GPUs and nodes: the user's own shape is not mixed with a preset's.
_SHAPE = ("gpus", "nodes", "gpus_per_node")
# Where GPUs of a kind are; what names another kind is not mixed with it.
_PLACE = ("gpu_type", "gpu_mem", "partition", "constraint")
_MOMENTS = ("begin", "deadline")
_FEATURES = re.compile(r"[^\s&|()\[\]*,]+(?:&[^\s&|()\[\]*,]+)*")


@dataclass(frozen=True, slots=True)
class Request:
    """The resource options of `rvstate run`, as typed; None where not given.

    Args:
        gpus: How many GPUs, in all.
        nodes: How many nodes.
        gpus_per_node: How many GPUs on each.
        single_node: Whether one node it must be.
        exclude: Nodes not to use, as Slurm writes lists of them.
        gpu_type: Which type, by name or alias; several with commas or `any` leave a choice.
        gpu_mem: The least memory of each GPU, for example `40G`.
        mig: The smallest slice of a GPU, one of it.
        time: Walltime, for example `2h` or `1-00:00:00`.
        mem: Memory of each node, for example `32G`.
        cpus: CPUs of each node.
        partition: Over what the site's data says.
        account: The allocation that pays.
        constraint: Features that nodes must have, as Slurm writes them.
        exclusive: Whether nodes are the job's alone; None for as the settings say.
        wckey: Under which key accounting counts it.
        comment: Free text, kept with the job.
        mail_type: What Slurm mails about, with commas.
        mail_user: Whom it mails.
        begin: Not before this moment, as Slurm reads it.
        deadline: Ended by this moment, as Slurm reads it.
        raw: `--sbatch KEY=VALUE`, for everything else.
    """

    gpus: int | None = None
    nodes: int | None = None
    gpus_per_node: int | None = None
    single_node: bool = False
    exclude: str | None = None
    gpu_type: str | None = None
    gpu_mem: str | None = None
    mig: bool = False
    time: str | None = None
    mem: str | None = None
    cpus: int | None = None
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclusive: bool | None = None
    wckey: str | None = None
    comment: str | None = None
    mail_type: str | None = None
    mail_user: str | None = None
    begin: str | None = None
    deadline: str | None = None
    raw: tuple[tuple[str, str | None], ...] = ()


def raw_option(text: str) -> tuple[str, str | None]:
    """`KEY=VALUE` of `--sbatch`; leading dashes are allowed."""
    key, found, value = text.lstrip("-").partition("=")
    return key, value if found else None


def with_preset(request: Request, name: str | None, settings: Settings) -> Request:
    """The request with the values of `[presets.NAME]` where it says nothing itself.

    Args:
        request: What was typed.
        name: The preset; None for the one of the settings, and `none` for none at all.
        settings: Where presets are.

    Raises:
        ConfigError: There is no preset of that name.
    """
    name = settings.defaults.preset if name is None else name
    if not name or name == NO_PRESET:
        return request
    preset = settings.presets.get(name)
    if preset is None:
        near = nearest(name, settings.presets)
        known = ", ".join(sorted(settings.presets)) or "none"
        raise ConfigError(
            f"There is no preset {name!r}.",
            f"Did you mean {near}?" if near else f"Known: {known}; write [presets.{name}].",
        )
    own = dict(request.raw)
    raw = tuple(pair for pair in map(raw_option, preset.sbatch) if pair[0] not in own)
    left = _left_out(request)
    values = {
        key: getattr(preset, key)
        for key in _PRESET
        if key not in left and getattr(request, key) is None
    }
    # a slice is one kind of GPU, too
    other = request.gpu_type is not None or request.gpus == 0
    mig = request.mig or (preset.mig and not other)
    return replace(request, **values, mig=mig, raw=(*raw, *request.raw))


def _left_out(request: Request) -> frozenset[str]:
    """What a preset does not say of a request that names a shape or a kind of GPU itself."""
    found: set[str] = set()
    if request.mig or request.single_node or any(getattr(request, k) is not None for k in _SHAPE):
        found.update(_SHAPE)
    if request.mig or request.gpu_type is not None or request.gpus == 0:
        found.update(_PLACE)
    return frozenset(found)


def leaves_choice(request: Request, settings: Settings, site: Site) -> bool:
    """Whether several types of GPU may serve the request, or one must be checked for its memory."""
    if request.gpu_mem:
        return True
    if not site.gpus or request.mig or (request.gpus == 0 and not request.gpus_per_node):
        return False
    said = request.gpu_type or settings.defaults.gpu_type
    if said is None:
        return bool(request.gpus or request.gpus_per_node)
    return said == ANY or "," in said


def options(request: Request, settings: Settings, site: Site) -> SbatchOptions:
    """What is asked of the scheduler.

    Raises:
        ConfigError: A value is wrong.
        RefusedError: No partition of the site can fulfil it.
    """
    defaults = settings.defaults
    for key, value in request.raw:
        check_raw(key, value)
    said = {key: _said(request, settings, key) for key in ("wckey", "comment", *_MOMENTS)}
    _check_words(said, site)
    gpu = _gpu(request, settings, site)
    wanted = _shape(request, gpu, site)
    time = request.time or defaults.time
    seconds = duration.parse(time) if time else None
    mem = request.mem or defaults.mem
    partition = request.partition or (gpu[1].partition if gpu else None) or defaults.partition
    _check_time(site, partition, seconds)
    return SbatchOptions(
        partition=partition or "",
        account=request.account or defaults.account or "",
        time=seconds,
        mem=memory.parse(mem) if mem else None,
        cpus_per_task=request.cpus or defaults.cpus,
        nodes=wanted.nodes if wanted.nodes > 1 else None,
        # the programs of a node are started within it; see remote/launch.sh
        ntasks_per_node=1 if wanted.nodes > 1 else None,
        gpus=_gres(request, gpu, wanted),
        constraint=_constraint(_said(request, settings, "constraint"), gpu),
        exclude=request.exclude or "",
        exclusive=bool(defaults.exclusive if request.exclusive is None else request.exclusive),
        comment=said["comment"],
        begin=said["begin"],
        deadline=said["deadline"],
        wckey=said["wckey"],
        raw=request.raw,
    )


def _said(request: Request, settings: Settings, key: str) -> str:
    """What was asked for under this key; an empty text takes back what the settings say."""
    typed = getattr(request, key)
    return (getattr(settings.defaults, key) if typed is None else typed) or ""


def _check_words(said: dict[str, str], site: Site) -> None:
    token.check(said["comment"])
    for key in _MOMENTS:
        if not said[key]:
            continue
        when.check(f"--{key}", said[key])
        if site.scheduler == "process":
            raise RefusedError(
                f"Jobs of this machine start at once, so there is no --{key}.",
                f"Leave it out (--{key} '' where a setting or preset says it), or run it on a "
                "cluster: `rvstate init` connects to one.",
            )


def _constraint(wanted: str, gpu: tuple[str, Gpu] | None) -> str:
    """The user's features and those by which the site tells the type of GPU; all must be there."""
    needed = (gpu[1].constraint or "") if gpu else ""
    if not wanted or not needed:
        return wanted or needed
    if not _FEATURES.fullmatch(wanted):
        assert gpu is not None
        raise ConfigError(
            f"The constraint {wanted!r} cannot be joined with {needed!r}, by which this site knows "
            f"its {gpu[0]}.",
            "Name features joined by &, or name no type of GPU and write the whole constraint.",
        )
    return "&".join(dict.fromkeys((*needed.split("&"), *wanted.split("&"))))


def shape_of(request: Request, asked: SbatchOptions) -> Shape:
    """The nodes and GPUs that `options` came to, and whether the user named them so."""
    given = bool(request.nodes or request.gpus_per_node or request.single_node)
    return Shape(asked.nodes or 1, asked.gpus[1] if asked.gpus else 0, given)


def _gpu(request: Request, settings: Settings, site: Site) -> tuple[str, Gpu] | None:
    """The type that the job gets, by the site's data; never a smaller one than named."""
    if request.gpus == 0 and not request.gpus_per_node:
        return None
    if site.scheduler == "process" and (
        request.gpus or request.gpus_per_node or request.gpu_type or request.mig
    ):
        raise RefusedError(
            "This machine has no scheduler for GPUs, and no GPU was given to the job.",
            "Leave out -g, -t and --mig (and a preset of GPUs: --preset none), or run it on a "
            "cluster: `rvstate init` connects to one.",
        )
    name = "mig" if request.mig else request.gpu_type
    if name is None:
        name = settings.defaults.gpu_type if site.gpus else None
    if name is None:
        if (request.gpus or request.gpus_per_node) and site.gpus:
            raise ConfigError(
                "Which type of GPU? Nothing was said, and the site has several.",
                f"Add -t TYPE ({', '.join(site.gpu_names())}), or set gpu_type in [defaults].",
            )
        return None
    if not site.gpus:
        return None
    found = site.gpu(name)
    if found is None:
        raise ConfigError(
            f"{site.title} has no GPU type {name!r}.", f"It has: {', '.join(site.gpu_names())}."
        )
    return found


def _shape(request: Request, gpu: tuple[str, Gpu] | None, site: Site) -> Shape:
    """Nodes and GPUs on each, by the data of the type."""
    if site.scheduler == "process" and (request.nodes or 1) > 1:
        raise RefusedError(
            "This machine is one node.",
            "Leave out --nodes, or run it on a cluster: `rvstate init` connects to one.",
        )
    count = request.gpus
    if gpu is None:
        # a site without data: Slurm itself knows its types
        limits = Limits(f"GPU type {request.gpu_type}" if request.gpu_type else "GPU")
        if count is None and request.gpu_type and request.gpus_per_node is None:
            count = request.nodes or 1
    else:
        limits = Limits(f"{gpu[0]} of {site.title}", gpu[1].per_node, gpu[1].per_job)
        if count is None and request.gpus_per_node is None:
            count = request.nodes or 1
    return shape(count, request.nodes, request.gpus_per_node, request.single_node, limits)


def _gres(
    request: Request, gpu: tuple[str, Gpu] | None, wanted: Shape
) -> tuple[str | None, int] | None:
    if not wanted.gpus:
        return None
    return (gpu[1].gres if gpu is not None else request.gpu_type), wanted.gpus


def _check_time(site: Site, partition: str | None, seconds: int | None) -> None:
    for known in site.partitions:
        meant = known.name == partition or (partition is None and known.default)
        if seconds is None or not meant or known.max_time is None:
            continue
        most = duration.parse_slurm(known.max_time)
        if most is not None and seconds > most:
            raise RefusedError(
                f"{duration.render(seconds)} is more than partition {known.name} allows "
                f"({known.max_time}).",
                f"Ask for at most {most // _HOUR}h.",
            )
