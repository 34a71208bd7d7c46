"""From a project in front of the user to a job: look, send what changed, submit."""

from __future__ import annotations

import datetime
import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rvstate import archive, batchscript, command, diff, git, probe, request
from rvstate import desired as desired_state
from rvstate.errors import RefusedError, SubmitError
from rvstate.model.environment import EnvironmentSpec
from rvstate.model.environment import spec as environment_spec
from rvstate.model.job import JobSpec
from rvstate.model.layout import SYMBOLIC, Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.project import Project, Tree, difference
from rvstate.model.resources import DesiredState
from rvstate.paths import RemotePath
from rvstate.request import Request
from rvstate.script import Script
from rvstate.shell import join, printf_b
from rvstate.slurm.options import SbatchOptions, literal_path
from rvstate.workflows.session import Session

# What a job needs of the account; links and the shell are `converge`'s business.
_KINDS = frozenset({"directory", "env", "scripts", "tool"})
_PATIENCE = "60"


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Args:
        words: The command as typed.
        request: The resources.
        name: The job's name, or None for one from the command.
        keep: Paths to keep at the end (`-o`).
        directory: Where the user stands, on this machine.
    """

    words: tuple[str, ...]
    request: Request
    name: str | None
    keep: tuple[str, ...]
    directory: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, ready to be submitted; nothing was written yet."""

    run_id: str
    project: Project
    tree: Tree
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


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of it.

    Args:
        prepared: What was asked.
        job: The scheduler's id.
        new: False where a resumed invocation found its job.
        remote_commands: How many remote commands it took in all.
    """

    prepared: Prepared
    job: str
    new: bool
    remote_commands: int

    @property
    def log(self) -> str:
        """The log's path."""
        return _log(self.prepared, self.job, "out")

    @property
    def error_log(self) -> str:
        """The error log's path."""
        return _log(self.prepared, self.job, "err")


def _log(prepared: Prepared, job: str, suffix: str) -> str:
    return prepared.layout.logs / f"{prepared.spec.options.name}-{job}.{suffix}"


def prepare(session: Session, order: Order, tell: Callable[[str], None]) -> Prepared:
    """Look at the account and the project, and render the batch script; writes nothing.

    Raises:
        ConfigError: An option or setting is wrong.
        RefusedError: Something on the account is in the way.
    """
    asked_for = request.options(order.request, session.config.settings, session.config.site)
    tell("reading the project")
    project = git.inspect(order.directory)
    tree = git.tree(project)
    wanted_env = _environment(session, project)
    tell(f"looking at {session.label}")
    observed, plan = _look(session, project)
    if plan.refusals:
        first = plan.refusals[0]
        raise RefusedError(
            f"{first.kind} {first.resource.name}: {first.reason}.", "Run `rvstate converge`."
        )
    layout = Layout(observed.account)
    workspace = layout.workspace(project.name, project.branch_component)
    _check_identity(observed, workspace, project)
    generation = _generation(layout, project, wanted_env)
    stamp = observed.texts.get(workspace.environment / ".rvstate-environment", "")
    run_id = _new_run_id()
    spec = _spec(session, order, project, layout, workspace, generation, asked_for, run_id)
    return Prepared(
        run_id,
        project,
        tree,
        layout,
        workspace,
        observed,
        plan,
        wanted_env,
        generation,
        wanted_env is None or stamp.split("\n", 1)[0] == wanted_env.digest,
        observed.texts.get(workspace.manifest, "").strip(),
        spec,
        batchscript.render(spec),
    )


def _new_run_id() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def _environment(session: Session, project: Project) -> EnvironmentSpec | None:
    settings, site = session.config.settings, session.config.site
    root = Path(project.root)

    def read(name: str) -> str | None:
        path = root / name
        return path.read_text("utf-8", "surrogateescape") if path.is_file() else None

    module = settings.modules.python or site.modules.python or ""
    return environment_spec(read, settings.environment.python or "", module)


def _look(session: Session, project: Project) -> tuple[ObservedState, Plan]:
    variables = session.state.variables()
    config = session.config

    def wanted(layout: Layout) -> DesiredState:
        found = desired_state.account(config.settings, config.site, layout.account, variables)
        return DesiredState(tuple(r for r in found.resources if r.kind in _KINDS))

    symbolic = Layout(SYMBOLIC)
    place = symbolic.workspace(project.name, project.branch_component)
    asked = (
        *probe.questions(wanted(symbolic)),
        ("text", place.manifest),
        ("text", place.root / "identity"),
        ("text", place.environment / ".rvstate-environment"),
    )
    answer = session.transport.run(probe.script(session.scratch, session.home, asked))
    observed = probe.read(answer, asked)
    return observed, diff.plan(wanted(Layout(observed.account)), observed)


def _check_identity(observed: ObservedState, workspace: Workspace, project: Project) -> None:
    found = observed.texts.get(workspace.root / "identity", "").strip()
    if found and found != project.identity:
        raise RefusedError(
            f"Another project named {project.name} has its code in {workspace.root}.",
            "Rename this project's directory, or remove the other workspace.",
        )


def _generation(
    layout: Layout, project: Project, spec: EnvironmentSpec | None
) -> RemotePath | None:
    if spec is None:
        return None
    # a name that no branch can have, for no component begins with a dot
    folder = layout.envs / project.name / ".generations" / project.branch_component
    return folder / spec.digest


