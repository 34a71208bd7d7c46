"""From a project in front of the user to a job: look, send what changed, submit."""

from __future__ import annotations

import datetime
import fnmatch
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from rvstate import archive, batchscript, command, diff, git, probe, request
from rvstate import desired as desired_state
from rvstate.errors import (
    ConfigError,
    ConvergeError,
    ProbeError,
    RefusedError,
    RvstateError,
    SubmitError,
    UnreachableError,
)
from rvstate.model import environment as environments
from rvstate.model.environment import EnvironmentSpec, Package
from rvstate.model.job import JobSpec
from rvstate.model.layout import SYMBOLIC, Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.project import Project, Scan, Tree, TreeChange, difference
from rvstate.model.resources import DesiredState
from rvstate.paths import RemotePath
from rvstate.request import Request
from rvstate.script import Script
from rvstate.shell import join, printf_b
from rvstate.slurm import sacct, squeue
from rvstate.slurm.options import SbatchOptions, literal_path
from rvstate.workflows.session import Session

# What a job needs of the account; links and the shell are `converge`'s business.
_KINDS = frozenset({"directory", "env", "scripts", "tool"})
_PATIENCE = "60"
# From here on a snapshot shares its files with others instead of copying them: 1,000 small copies
# take a second on a slow file system, and 64 MiB for each of thirty runs a day add up.
_LARGE_FILES = 1000
_LARGE_BYTES = 64 << 20
# A file that a user may not have meant to send.
_LARGE_FILE = 50 << 20
_SHOWN = 5
_HISTORY_DAYS = 14


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for.

    Args:
        words: The command as typed.
        request: The resources.
        name: The job's name, or None for one from the command.
        keep: Paths to keep at the end (`-o`).
        directory: Where the user stands, on this machine.
        writable: Whether the whole snapshot is the job's own.
        require: `clean`, `pushed` or empty: what the commit must be.
        run_id: The run to take up again, or empty for a new one.
    """

    words: tuple[str, ...]
    request: Request
    name: str | None
    keep: tuple[str, ...]
    directory: Path
    writable: bool = False
    require: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run, ready to be submitted; nothing was written yet."""

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
        return _log(self.prepared, self.job, "out")

    @property
    def error_log(self) -> str:
        """The error log's path."""
        return _log(self.prepared, self.job, "err")


def _log(prepared: Prepared, job: str, suffix: str) -> str:
    return prepared.layout.logs / f"{prepared.spec.options.name}-{job}.{suffix}"


def prepare(
    session: Session,
    order: Order,
    tell: Callable[[str], None],
    project: Project | None = None,
    look: Callable[[tuple[probe.Question, ...]], ObservedState] | None = None,
    ahead: bool = False,
) -> Prepared:
    """Look at the account and the project, and render the batch script; writes nothing there.

    Args:
        session: Which account.
        order: What the user asked for.
        tell: Told what is being done, in a few words.
        project: The project, where it is not the one at the order's directory.
        look: Answers the questions about the account; default: one command over the session.
        ahead: Whether a submission follows, so that what it needs is loaded meanwhile.

    Raises:
        ConfigError: An option or setting is wrong.
        RefusedError: Something on the account or in the project is in the way.
    """
    asked_for = request.options(order.request, session.config.settings, session.config.site)
    tell(f"looking at {session.label}")
    project = project or git.inspect(order.directory)
    _check_required(project, order.require)
    read = _reader(project)
    package = environments.package(read)
    _check_package(package)
    # the answer travels while the project is read
    asked, script = _question(session, project)
    running = session.transport.begin(script) if look is None else None
    wanted_env = _environment(session, read)
    scan = _scan(session, project)
    if ahead:
        # what submits takes longer to load than the answer needs to come
        importlib.import_module("rvstate.infra.runs")
    if look is not None:
        observed = look(asked)
    else:
        assert running is not None
        observed = probe.read(session.transport.finish(script, running), asked)
    plan = diff.plan(_wanted(session, Layout(observed.account)), observed)
    _check_plan(plan)
    layout = Layout(observed.account)
    workspace = layout.workspace(project.name, project.branch_component)
    _check_identity(observed, workspace, project)
    generation = _generation(layout, project, wanted_env)
    stamp = observed.texts.get(workspace.environment / ".rvstate-environment", "")
    run_id = order.run_id or _new_run_id()
    spec = _spec(
        session,
        order,
        project,
        scan.tree,
        package,
        layout,
        workspace,
        generation,
        asked_for,
        run_id,
    )
    code_state = observed.texts.get(workspace.manifest, "").strip()
    known = _known_tree(session, workspace, code_state, scan.tree)
    change = difference(known or Tree(()), scan.tree)
    return Prepared(
        run_id=run_id,
        project=project,
        tree=scan.tree,
        change=change,
        known=known,
        layout=layout,
        workspace=workspace,
        observed=observed,
        plan=plan,
        environment=wanted_env,
        generation=generation,
        environment_ready=wanted_env is None or stamp.split("\n", 1)[0] == wanted_env.digest,
        code_state=code_state,
        spec=spec,
        text=batchscript.render(spec),
        package=environments.package_files(package, git.version(project)) if package else (),
        order=order,
        notices=_notices(order, project, scan, change),
    )


