"""How the command of a run is started, from the words, the request and the project's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rvstate.errors import RefusedError
from rvstate.model.launch import Launch
from rvstate.model.project import Project
from rvstate.model.site import Site
from rvstate.shape import Shape, alone
from rvstate.workflows.run.order import Order

# Their own counts are checked on one node too; other commands of one node need no look.
_NAMES = ("torchrun", "torch.distributed", "accelerate", "deepspeed", "srun", "mpirun", "mpiexec")


def launching(order: Order, project: Project, shape: Shape, site: Site) -> Launch:
    """What is started where.

    Args:
        order: What the user asked for.
        project: The project in front of the user, whose scripts are looked at.
        shape: Nodes and GPUs.
        site: Where it runs.

    Raises:
        ConfigError: The command contradicts the request.
        RefusedError: What would be right on several nodes is not known.
    """
    if order.start is not None and site.scheduler == "process":
        raise RefusedError(
            f"This machine has no scheduler that could --start {order.start}.",
            "Leave --start out, or run it on a cluster: `rvstate init` connects to one.",
        )
    if order.dvc is not None:
        # it runs once, on the first node; its stages start what they need on the others
        return Launch(notices=alone(shape))
    plain = shape.nodes == 1 and order.start is None
    if plain and not any(name in word for word in order.words for name in _NAMES):
        return Launch(notices=alone(shape))
    from rvstate import launch, launcher

    here = Path(project.root) / project.subdirectory

    def read(name: str) -> str | None:
        path = here / name
        # an absolute path is one of the cluster
        if Path(name).is_absolute() or not path.is_file():
            return None
        return path.read_text("utf-8", "replace")

    found = launch.launch(launcher.find(order.words, read), shape, order.start, read)
    # without Slurm the command is started as it stands, whatever it is
    return replace(found, start="") if site.scheduler == "process" else found
