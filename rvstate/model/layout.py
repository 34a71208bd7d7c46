"""Every path on the cluster, made from account, project and branch; nobody else joins them."""

from __future__ import annotations

from dataclasses import dataclass

from rvstate.paths import RemotePath, component

# The directories that hold secrets, or files from which secrets could be learned.
PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are on the cluster, as the look found it.

    `home` and `scratch` are absolute there, `shell` is the login shell's path.
    """

    user: str
    uid: int
    home: RemotePath
    scratch: RemotePath
    shell: str = "/bin/sh"
    node: str = ""


# Before the look nobody knows home and user.  The question is asked with these roots, and the
# script puts the real ones in (remote/probe.sh, `real`).
SYMBOLIC = Account("{user}", -1, RemotePath("/{home}"), RemotePath("/{scratch}"))


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one account."""

    account: Account

    @property
    def rv(self) -> RemotePath:
        """Our own directory on scratch."""
        return self.account.scratch / ".rv"

    @property
    def logs(self) -> RemotePath:
        """Job logs."""
        return self.rv / "logs"

    @property
    def outputs(self) -> RemotePath:
        """Kept outputs, `RV_OUTPUT_DIR`."""
        return self.rv / "outputs"

    @property
    def checkpoints(self) -> RemotePath:
        """Checkpoints by job name, `RV_CHECKPOINT_DIR`."""
        return self.rv / "checkpoints"

    @property
    def env(self) -> RemotePath:
        """Environment files (secrets)."""
        return self.rv / "env"

    @property
    def env_file(self) -> RemotePath:
        """The user's variables, sourced by every job."""
        return self.env / "user.env"

    @property
    def notify_file(self) -> RemotePath:
        """Where events about jobs go, and the secret that signs them."""
        return self.env / "notify"

    @property
    def envs(self) -> RemotePath:
        """Python environments."""
        return self.rv / "envs"

    @property
    def runs(self) -> RemotePath:
        """One directory for each run: script, receipt, state."""
        return self.rv / "runs"

    @property
    def lib(self) -> RemotePath:
        """Our scripts, each set under its digest."""
        return self.rv / "lib"

    @property
    def tools(self) -> RemotePath:
        """Programs that rvstate installed, `bin` below it."""
        return self.rv / "tools"

    @property
    def schedule(self) -> RemotePath:
        """What runs keepalive by a schedule on the cluster, and how it went."""
        return self.rv / "schedule"

    @property
    def originals(self) -> RemotePath:
        """Records of what migrations set aside."""
        return self.rv / "originals"

    @property
    def workspaces(self) -> RemotePath:
        """Workspaces of all projects."""
        return self.account.scratch / "rv-workspaces"

    @property
    def home_caches(self) -> RemotePath:
        """`~/.cache`."""
        return self.account.home / ".cache"

    @property
    def scratch_caches(self) -> RemotePath:
        """The caches' real place."""
        return self.account.scratch / ".cache"

    def directories(self) -> tuple[tuple[RemotePath, int | None], ...]:
        """The account's directories with their modes; None means: any mode."""
        return (
            (self.rv, PRIVATE),
            (self.logs, None),
            (self.outputs, None),
            (self.checkpoints, None),
            (self.env, PRIVATE),
            (self.envs, None),
            (self.runs, PRIVATE),
            (self.lib, None),
            (self.originals, PRIVATE),
            (self.workspaces, PRIVATE),
            (self.scratch_caches, None),
        )

    @property
    def dvc_cache(self) -> RemotePath:
        """DVC's cache, which jobs and projects share."""
        return self.scratch_caches / "dvc"

    def repository(self, project: str) -> RemotePath:
        """A bare repository of the project's commits; no branch's directory begins with a dot."""
        return self.workspaces / project / ".repository"

    def scripted(self, project: str, digest: str) -> RemotePath:
        """An environment that a project's own script made."""
        return self.envs / project / ".scripted" / digest

    def workspace(self, project: str, branch: str) -> Workspace:
        """The paths of one project and branch, named as `git.py` found them."""
        return Workspace(
            self.workspaces / project / branch,
            self.envs / project / branch,
        )

    def run(self, run_id: str) -> RemotePath:
        """One run's directory."""
        return self.runs / run_id


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths below one project and branch."""

    root: RemotePath
    environment: RemotePath

    @property
    def code(self) -> RemotePath:
        """The mutable copy of the tree, where files arrive."""
        return self.root / "code"

    @property
    def snapshots(self) -> RemotePath:
        """One immutable copy for each job."""
        return self.root / "snapshots"

    def snapshot(self, name: str, run_id: str) -> RemotePath:
        """The copy that one job sees.

        Lists of paths are parted by colons, and this one stands in such a list (PYTHONPATH), so a
        colon of the name becomes an underscore.
        """
        return self.snapshots / f"{name.replace(':', '_')}-{run_id}"

    @property
    def data(self) -> RemotePath:
        """What the stages of its pipeline read and make, `RV_PIPELINE_DIR`."""
        return self.root / "data"

    @property
    def manifest(self) -> RemotePath:
        """What `code` holds, written last by every transfer."""
        return self.root / "manifest"


def branch_component(branch: str | None, commit: str | None) -> str:
    """The branch's directory: `feature--foo`, `detached-{commit}`, or `_default` without git."""
    if branch is not None:
        return component(branch)
    return f"detached-{commit[:12]}" if commit else "_default"