def _new_run_id() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S}-{token_hex(4)}"


def _check_required(project: Project, require: str) -> None:
    if require and project.commit is None:
        raise RefusedError(
            f"--require {require} wants a commit, and {project.root} has none.",
            "Commit the project, or leave out --require.",
        )
    if require and project.dirty:
        raise RefusedError(
            f"--require {require}: {_some(project.changed)} differ from the commit.",
            "Commit or stash them, then run this again.",
        )
    if require == "pushed" and not git.is_pushed(project):
        raise RefusedError(
            f"--require pushed: no remote is known to have commit {(project.commit or '')[:10]}.",
            "git push it, then run this again.",
        )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_package(package: Package | None) -> None:
    if package is not None and package.backend:
        raise RefusedError(
            f"The project's own package is compiled by {package.backend}, and a job that imports "
            "it from the snapshot would not find what is compiled.",
            "Build a wheel and name it in requirements.txt, or keep the compiled part in a project "
            "of its own.",
        )


def _check_plan(plan: Plan) -> None:
    if plan.refusals:
        first = plan.refusals[0]
        raise RefusedError(
            f"{first.kind} {first.resource.name}: {first.reason}.", "Run `rvstate converge`."
        )


def _notices(order: Order, project: Project, scan: Scan, change: TreeChange) -> tuple[str, ...]:
    """What the user should know before anything is sent."""
    paths = {file.path for file in scan.tree.files}
    large = sorted((f for f in change.changed if f.size >= _LARGE_FILE), key=lambda f: -f.size)
    found = [f"{diff.human_bytes(f.size)} will be sent: {f.path}" for f in large[:_SHOWN]]
    behind = tuple(
        word
        for word in git.below(project, command.paths_in(order.words))
        if word not in paths and not any(path.startswith(f"{word}/") for path in paths)
    )
    if behind:
        found.append(
            "named by the command and kept back by an ignore rule, so not in the job: "
            f"{_some(behind)}"
        )
    return (*scan.notices, *found, *command.warnings(order.words, project.root))


def _reader(project: Project) -> Callable[[str], str | None]:
    root = Path(project.root)

    def read(name: str) -> str | None:
        path = root / name
        return path.read_text("utf-8", "surrogateescape") if path.is_file() else None

    return read


def _environment(session: Session, read: Callable[[str], str | None]) -> EnvironmentSpec | None:
    settings, site = session.config.settings, session.config.site
    module = settings.modules.python or site.modules.python or ""
    return environments.spec(read, settings.environment.python or "", module)


def _scan(session: Session, project: Project) -> Scan:
    seen = session.state.seen(project.root)
    scan = git.scan(project, seen)
    if scan.seen != seen:
        session.state.keep_seen(project.root, scan.seen)
    return scan


def _wanted(session: Session, layout: Layout) -> DesiredState:
    config = session.config
    variables = session.state.variables()
    found = desired_state.account(config.settings, config.site, layout.account, variables)
    return DesiredState(tuple(r for r in found.resources if r.kind in _KINDS))


def _question(session: Session, project: Project) -> tuple[tuple[probe.Question, ...], Script]:
    symbolic = Layout(SYMBOLIC)
    place = symbolic.workspace(project.name, project.branch_component)
    asked = (
        *probe.questions(_wanted(session, symbolic)),
        ("text", place.manifest),
        ("text", place.root / "identity"),
        ("text", place.environment / ".rvstate-environment"),
    )
    return asked, probe.script(session.scratch, session.home, asked)