def _spec(
    session: Session,
    order: Order,
    project: Project,
    layout: Layout,
    workspace: Workspace,
    generation: RemotePath | None,
    asked_for: SbatchOptions,
    run_id: str,
) -> JobSpec:
    settings, site = session.config.settings, session.config.site
    name = order.name or command.job_name(order.words)
    log = literal_path(layout.logs) + "/%x-%j"
    options = replace(
        asked_for,
        name=name,
        output=f"{log}.out",
        error=f"{log}.err",
        comment=f"rvstate:{run_id}",
        export="NONE",
    )
    modules = (
        settings.modules.cuda or site.modules.cuda,
        settings.modules.python or site.modules.python,
        *settings.modules.extra,
    )
    caches = desired_state.cache_variables(settings, layout)
    described = f"commit {project.commit or 'none'}{' (dirty)' if project.dirty else ''}"
    return JobSpec(
        run_id=run_id,
        options=options,
        rv=layout.rv,
        run_directory=layout.run(run_id),
        library=desired_state.script_set(layout).path,
        command=command.resolve(order.words),
        variables=tuple(sorted(caches.items())),
        variables_file=layout.env_file,
        modules=tuple(m for m in modules if m),
        environment=generation,
        snapshot=workspace.snapshots / f"{name}-{run_id}",
        subdirectory=project.subdirectory,
        sources=_sources(Path(project.root)),
        keep=order.keep,
        note=f"project {project.name}, branch {project.branch or 'none'}, {described}",
    )


def _sources(root: Path) -> str:
    """Where the project's own package is imported from, so that no job imports a newer one."""
    if not (root / "pyproject.toml").is_file() and not (root / "setup.py").is_file():
        return ""
    return "src" if (root / "src").is_dir() else "."


def submit(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> Submitted:
    """Make it so: what the account lacks, the code, the environment, and the job last.

    Raises:
        ConvergeError, SubmitError: A step failed; its own words are in the message.
    """
    session.state.keep_receipt(prepared.run_id, receipt(session, prepared, None))
    job, new = _attempt(session, prepared, tell, known=_known_tree(session, prepared))
    if job is None:
        # somebody pushed meanwhile: send all of it, once
        job, new = _attempt(session, prepared, tell, known=None)
    if job is None:
        raise SubmitError(
            "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
        )
    session.state.keep_tree(_tree_key(session, prepared), prepared.tree)
    session.state.keep_receipt(prepared.run_id, receipt(session, prepared, job))
    return Submitted(prepared, job, new, session.transport.commands)


def _tree_key(session: Session, prepared: Prepared) -> str:
    return f"{session.label}:{prepared.workspace.root}"


def _known_tree(session: Session, prepared: Prepared) -> Tree | None:
    """The tree that the cluster holds, where this machine sent it."""
    known = session.state.tree(_tree_key(session, prepared))
    return known if known is not None and known.state == prepared.code_state else None


def _attempt(
    session: Session, prepared: Prepared, tell: Callable[[str], None], known: Tree | None
) -> tuple[str | None, bool]:
    from rvstate.infra import runs

    scripts = runs.Scripts(
        push=_push(prepared, known),
        build=_build(prepared),
        submit=_submit(session, prepared),
    )
    return runs.run(
        session.transport, prepared.layout, prepared.plan, prepared.observed, scripts, tell
    )


def _push(prepared: Prepared, known: Tree | None) -> Script | None:
    tree, root = prepared.tree, prepared.workspace.root
    if prepared.code_state == tree.state:
        return None
    change = difference(known or Tree(()), tree)
    payload = archive.pack(prepared.project.root, change.changed)
    deleted = (printf_b(path.encode("utf-8", "surrogateescape")) for path in change.deleted)
    old = known.state if known is not None else "-"
    return Script(
        "push",
        (
            root / "lock",
            _PATIENCE,
            root,
            old,
            tree.state,
            prepared.project.identity,
            *(deleted if known is not None else ()),
        ),
        payload,
    )


def _build(prepared: Prepared) -> Script | None:
    spec, generation = prepared.environment, prepared.generation
    if spec is None or generation is None or prepared.environment_ready:
        return None
    return Script(
        "build_environment",
        (
            generation.parent / "lock",
            "600",
            prepared.workspace.environment,
            generation,
            spec.digest,
            prepared.observed.tools.get("uv") or prepared.layout.tools / "bin" / "uv",
            prepared.layout.scratch_caches / "uv",
            spec.module,
            spec.python,
            prepared.workspace.code,
            *spec.sources,
        ),
    )


def _submit(session: Session, prepared: Prepared) -> Script:
    words: tuple[str, ...] = ("sbatch", "--parsable")
    if session.config.site.scheduler == "process":
        place = prepared.layout.rv / "process"
        words = (sys.executable, "-m", "rvstate.process", "submit", place)
    text = json.dumps(receipt(session, prepared, None))
    return Script(
        "submit",
        (
            prepared.workspace.root / "lock",
            _PATIENCE,
            prepared.workspace.root,
            prepared.tree.state,
            prepared.spec.snapshot or "",
            prepared.spec.run_directory,
            printf_b(prepared.text.encode("utf-8", "surrogateescape")),
            printf_b(text.encode()),
            *words,
        ),
    )


def receipt(session: Session, prepared: Prepared, job: str | None) -> dict[str, Any]:
    """What ran, from what, where, with which script; no secret is in it."""
    project, spec = prepared.project, prepared.spec
    return {
        "schema": 1,
        "run_id": prepared.run_id,
        "job_id": job,
        "cluster": session.label,
        "name": spec.options.name,
        "project": project.name,
        "branch": project.branch,
        "commit": project.commit,
        "dirty": project.dirty,
        "tree": prepared.tree.state,
        "snapshot": spec.snapshot,
        "environment": spec.environment,
        "script": spec.run_directory / "job.sh",
        "logs": prepared.layout.logs,
        "command": list(spec.command),
        "submitted_at": int(datetime.datetime.now(datetime.UTC).timestamp()),
    }


def command_line(prepared: Prepared) -> str:
    """The user's command, for people."""
    return join(prepared.spec.command)
