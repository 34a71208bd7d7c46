"""What a computing centre offers and allows; data in `sites/*.toml`, never a name in code."""

from __future__ import annotations

from dataclasses import dataclass

from rvstate.model.settings import Preset

CLOCKS = ("unknown", "none", "atime", "mtime", "atime-or-ctime", "atime-and-mtime", "data")
TOUCH_POLICIES = ("unknown", "silent", "allowed", "forbidden", "ineffective")
MODES = ("touch", "report", "heal", "off")


@dataclass(frozen=True, slots=True)
class SiteModules:
    """Environment modules by purpose; None where the site has none or nobody knows."""

    python: str | None = None
    cuda: str | None = None
    compiler: str | None = None


@dataclass(frozen=True, slots=True)
class Purge:
    """How scratch forgets: after how many days, by which clock, and whether touching is allowed.

    `mode` is what keepalive does where the user did not say; `victims` is the site's own command
    that lists what will be purged, `{user}`, `{home}` filled in.
    """

    days: int | None = None
    clock: str = "unknown"
    touch_policy: str = "unknown"
    url: str | None = None
    mode: str = "heal"
    victims: str | None = None


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Where a scheduled command may live: `allowed`, `forbidden`, `unknown` for each.

    `sbatch_chain`: whether a minimal job may submit its next one, to begin a day later.
    `after_job`: whether a minimal job may follow each job, to tell how it ended.
    """

    remote_cron: str = "unknown"
    scrontab: str = "unknown"
    sbatch_chain: str = "unknown"
    after_job: str = "unknown"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One type of GPU: where it is asked for and how much of it there is.

    `memory` is GiB on one GPU, `per_node` how many a node has, `price` service units an hour.
    """

    partition: str
    gres: str
    per_node: int
    memory: float | None = None
    per_job: int | None = None
    per_user: int | None = None
    price: float | None = None
    constraint: str | None = None
    mig: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prices:
    """What is charged in an account's units, beside each GPU type's own price.

    `cpu` is for an hour of one CPU in a job without GPUs, `unit` what the site calls its units.
    """

    cpu: float | None = None
    unit: str = "SU"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; `max_time` in Slurm's spelling."""

    name: str
    max_time: str | None = None
    default: bool = False


@dataclass(frozen=True, slots=True)
class SiteDefaults:
    """Defaults for a job's options where the user set none."""

    account: str | None = None
    gpu_type: str | None = None
    time: str | None = None
    partition: str | None = None
    mem: str | None = None
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class SitePaths:
    """Templates of absolute paths; `{user}` and `{home}` are filled in by the look."""

    scratch: str = "/scratch/{user}"


@dataclass(frozen=True, slots=True)
class Site:
    """A site profile.

    `max_array_size` is Slurm's MaxArraySize, which no array's index reaches; `quota` the site's
    command line that tells how full a user's places are, in the form of sitetools/hdquota.py.
    """

    name: str
    title: str
    scheduler: str = "slurm"
    max_array_size: int | None = None
    checked: str | None = None
    hostname: str | None = None
    compute_internet: bool | None = None
    quota: str = "hdquota"
    paths: SitePaths = SitePaths()
    modules: SiteModules = SiteModules()
    purge: Purge = Purge()
    scheduling: Scheduling = Scheduling()
    defaults: SiteDefaults = SiteDefaults()
    prices: Prices = Prices()
    partitions: tuple[Partition, ...] = ()
    gpus: dict[str, Gpu] | None = None
    presets: dict[str, Preset] | None = None

    def gpu(self, name: str) -> tuple[str, Gpu] | None:
        """The type and its data for a name or alias, or None."""
        wanted = name.lower().replace("-", "_")
        for key, gpu in (self.gpus or {}).items():
            known = (key, gpu.gres, *gpu.aliases)
            if wanted in {k.lower().replace("-", "_") for k in known}:
                return key, gpu
        return None

    def gpu_names(self) -> tuple[str, ...]:
        """The names that `--type` takes here."""
        return tuple(self.gpus or {})
