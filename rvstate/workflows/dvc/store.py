"""The commits of a project, brought to the account's own repository of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rvstate import history
from rvstate.model.experiment import Experiment
from rvstate.model.job import JobSpec
from rvstate.paths import RemotePath
from rvstate.script import Script
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.run.scripts import PATIENCE, Rate


def arrived(store: RemotePath) -> RemotePath:
    """The file that lists the commits that the repository has."""
    return store / "rvstate-commits"


def store_script(
    prepared: Prepared, wanted: Experiment, tell: Callable[[str], None]
) -> Script | None:
    """What brings the run's commit there; None where the job clones, or it is there.

    Args:
        prepared: The run.
        wanted: Its experiment.
        tell: Told how far a large transfer has come.
    """
    have = prepared.observed.texts.get(arrived(wanted.store), "").split()
    if wanted.how == "clone" or wanted.commit in have:
        return None
    if prepared.copied_from is not None:
        # nothing of it is on this machine, and the run that it repeats needed the commit, too
        return None
    project = prepared.project
    place = (wanted.store.parent / f"{wanted.store.name}.lock", PATIENCE, wanted.store)
    known = ("\n".join(project.identities), "\n".join(project.formerly))
    if wanted.how == "store":
        return Script("dvc_store", ("fetch", *place, *known, wanted.commit, wanted.url))
    root = Path(prepared.origin or project.root)
    payload = history.pack(root, wanted.commit, have, Rate(tell, "the commits"))
    return Script("dvc_store", ("take", *place, *known, wanted.commit), payload)


def data_script(prepared: Prepared, wanted: Experiment) -> Script | None:
    """What fetches data on the login node, for nodes that reach no remote; else None."""
    asked = prepared.order.dvc
    program = program_of(prepared.spec, wanted)
    # the environment of a project's own script is not there before the first job
    if wanted.pull != "offline" or asked is None or not asked.pull or wanted.place is not None:
        return None
    if program is None:
        return None
    variables = prepared.spec.variables_file or ""
    code = ""
    if wanted.how == "snapshot":
        # what is not committed is there by then; what is submitted once more has it in its snapshot
        code = prepared.copied_from or prepared.workspace.code
    given = (wanted.store, program, wanted.commit, wanted.cache, variables, code, wanted.prefix)
    return Script("dvc_kept", ("fetch", *given))


def program_of(job: JobSpec, found: Experiment) -> str | None:
    """The dvc of a job's environment."""
    if found.place is not None:
        return f"{found.place}/code/{found.prefix}{found.venv}/bin/dvc"
    if job.environment is not None:
        return job.environment / "bin" / "dvc"
    place = next((p for p in job.activated[1:] if p.startswith("/")), None)
    return f"{place}/bin/dvc" if place and job.activated[0] != "apptainer" else None
