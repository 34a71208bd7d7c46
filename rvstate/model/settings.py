"""What the user wrote, as frozen values; `config` reads them from TOML.

Tables and keys are the documented ones of `~/.rv/config.toml` (docs/configuration.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rvstate.model.site import Purge

DEFAULT_CACHES = ("huggingface", "uv", "pip", "wandb", "triton", "torch")
# How `notify serve` talks to its mail server: STARTTLS, TLS from the first byte, or neither.
SECURITY = ("starttls", "tls", "none")
# What may run keepalive day by day, in the order in which `auto` tries them.
SCHEDULES = (
    *("local-cron", "systemd-user", "launchd"),
    *("remote-cron", "scrontab", "sbatch-chain", "first-command"),
)
# The name of a chain's jobs (remote/lib.sh, rv_chain).
CHAIN = "rv-keepalive"
# What a stage gets as its base has it: packages chosen for the site's driver and network, gigabytes
# each, and those that must be the same on both ends of a connection between processes.
PINNED = (
    *("torch", "torchvision", "torchaudio", "triton", "nvidia-*", "jax", "jaxlib", "mpi4py"),
    "ray",
)
SECRET_KEYS = frozenset(
    {
        ("defaults", "ai_api_key"),
        ("notifications", "token"),
        ("receiver", "chat_url"),
        ("receiver", "smtp_password"),
    }
)


@dataclass(frozen=True, slots=True)
class Connection:
    """How the login node is reached: `host` is an ssh alias or name, or `@local`."""

    host: str | None = None
    user: str | None = None
    hostname: str | None = None
    site: str | None = None
    ssh_config: str | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults for a job's options, in the words of the options.

    `job_name` is the name of a job that was given none: `{name}` stands for what the command says,
    `{project}` and `{branch}` for the code's.
    """

    account: str | None = None
    gpu_type: str | None = None
    time: str | None = None
    partition: str | None = None
    mem: str | None = None
    cpus: int | None = None
    constraint: str | None = None
    exclusive: bool | None = None
    wckey: str | None = None
    comment: str | None = None
    begin: str | None = None
    deadline: str | None = None
    preset: str | None = None
    job_name: str | None = None
    node_wait: str = "30m"
    ai_naming: bool = False
    ai_api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Paths:
    """Absolute paths on the cluster; `{user}` stands for the user's name there."""

    scratch: str | None = None
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Caches:
    """Which `~/.cache/NAME` live on scratch."""

    names: tuple[str, ...] = DEFAULT_CACHES
    extra: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """`names` and `extra`, each once, in order."""
        return tuple(dict.fromkeys((*self.names, *self.extra)))


@dataclass(frozen=True, slots=True)
class Notifications:
    """Whom to tell about a job: `email` by Slurm's own mail, `url` by signed events.

    `mail_type` is what Slurm mails about, as `--mail-type` names it.
    """

    enabled: bool = False
    email: str | None = None
    mail_type: str = "END,FAIL,REQUEUE"
    url: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """What `rvstate notify serve` does with an event: mail by SMTP, or a chat's webhook."""

    chat_url: str | None = field(default=None, repr=False)
    smtp_host: str | None = None
    smtp_port: int | None = None
    smtp_security: str = "starttls"
    smtp_user: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    sender: str | None = None
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class ScratchKeepalive:
    """What to do about the purge of scratch.

    `schedule` is `auto`, `none` or one of SCHEDULES, `time` is `HH:MM` by the clock of what keeps
    it.
    """

    enabled: bool = True
    mode: str | None = None
    schedule: str | None = None
    time: str | None = None
    permission: str | None = None

    def scheduled(self, purge: Purge) -> str:
        """What is to run it: `auto` or one of SCHEDULES; empty for nothing.

        Where it touches files and may, the first command of a day does it unless something else
        is said.

        Args:
            purge: The site's clock, limit and policy.
        """
        if self.schedule is not None:
            return "" if self.schedule == "none" else self.schedule
        touches = self.enabled and (self.mode or purge.mode) == "touch"
        may = purge.touch_policy in ("silent", "allowed") or bool(self.permission)
        known = purge.days is not None and purge.clock not in ("unknown", "none", "data")
        return "first-command" if touches and may and known else ""


@dataclass(frozen=True, slots=True)
class Shared:
    """Caches shared by a group."""

    hf_cache: str | None = None


@dataclass(frozen=True, slots=True)
class Shell:
    """Whether rvstate keeps a marked block in the shell's start-up file."""

    manage: bool = True


@dataclass(frozen=True, slots=True)
class Modules:
    """Environment modules to load, over those of the site profile."""

    python: str | None = None
    cuda: str | None = None
    compiler: str | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """The project's Python environment; see docs/environments.md.

    `path` names one that is there and is only activated; else it is built from `source`, and a
    copy of what was built is kept in `backup`, which may hold `{user}` and `{home}`.  Packages of
    `pin_to_base` (a name, `*` for any part of it) are the same in the layers of stages.
    """

    kind: str | None = None
    source: str | None = None
    path: str | None = None
    python: str | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()
    imports: tuple[str, ...] | None = None
    build: Literal["login", "job"] = "login"
    backup: str | None = None
    relocatable: bool = False
    pin_to_base: tuple[str, ...] = PINNED


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the project's stages are run as; the stages themselves are `[stages.NAME]`."""

    name: str | None = None
    backend: Literal["slurm", "ray-data", "ray-actors"] = "slurm"
    resources: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a job's copy of the code is kept."""

    keep_days: int = 7
    writable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """After how many days `rvstate prune` lets things go, by rvstate's own dates."""

    runs: int = 90
    environments: int = 30
    originals: int = 30


@dataclass(frozen=True, slots=True)
class Dvc:
    """How `rvstate dvc run` works; see docs/commands/dvc.md.

    `script`, below the project's root, makes the environment `venv` where rvstate does not;
    `cache` and `workspace` are absolute, and may hold `{user}` and `{home}`.
    """

    mode: Literal["snapshot", "clone"] = "snapshot"
    remote: str = "origin"
    check_remote: bool = False
    pull: bool = True
    script: str | None = None
    venv: str = ".venv"
    cache: str | None = None
    links: tuple[str, ...] = ("reflink", "hardlink", "symlink", "copy")
    workspace: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """Options of `rvstate run` under one name, in the words of the options."""

    gpus: int | None = None
    gpu_type: str | None = None
    gpu_mem: str | None = None
    mig: bool = False
    nodes: int | None = None
    gpus_per_node: int | None = None
    exclusive: bool | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: str | None = None
    mem: str | None = None
    cpus: int | None = None
    partition: str | None = None
    account: str | None = None
    wckey: str | None = None
    comment: str | None = None
    mail_type: str | None = None
    mail_user: str | None = None
    begin: str | None = None
    deadline: str | None = None
    sbatch: tuple[str, ...] = ()
    """`KEY=VALUE`, as `--sbatch`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it, after the layers were laid over each other."""

    connection: Connection = Connection()
    defaults: Defaults = Defaults()
    paths: Paths = Paths()
    caches: Caches = Caches()
    notifications: Notifications = Notifications()
    receiver: Receiver = Receiver()
    scratch_keepalive: ScratchKeepalive = ScratchKeepalive()
    shared: Shared = Shared()
    shell: Shell = Shell()
    modules: Modules = Modules()
    environment: Environment = Environment()
    pipeline: Pipeline = Pipeline()
    snapshot: Snapshot = Snapshot()
    retention: Retention = Retention()
    dvc: Dvc = Dvc()
    presets: dict[str, Preset] = field(default_factory=dict)