def _check_identity(observed: ObservedState, workspace: Workspace, project: Project) -> None:
    found = observed.texts.get(workspace.root / "identity", "").strip()
    if found and found != project.identity:
        raise RefusedError(
            f"Another project named {project.name} has its code in {workspace.root}.",
            "Rename this project's directory, or, if the other one is no longer needed, remove its "
            f"workspace: rvstate exec \"rm -rf '{workspace.root}'\".",
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
    tree: Tree,
    package: Package | None,
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
    variables = {
        **desired_state.cache_variables(settings, layout),
        **_code_variables(project, package is not None),
    }
    described = f"commit {project.commit or 'none'}{' (dirty)' if project.dirty else ''}"
    return JobSpec(
        run_id=run_id,
        options=options,
        rv=layout.rv,
        run_directory=layout.run(run_id),
        library=desired_state.script_set(layout).path,
        command=command.resolve(order.words),
        variables=tuple(sorted(variables.items())),
        variables_file=layout.env_file,
        modules=tuple(m for m in modules if m),
        environment=generation,
        snapshot=workspace.snapshots / f"{name}-{run_id}",
        subdirectory=project.subdirectory,
        sources=_sources(tree) if package is not None else "",
        read_only=_is_large(tree) and not order.writable,
        extensions=package is not None and package.extensions,
        keep=order.keep,
        note=f"project {project.name}, branch {project.branch or 'none'}, {described}",
    )


def _code_variables(project: Project, packaged: bool) -> dict[str, str]:
    """What tools would ask git for: no .git travels."""
    if project.commit is None:
        return {}
    found = {
        "RV_COMMIT": project.commit,
        "RV_BRANCH": project.branch or "",
        "RV_DIRTY": "1" if project.dirty else "0",
        "WANDB_GIT_COMMIT": project.commit,
    }
    if packaged:
        found["SETUPTOOLS_SCM_PRETEND_VERSION"] = git.version(project)
    return found


def _sources(tree: Tree) -> str:
    """Where the project's own package is imported from, so that no job imports a newer one."""
    return "src" if environments.uses_paths(file.path for file in tree.files) else "."


def _is_large(tree: Tree) -> bool:
    return len(tree.files) > _LARGE_FILES or tree.size > _LARGE_BYTES


def submit(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> Submitted:
    """Make it so: what the account lacks, the code, the environment, and the job last.

    Raises:
        ConvergeError, SubmitError: A step failed; its own words are in the message.
    """
    begun = receipt(session, prepared, None)
    session.state.keep_receipt(prepared.run_id, begun)
    try:
        job, new, said = _twice(session, prepared, tell)
    except (UnreachableError, ProbeError) as error:
        raise type(error)(
            f"{error.message} Whether the job was submitted is not known here.",
            "Run `rvstate run --resume`: it finds the job, or submits it, never twice.",
        ) from error
    except RvstateError as error:
        # an answer, though not the one hoped for: nothing is left to be taken up again
        session.state.keep_receipt(prepared.run_id, {**begun, "failed": error.message})
        raise
    if prepared.known is not prepared.tree:
        session.state.keep_tree(_tree_key(session, prepared.workspace), prepared.tree)
    session.state.keep_receipt(prepared.run_id, receipt(session, prepared, job))
    return Submitted(prepared, job, new, session.transport.commands, _told(said, prepared))


def _twice(
    session: Session, prepared: Prepared, tell: Callable[[str], None]
) -> tuple[str, bool, tuple[str, ...]]:
    job, new, said = _attempt(session, prepared, tell, known=prepared.known)
    if job is None:
        # somebody pushed meanwhile, or changed a file over there: send all of it, once
        job, new, said = _attempt(session, replace(prepared, code_state=""), tell, known=None)
    if job is None:
        raise SubmitError(
            "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
        )
    return job, new, said


def push_only(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> tuple[str, ...]:
    """Bring the code, and what it needs of the account, without environment and job.

    Returns:
        What the user should know.

    Raises:
        ConvergeError: A step failed, or somebody else keeps changing the workspace.
    """
    from rvstate.infra import runs

    said: tuple[str, ...] = ("stale",)
    for known, state in ((prepared.known, prepared.code_state), (None, "")):
        script = push_script(replace(prepared, code_state=state), known)
        scripts = runs.Scripts(push=script, build=None, submit=None)
        if script is None and prepared.plan.empty:
            return ()
        transport, layout, plan = session.transport, prepared.layout, prepared.plan
        _, _, said = runs.run(transport, layout, plan, prepared.observed, scripts, tell)
        if "stale" not in said:
            break
    else:
        raise ConvergeError(
            "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
        )
    session.state.keep_tree(_tree_key(session, prepared.workspace), prepared.tree)
    return _told(said, prepared)


def tested(session: Session, prepared: Prepared) -> str:
    """What `sbatch --test-only` says of the batch script; nothing where there is no sbatch.

    Raises:
        SubmitError: Slurm would not take it.
    """
    if session.config.site.scheduler == "process":
        return ""
    words = ("env", "-u", "SBATCH_PARTITION", "-u", "SBATCH_ACCOUNT", "sbatch", "--test-only")
    text = prepared.text.encode("utf-8", "surrogateescape")
    done = session.transport.execute(join(words), text)
    said = " ".join(done.errors.split()).removeprefix("sbatch: ")
    if done.status != 0:
        raise SubmitError(
            f"Slurm would not take this job: {said or 'it gave no reason'}",
            "Change the options, or ask the site what your account may use.",
        )
    return said


def resume(session: Session, here: Path, tell: Callable[[str], None]) -> Submitted:
    """Take up the newest run of this account that was never answered.

    The cluster is asked first; only a run that it does not know is submitted, and only with the
    code that it was begun with.

    Raises:
        ConfigError: Every run was answered.
        RefusedError: It was never submitted, and the code has changed since.
    """
    found = next(
        (
            receipt
            for receipt in session.state.receipts()
            if receipt.get("cluster") == session.label
            and not receipt.get("job_id")
            and not receipt.get("failed")
        ),
        None,
    )
    if found is None:
        raise ConfigError(
            f"Every run that was sent to {session.label} from here was answered.",
            "`rvstate ps` lists them.",
        )
    root = Path(str(found.get("root") or here))
    order = ordered(found, root, str(found["run_id"]))
    tell("looking the run up")
    prepared = prepare(session, order, tell)
    job = _find(session, prepared)
    if job is not None:
        session.state.keep_receipt(prepared.run_id, {**found, "job_id": job})
        return Submitted(prepared, job, False, session.transport.commands)
    if prepared.tree.state != found.get("tree"):
        raise RefusedError(
            f"Run {prepared.run_id} was never submitted, and the code has changed since.",
            "Nothing was submitted. Run the command again for a new run of the code as it is now.",
        )
    return submit(session, prepared, tell)


def _find(session: Session, prepared: Prepared) -> str | None:
    """The job that a run became, as the cluster knows it."""
    _, queue, history = scheduler(session, prepared.layout)
    run = prepared.spec.run_directory
    answer = session.transport.run(
        Script("find_job", (prepared.workspace.root / "lock", _PATIENCE, run, queue, history))
    )
    if answer.status != 0:
        said = answer.errors.strip().removeprefix("rvstate: ") or "it gave no reason"
        raise SubmitError(f"The run could not be looked up: {said}", "Try again in a minute.")
    word, _, job = answer.body.decode("utf-8", "replace").strip().partition(" ")
    return job if word == "found" else None


def rerun(session: Session, wanted: str, tell: Callable[[str], None]) -> Submitted:
    """Submit a run of this machine again, with exactly its code.

    Args:
        session: Which account.
        wanted: A job id, a run id, or a name.
        tell: As for `prepare`.

    Raises:
        ConfigError: No receipt here is of that run.
        RefusedError: Its code is not at hand any more.
    """
    import tempfile

    found = next(
        (
            receipt
            for receipt in session.state.receipts()
            if receipt.get("cluster") == session.label
            and wanted in (receipt.get("job_id"), receipt.get("run_id"), receipt.get("name"))
        ),
        None,
    )
    if found is None:
        raise ConfigError(
            f"No run from this machine to {session.label} is called {wanted!r}.",
            "`rvstate ps -a` lists the runs; one from another machine can be run again there.",
        )
    root = Path(str(found.get("root")))
    order = ordered(found, root)
    if not order.directory.is_dir():
        raise RefusedError(
            f"The project of that run, {root}, is not there any more.", "Check it out again."
        )
    prepared = prepare(session, order, tell)
    if prepared.tree.state == found.get("tree"):
        return submit(session, prepared, tell)
    with tempfile.TemporaryDirectory(prefix="rvstate-") as folder:
        # the same name, for the workspace is named after it
        place = Path(folder) / root.name
        place.mkdir()
        commit = str(found.get("commit"))
        if found.get("dirty") or not git.export(prepared.project, commit, place):
            raise RefusedError(
                f"The code of run {found['run_id']} is not in front of you any more, and it was "
                "not a commit.",
                f"As long as it is kept, it lies in {found.get('snapshot')} on the cluster.",
            )
        past = replace(
            prepared.project,
            root=str(place),
            commit=commit,
            branch=found.get("branch"),
            changed=(),
            in_git=False,
        )
        again = prepare(session, order, tell, past)
        if again.tree.state != found.get("tree"):
            raise RefusedError(
                f"Commit {commit[:10]} alone is not the code of run {found['run_id']} "
                "(submodules, or files that .rvignore names?).",
                "Check that commit out as it was, and use rvstate run.",
            )
        return submit(session, again, tell)


def _told(said: tuple[str, ...], prepared: Prepared) -> tuple[str, ...]:
    found = []
    for line in said:
        word, _, value = line.partition(" ")
        if word == "aside":
            found.append(f"files in the workspace that were not sent from here are kept in {value}")
        elif word == "twin":
            name = prepared.spec.options.name
            found.append(
                f"job {value} of the same name is active, and both use RV_CHECKPOINT_DIR "
                f"{prepared.layout.checkpoints / name}; --name tells them apart"
            )
    return tuple(found)


def _tree_key(session: Session, workspace: Workspace) -> str:
    return f"{session.label}:{workspace.root}"


def _known_tree(session: Session, workspace: Workspace, code_state: str, tree: Tree) -> Tree | None:
    """The tree that the cluster holds, where this machine knows it."""
    if code_state == tree.state:
        return tree
    known = session.state.tree(_tree_key(session, workspace))
    return known if known is not None and known.state == code_state else None


def _attempt(
    session: Session, prepared: Prepared, tell: Callable[[str], None], known: Tree | None
) -> tuple[str | None, bool, tuple[str, ...]]:
    from rvstate.infra import runs

    scripts = runs.Scripts(
        push=push_script(prepared, known),
        build=build_script(prepared),
        submit=submit_script(session, prepared),
    )
    return runs.run(
        session.transport, prepared.layout, prepared.plan, prepared.observed, scripts, tell
    )


def push_script(prepared: Prepared, known: Tree | None) -> Script | None:
    """What brings the workspace's code to the tree's state; None where it is there.

    Args:
        prepared: The run.
        known: The tree that the workspace holds; None sends all of it.
    """
    tree, root = prepared.tree, prepared.workspace.root
    if prepared.code_state == tree.state:
        return None
    change = difference(known or Tree(()), tree)
    lists: dict[str, tuple[str, ...]] = {}
    if known is None or not change.same_paths:
        lists["files"] = tuple(f"./{file.path}" for file in tree.files)
    if known is not None:
        lists["changed"] = tuple(f"./{file.path}" for file in change.changed)
        lists["deleted"] = tuple(f"./{path}" for path in change.deleted)
        lists["emptied"] = tuple(f"./{path}" for path in change.emptied)
    payload = archive.pack(prepared.project.root, change.changed, lists)
    old = known.state if known is not None else "-"
    return Script(
        "push",
        (root / "lock", _PATIENCE, root, old, tree.state, prepared.project.identity),
        payload,
    )


def build_script(prepared: Prepared) -> Script | None:
    """What builds the project's environment; None where it is built or none is declared."""
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
            prepared.tree.state,
            *spec.sources,
        ),
    )


def scheduler(session: Session, layout: Layout) -> tuple[tuple[str, ...], str, str]:
    """How a script is submitted, and the command lines that list jobs now and in the past."""
    if session.config.site.scheduler == "process":
        program = (sys.executable, "-m", "rvstate.process")
        place = layout.rv / "process"
        return (*program, "submit", place), join((*program, "list", place)), ":"
    user = ' --user="$rv_user"'
    past = join((*sacct.command(days=_HISTORY_DAYS)[:-2], "--format=JobID,SubmitLine"))
    return ("sbatch", "--parsable"), join(squeue.command(finished=True)) + user, past + user


def submit_script(session: Session, prepared: Prepared) -> Script:
    """What takes the snapshot and submits the job."""
    words, queue, history = scheduler(session, prepared.layout)
    settings = session.config.settings
    spec = prepared.spec
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
        days=settings.snapshot.keep_days
    )
    return Script(
        "submit",
        (
            prepared.workspace.root / "lock",
            _PATIENCE,
            prepared.workspace.root,
            prepared.tree.state,
            spec.snapshot or "",
            "link" if spec.read_only else "copy",
            f"{oldest:%Y%m%d-%H%M%S}",
            spec.run_directory,
            printf_b(prepared.text.encode("utf-8", "surrogateescape")),
            printf_b(json.dumps(receipt(session, prepared, None)).encode()),
            queue,
            history,
            *words,
        ),
        _run_files(prepared, settings.snapshot.writable),
    )


