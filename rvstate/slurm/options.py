"""What can be asked of sbatch(1): common options typed, the rest by name, and `#SBATCH` lines."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from rvstate.errors import ConfigError
from rvstate.shell import sbatch_line
from rvstate.slurm import duration, memory


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# sbatch(1) of Slurm 22.05 to 25.11; each release knows a subset.
_WITH_VALUE = _names("""
    account acctg-freq array batch bb bbf begin chdir cluster cluster-constraint clusters comment
    constraint container container-id container-type context core-spec cores-per-socket cpu-freq
    cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude export
    export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type
    mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes
    ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output
    partition power prefer priority profile qos reservation resv-ports segment signal
    sockets-per-node switches tasks-per-node thread-spec threads-per-core time time-min tmp
    tres-bind tres-per-task uid wait-all-nodes wckey wrap
    """)
_PERHAPS_VALUE = _names(
    "exclusive get-user-env nice no-kill oom-kill-step parsable propagate requeue"
)
_WITHOUT_VALUE = _names("""
    consolidate-segments contiguous help hold ignore-pbs no-requeue overcommit
    oversubscribe quiet reboot spread-job spread-segments stepmgr test-only usage use-min-nodes
    verbose version wait
    """)
_KNOWN = _WITH_VALUE | _PERHAPS_VALUE | _WITHOUT_VALUE

# Options that `rvstate run` has itself; two places for one value would contradict each other.
_TYPED = {
    "account": "--account",
    "array": "array",
    "begin": "--begin",
    "comment": "--comment",
    "constraint": "--constraint",
    "cpus-per-task": "--cpus",
    "deadline": "--deadline",
    "dependency": "--after",
    "exclude": "--exclude",
    "gpus": "--gpus",
    "gpus-per-node": "--gpus-per-node",
    "gres": "--gpus and --type",
    "job-name": "--name",
    "kill-on-invalid-dep": "--after",
    "mail-type": "--mail-type",
    "mail-user": "--mail-user",
    "mem": "--mem",
    "nodes": "--nodes",
    "ntasks": "`srun -n`, or --start,",
    "ntasks-per-node": "`srun -n`, or --start,",
    "partition": "--partition",
    "signal": "--signal",
    "tasks-per-node": "`srun -n`, or --start,",
    "time": "--time",
    "wckey": "--wckey",
}
# Options that rvstate decides: they say where a job runs, writes and how its id comes back.
_OURS = _names("""
    chdir error export export-file get-user-env help ignore-pbs input open-mode output
    parsable quiet test-only usage verbose version wait wrap
    """)


@dataclass(frozen=True, slots=True)
class SbatchOptions:
    """What to ask of sbatch; empty text, None and False mean "do not ask".

    Args:
        name: Job name.
        partition: One name, or several with commas.
        account: The account that pays.
        qos: Quality of service.
        time: Seconds; Slurm rounds up to whole minutes.
        nodes: Count.
        ntasks: Count.
        ntasks_per_node: Count.
        cpus_per_task: Count.
        mem: MiB per node; 0 is all of it.
        mem_per_cpu: MiB per CPU; not together with `mem`.
        gpus: GPU type (None for any) and count, per node.
        gres: Other generic resources, each with its count: `("tmpfs:10",)`.
        constraint: Features of nodes.
        exclude: Nodes not to use.
        exclusive: Whole nodes.
        output: Path with sbatch's patterns; see `literal_path`.
        error: The same; empty for the same file as `output`.
        open_mode: `append` or `truncate`.
        comment: Free text.
        mail_type: For example `("END", "FAIL")`.
        mail_user: Address.
        begin: Earliest start, as sbatch reads it.
        deadline: Latest end, as sbatch reads it.
        dependency: For example `afterok:12`.
        array: For example `0-9%2`.
        signal: For example `B:USR1@120`.
        requeue: Whether Slurm may start it again; None for the site's default.
        wckey: Workload key.
        export: `NONE`, `ALL` or names.
        raw: Other options, checked with `check_raw`: name without dashes, value or None.

    Raises:
        ConfigError: A count below one, no time, both kinds of memory, an unfit GPU type.
    """

    name: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    time: int | None = None
    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: int | None = None
    mem_per_cpu: int | None = None
    gpus: tuple[str | None, int] | None = None
    gres: tuple[str, ...] = ()
    constraint: str = ""
    exclude: str = ""
    exclusive: bool = False
    output: str = ""
    error: str = ""
    open_mode: str = ""
    comment: str = ""
    mail_type: tuple[str, ...] = ()
    mail_user: str = ""
    begin: str = ""
    deadline: str = ""
    dependency: str = ""
    array: str = ""
    signal: str = ""
    requeue: bool | None = None
    wckey: str = ""
    export: str = ""
    raw: tuple[tuple[str, str | None], ...] = ()

    def __post_init__(self) -> None:
        counts = {
            "time": self.time,
            "nodes": self.nodes,
            "ntasks": self.ntasks,
            "ntasks_per_node": self.ntasks_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem_per_cpu": self.mem_per_cpu,
        }
        for setting, value in counts.items():
            if value is not None and value < 1:
                raise ConfigError(f"{setting} is {value}.", "It must be at least 1.")
        if self.mem is not None and self.mem < 0:
            raise ConfigError(f"mem is {self.mem}.", "Write 0 for all the memory of each node.")
        if self.mem is not None and self.mem_per_cpu is not None:
            raise ConfigError(
                "Both mem and mem_per_cpu are set, and sbatch takes one.", "Remove one of them."
            )
        if self.gpus is not None:
            gpu_gres(*self.gpus)


def gpu_gres(gpu_type: str | None, count: int) -> str:
    """`gpu:TYPE:N`, or `gpu:N` for any type.

    The count is always written: `gpu:1g.10gb` without one is refused by Slurm 22.05.

    Raises:
        ConfigError: A count below one, or a type with other characters than `A-Za-z0-9._-`.
    """
    if count < 1:
        raise ConfigError(f"{count} GPUs are asked for.", "Ask for at least one, or for none.")
    if gpu_type is None:
        return f"gpu:{count}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", gpu_type):
        raise ConfigError(
            f"{gpu_type!r} is not a GPU type.", "rvstate status lists the types of the site."
        )
    return f"gpu:{gpu_type}:{count}"


def literal_path(path: str) -> str:
    """A path that sbatch's `--output` takes as it stands: `%` doubled (sbatch(1), "filename").

    Raises:
        ConfigError: A backslash, which would switch off all patterns of the path.
    """
    if "\\" in path:
        raise ConfigError(
            f"The path {path!r} holds a backslash, which sbatch does not keep.",
            "Rename the directory.",
        )
    return path.replace("%", "%%")


def known_options() -> frozenset[str]:
    """The long option names that sbatch(1) knows, Slurm 22.05 to 25.11."""
    return _KNOWN


def check_raw(key: str, value: str | None, *, site_options: Collection[str] = ()) -> None:
    """Check one option that is handed to sbatch as it is.

    Args:
        key: The long name without dashes, as sbatch(1) spells it.
        value: The value; None for an option without one.
        site_options: More names, which a site's plugins add to sbatch.

    Raises:
        ConfigError: The name is not known (the nearest one is named), has a place of its own, is
            decided by rvstate, or needs a value or takes none.
    """
    if key in site_options and key not in _KNOWN:
        return
    if key in _OURS:
        raise ConfigError(f"--{key} is decided by rvstate.", "Remove it from the sbatch options.")
    # --exclusive=user says something else than --exclusive
    own = "--exclusive" if key == "exclusive" and value is None else _TYPED.get(key)
    if own is not None:
        raise ConfigError(f"--{key} has a place of its own.", f"Use {own} instead of --sbatch.")
    if key not in _KNOWN:
        names = sorted(_KNOWN | frozenset(site_options))
        import difflib

        near = difflib.get_close_matches(key.lstrip("-").replace("_", "-"), names, n=1)
        raise ConfigError(
            f"sbatch has no option {key!r}.",
            f"Did you mean {near[0]}?" if near else "See man sbatch, and write it without dashes.",
        )
    if value is None and key in _WITH_VALUE:
        raise ConfigError(f"--{key} needs a value.", "See man sbatch.")
    if value is not None and key in _WITHOUT_VALUE:
        raise ConfigError(f"--{key} takes no value.", f"Write {key} alone.")


def lines(options: SbatchOptions) -> tuple[str, ...]:
    """The `#SBATCH` lines, always in the same order, raw options last in the order given.

    Raises:
        ConfigError: A value holds a line break.
    """
    return tuple(sbatch_line(key, value) for key, value in _pairs(options))


def _pairs(options: SbatchOptions) -> tuple[tuple[str, str | None], ...]:
    gres = ((gpu_gres(*options.gpus),) if options.gpus else ()) + options.gres
    values: tuple[tuple[str, str | int | None], ...] = (
        ("job-name", options.name),
        ("partition", options.partition),
        ("account", options.account),
        ("qos", options.qos),
        ("time", None if options.time is None else duration.render(options.time)),
        ("nodes", options.nodes),
        ("ntasks", options.ntasks),
        ("ntasks-per-node", options.ntasks_per_node),
        ("cpus-per-task", options.cpus_per_task),
        ("mem", None if options.mem is None else memory.render(options.mem)),
        (
            "mem-per-cpu",
            None if options.mem_per_cpu is None else memory.render(options.mem_per_cpu),
        ),
        ("gres", ",".join(gres)),
        ("constraint", options.constraint),
        ("exclude", options.exclude),
        ("output", options.output),
        ("error", options.error),
        ("open-mode", options.open_mode),
        ("comment", options.comment),
        ("mail-type", ",".join(options.mail_type)),
        ("mail-user", options.mail_user),
        ("begin", options.begin),
        ("deadline", options.deadline),
        ("dependency", options.dependency),
        # else a job whose dependency cannot come true any more waits for ever
        ("kill-on-invalid-dep", "yes" if options.dependency else ""),
        ("array", options.array),
        ("signal", options.signal),
        ("wckey", options.wckey),
        ("export", options.export),
    )
    asked = tuple((key, str(value)) for key, value in values if value not in (None, ""))
    flags = (("exclusive", None),) if options.exclusive else ()
    requeue = {True: (("requeue", None),), False: (("no-requeue", None),), None: ()}
    return (*asked, *flags, *requeue[options.requeue], *options.raw)
