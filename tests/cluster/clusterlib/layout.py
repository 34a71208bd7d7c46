"""What the cluster consists of, where its files are, and what one running cluster is made with."""

import dataclasses
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent.parent
EX_UNAVAILABLE = 69  # sysexits.h: what is needed cannot be had here; the tests take it for "skip"

LOGIN, CTL = "udc-ba33-1", "udc-ctl"
NODES = (
    "udc-aj37-1",
    "udc-aj37-2",
    "udc-an37-1",
    "udc-an25-1",
    "udc-an28-1",
    "udc-an28-2",
    "udc-ax01-1",
)
SSH_PORTS = (2222, 2223, 2224)
SLURM_PORTS = 2 + len(NODES)  # slurmctld, slurmdbd, then one for each slurmd
MINIFORGE = "apps/software/standard/core/miniforge/24.11.3-py3.12"

_BASH = "/bin/bash"
_NAMED = {
    "abc1de": _BASH,
    "xyz9uv": _BASH,
    "noi5ey": _BASH,  # its .bashrc prints
    "csh7sh": "/bin/tcsh",
    "fsh8fi": "/usr/bin/fish",
    "frc4ed": _BASH,  # ForceCommand
    "nol0gn": "/usr/sbin/nologin",
    "out5id": _BASH,  # no Slurm association
    "zsh7sh": "/bin/zsh",
}
_CROWD = {f"u{i:02d}aa": _BASH for i in range(1, 21)}
USERS = {name: (20001 + i, shell) for i, (name, shell) in enumerate((_NAMED | _CROWD).items())}
OUTSIDERS = ("nol0gn", "out5id")
MEMBERS = tuple(name for name in USERS if name not in OUTSIDERS)
GROUPS: dict[str, tuple[int, tuple[str, ...]]] = {
    "mygroup": (21000, MEMBERS),
    "othergroup": (21001, ("abc1de",)),
}
# accounts of daemons: fixed numbers, so that a kept database belongs to the same user in every tree
SLURM, MUNGE, SSHD, CRONTAB = 990, 991, 992, 993


class ClusterError(Exception):
    """Ends the program with one line on stderr."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def unavailable(message: str) -> NoReturn:
    raise ClusterError(message, EX_UNAVAILABLE)


def say(message: str) -> None:
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def state_dir() -> Path:
    given = os.environ.get("CLUSTER_STATE")
    default = Path(tempfile.gettempdir()) / f"rvstate-cluster-{os.getuid()}"
    return Path(given).absolute() if given else default


def cache_dir() -> Path:
    given = os.environ.get("RVSTATE_CLUSTER_CACHE")
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rvstate-cluster"


@dataclasses.dataclass
class Spec:
    """What one cluster was brought up with; kept in STATE/cluster.json for the other verbs."""

    state: str
    tree: str
    net: str
    port: int
    rootless: bool
    accounting: bool
    min_job_age: int
    home_size: str
    scratch_size: str
    tmp_size: str
    python: str | None  # host prefix bound as miniforge, or None for the tree's own
    old_python: str | None  # host prefix of a Python 3.6, or None
    database: str | None  # tar of a seeded database
    tied: bool
    env: dict[str, str]
    pid: int = 0  # of the inside's pid 1, as seen from outside
    start: str = ""  # its start time, so that a recycled pid is not taken for it
    outer: int = 0  # of the unshare process

    @property
    def far(self) -> str:
        return f"{self.net}.9"

    def path(self, *parts: str) -> Path:
        return Path(self.state, *parts)

    def save(self) -> None:
        new = self.path("cluster.json.new")
        new.touch(mode=0o600)  # env may hold an index address with a password in it
        new.write_text(json.dumps(dataclasses.asdict(self)))
        new.rename(self.path("cluster.json"))


def load(state: Path) -> Spec | None:
    try:
        return Spec(**json.loads((state / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


def template(spec: Spec, name: str) -> str:
    accounting = "accounting_storage/" + ("slurmdbd" if spec.accounting else "none")
    values: dict[str, Any] = {
        "NET": spec.net,
        "MIN_JOB_AGE": spec.min_job_age,
        "ACCT_TYPE": accounting,
        "ACCT_ENFORCE": "associations,limits,qos",
        **{f"PORT{i}": spec.port + i for i in range(SLURM_PORTS)},
    }
    text = (HERE / "templates" / name).read_text()
    text = re.sub(r"@([A-Z_0-9]+)@", lambda m: str(values[m[1]]), text)
    if name == "slurm.conf" and not spec.accounting:  # fatal in slurmctld without a database
        gone = (
            r"(?m)^Accounting(StorageTRES|StorageEnforce|StoreFlags|StorageHost|StoragePort)=.*\n"
        )
        text = re.sub(gone, "", text)
    return text