def _run_files(prepared: Prepared, patterns: tuple[str, ...]) -> bytes:
    """What the run itself brings along: files that get copies of their own, package metadata."""
    lists: dict[str, tuple[str, ...]] = {}
    if prepared.spec.read_only and patterns:
        names = tuple(f"./{f.path}" for f in prepared.tree.files if _matches(f.path, patterns))
        if names:
            lists["writable"] = names
    if not lists and not prepared.package:
        return b""
    return archive.bundle({f"package/{path}": text for path, text in prepared.package}, lists)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a glob of `[snapshot] writable` names the file or a directory above it."""
    above = [path[:at] for at, letter in enumerate(path) if letter == "/"]
    return any(
        fnmatch.fnmatchcase(part, pattern.rstrip("/"))
        for pattern in patterns
        for part in (path, *above)
    )


def receipt(session: Session, prepared: Prepared, job: str | None) -> dict[str, Any]:
    """What ran, from what, where, with which script; no secret is in it."""
    project, spec, order = prepared.project, prepared.spec, prepared.order
    return {
        "schema": 1,
        "run_id": prepared.run_id,
        "job_id": job,
        "cluster": session.label,
        "name": spec.options.name,
        "project": project.name,
        "root": project.root,
        "branch": project.branch,
        "commit": project.commit,
        "dirty": project.dirty,
        "dirty_digest": prepared.tree.state if project.dirty else None,
        "tree": prepared.tree.state,
        "snapshot": spec.snapshot,
        "environment": spec.environment,
        "environment_digest": prepared.environment.digest if prepared.environment else None,
        "script": spec.run_directory / "job.sh",
        "script_digest": _digest(prepared.text),
        "logs": prepared.layout.logs,
        "command": list(spec.command),
        "order": {
            "words": list(order.words),
            "request": asdict(order.request),
            "name": order.name,
            "keep": list(order.keep),
            "writable": order.writable,
            "subdirectory": project.subdirectory,
        },
        "plan": [f"{c.action.word} {c.kind} {c.resource.name}" for c in prepared.plan.changes],
        "submitted_at": int(datetime.datetime.now(datetime.UTC).timestamp()),
    }


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def ordered(found: dict[str, Any], directory: Path, run_id: str = "") -> Order:
    """The order that a receipt tells of.

    Args:
        found: A receipt.
        directory: The project's root on this machine.
        run_id: As in `Order`.

    Raises:
        ConfigError: The receipt is of an earlier version, which kept no order.
    """
    order = found.get("order")
    if not isinstance(order, dict):
        raise ConfigError(
            f"The receipt of run {found.get('run_id')} does not say what was asked for.",
            "Type the command again.",
        )
    asked = dict(order["request"])
    asked["raw"] = tuple((key, value) for key, value in asked.get("raw", ()))
    return Order(
        words=tuple(order["words"]),
        request=Request(**asked),
        name=order["name"],
        keep=tuple(order["keep"]),
        directory=directory / order["subdirectory"],
        writable=bool(order["writable"]),
        run_id=run_id,
    )


def command_line(prepared: Prepared) -> str:
    """The user's command, for people."""
    return join(prepared.spec.command)
