"""A run that is ready to be submitted, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.job import JobSpec, Part
from rvstate.model.layout import Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.project import Project, Tree, TreeChange
from rvstate.paths import RemotePath
from rvstate.shell import join
from rvstate.workflows.run.order import Order
from rvstate.workflows.session import Session

if TYPE_CHECKING:
    # loaded only for a request that leaves a choice
    from rvstate.allocator import Allocation


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, ready to be submitted; nothing was written yet.

    Of a run that repeats another one `origin` is the project's root on this machine, where its code
    does not lie at the project's root now; and `copied_from` the snapshot that its own is copied
    from, where no code is sent; `allocation` is what was chosen, where no type of GPU was named;
    `part` is the pipeline that it is a stage of.
    """

    run_id: str
    project: Project
    tree: Tree
    change: TreeChange
    known: Tree | None
    layout: Layout
    workspace: Workspace
    observed: ObservedState
    plan: Plan
    environment: EnvironmentSpec | None
    generation: RemotePath | None
    environment_ready: bool
    code_state: str
    spec: JobSpec
    text: str
    package: tuple[tuple[str, str], ...]
    order: Order
    notices: tuple[str, ...]
    origin: str = ""
    copied_from: RemotePath | None = None
    allocation: Allocation | None = None
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of it.

    Args:
        prepared: What was asked.
        job: The scheduler's id.
        new: False where a resumed invocation found its job.
        remote_commands: How many remote commands it took in all.
        notices: What the cluster had to say.
    """

    prepared: Prepared
    job: str
    new: bool
    remote_commands: int
    notices: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        """The log's path."""
        return log_path(self.prepared, self.job, "out")

    @property
    def error_log(self) -> str:
        """The error log's path."""
        return log_path(self.prepared, self.job, "err")


def log_path(prepared: Prepared, job: str, suffix: str) -> str:
    """The path of a job's log; its suffix is `out` or `err`."""
    # of an array one for each element
    element = "_*" if prepared.spec.array else ""
    first = job.partition(",")[0]
    return prepared.layout.logs / f"{prepared.spec.options.name}-{first}{element}.{suffix}"


def log_parts(spec: JobSpec) -> int:
    """How many nodes write logs of their own; 0 where all is in the job's two."""
    nodes = spec.options.nodes or 1
    program = next((x for x in spec.command if x != "env" and "=" not in x), "")
    alone = spec.start == "once" and (program != "srun" or nodes == 1)
    return nodes if spec.start and not alone else 0


def command_line(prepared: Prepared) -> str:
    """The user's command, for people."""
    return join(prepared.spec.command)


def tree_key(session: Session, workspace: Workspace) -> str:
    """Under which key this machine remembers the tree that a workspace holds."""
    return f"{session.label}:{workspace.root}"
