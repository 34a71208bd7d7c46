"""From a project in front of the user to a run that is ready: look, read, decide.

Nothing is written on the cluster.
"""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rvstate import ahead as ahead_door
from rvstate import batchscript, command, diff, git, notification, probe, request
from rvstate import desired as desired_state
from rvstate.errors import (
    RefusedError,
)
from rvstate.model.environment.package import Package, package_files
from rvstate.model.environment.package import package as own_package
from rvstate.model.job import Dependency
from rvstate.model.layout import SYMBOLIC, Layout, Workspace
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Plan
from rvstate.model.project import Project, Scan, Tree, TreeChange, difference
from rvstate.model.resources import DesiredState
from rvstate.script import Script
from rvstate.size import human_bytes
from rvstate.transport import Running, Ssh
from rvstate.workflows.run import environment
from rvstate.workflows.run.jobspec import job_spec
from rvstate.workflows.run.launching import launching
from rvstate.workflows.run.named import check_script
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepared import Prepared, tree_key
from rvstate.workflows.session import Session

# What a job needs of the account; links and the shell are `converge`'s business.
KINDS = frozenset({"directory", "env", "scripts", "tool"})
# A file that a user may not have meant to send.
_LARGE_FILE = 50 << 20
_SHOWN = 5


def prepare(
    session: Session,
    order: Order,
    tell: Callable[[str], None],
    look: Callable[[tuple[probe.Question, ...]], ObservedState] | None = None,
    ahead: bool = False,
) -> Prepared:
    """Look at the account and the project, and render the batch script; writes nothing there.

    Args:
        session: Which account.
        order: What the user asked for.
        tell: Told what is being done, in a few words.
        look: Answers the questions about the account; default: one command over the session.
        ahead: Whether a submission follows, so that what it needs is loaded meanwhile.

    Raises:
        ConfigError: An option or setting is wrong.
        RefusedError: Something on the account or in the project is in the way.
    """
    settings, site = session.config.settings, session.config.site
    choices = None
    if look is None and request.leaves_choice(order.request, settings, site):
        # both are loaded only where there is a choice
        from rvstate import allocator
        from rvstate.workflows.run import allocating

        choices = allocator.choices(order.request, settings, site)
        asked_for = choices.found[0].options
    else:
        asked_for = request.options(order.request, settings, site)
    project = project_at(session, order.directory)
    _check_required(project, order.require)
    told: tuple[str, ...] = ()
    if order.dvc is not None:
        # loaded only for a run of DVC
        from rvstate.workflows.dvc import fitting

        repository, told = fitting.checked(session, order, project)
    tell(f"looking at {session.label}")
    follows: tuple[Dependency, ...] = ()
    if order.after:
        from rvstate.workflows.run.after import after

        follows, dependency = after(session, order.after)
        asked_for = replace(asked_for, dependency=dependency)
    shape = request.shape_of(order.request, asked_for)
    launch = launching(order, project, shape, site)
    read = reader(project)
    package = own_package(read)
    check_package(package)
    # the answer travels while the project is read
    asked, script = question(session, project, order)
    running = None
    if look is None:
        script, running = begin(session, script)
    scan = scanned(session, project)
    check_script(order, project, scan.tree)
    wanted_env = environment.declared(session, order.environment, read, scan.tree)
    if ahead:
        # what submits takes longer to load than the answer needs to come
        importlib.import_module("rvstate.infra.runs")
    if look is not None:
        observed = look(asked)
    else:
        assert running is not None
        observed = probe.read(session.transport.finish(script, running), asked)
    plan = diff.plan(wanted(session, Layout(observed.account)), observed)
    check_plan(plan)
    layout = Layout(observed.account)
    workspace = layout.workspace(project.name, project.branch_component)
    check_identity(observed, workspace, project)
    chosen = environment.choose(wanted_env, order.words, layout, project, workspace, observed)
    if chosen.ready:
        # what builds environments is not needed then
        plan = plan.only(KINDS - {"tool"})
    left = environment.left_behind(session, chosen, workspace, observed)
    run_id = order.run_id or new_run_id()
    spec = job_spec(
        session,
        order,
        project,
        scan.tree,
        package,
        layout,
        workspace,
        chosen.spec,
        chosen.generation,
        asked_for,
        launch,
        run_id,
    )
    spec = replace(spec, after=follows)
    if order.dvc is not None:
        spec = fitting.fitted(session, order, spec, repository, project, scan.tree, layout)
    allocation = None
    if choices is not None and choices.found[0].kind:
        allocation = allocating.allocate(
            # the elements of an array are claimed one by one
            session,
            spec.options,
            choices,
            spec.array is not None,
            tell,
        )
        spec = allocating.with_choices(spec, allocation.picked)
    code_state = observed.texts.get(workspace.manifest, "").strip()
    known = known_tree(session, workspace, code_state, scan.tree)
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
        environment=chosen.spec,
        generation=chosen.generation,
        environment_ready=chosen.ready,
        code_state=code_state,
        spec=spec,
        text=batchscript.render(spec),
        package=package_files(package, git.version(project)) if package else (),
        order=order,
        notices=(
            # a shell is no program whose ranks anybody counts
            *(() if order.held else launch.notices),
            *told,
            *notification.notices(settings, site),
            # a clone, and what DVC's queue holds, are not made of the files here
            *(_about_files(scan, change) if spec.snapshot or order.dvc is None else ()),
            *_about_words(order, project, scan),
            *chosen.notices,
            *environment.doubts(session, order.environment, chosen.spec, read, observed),
            *left,
        ),
        allocation=allocation,
    )


def project_at(session: Session, directory: Path) -> Project:
    """The project that a directory lies in; what git said of it is remembered."""
    known = session.state.firsts()
    firsts = dict(known)
    project = git.inspect(directory, firsts)
    if firsts != known:
        session.state.keep_firsts(firsts)
    return project


def begin(session: Session, script: Script) -> tuple[Script, Running]:
    """Send the look; where it goes over ssh, its shell waits for the first step behind it."""
    if isinstance(session.transport, Ssh):
        return ahead_door.begin(session.transport, script, hold=True)
    return script, session.transport.begin(script)


def new_run_id() -> str:
    """A name that no other run has: when, and 32 bits of chance."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%d-%H%M%S}-{os.urandom(4).hex()}"


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


def check_package(package: Package | None) -> None:
    """Refuse a package of which the snapshot would not be all.

    Raises:
        RefusedError: It is compiled.
    """
    if package is not None and package.backend:
        raise RefusedError(
            f"The project's own package is compiled by {package.backend}, and a job that imports "
            "it from the snapshot would not find what is compiled.",
            "Build a wheel and name it in requirements.txt, or keep the compiled part in a project "
            "of its own.",
        )


def check_plan(plan: Plan) -> None:
    """Refuse to go on where the account is not as a job needs it and cannot be made so."""
    if plan.refusals:
        first = plan.refusals[0]
        raise RefusedError(
            f"{first.kind} {first.resource.name}: {first.reason}.", "Run `rvstate converge`."
        )


def _about_files(scan: Scan, change: TreeChange) -> tuple[str, ...]:
    """What the user should know of the files before any is sent."""
    large = sorted((f for f in change.changed if f.size >= _LARGE_FILE), key=lambda f: -f.size)
    found = (f"{human_bytes(f.size)} will be sent: {f.path}" for f in large[:_SHOWN])
    return (*scan.notices, *found)


def _about_words(order: Order, project: Project, scan: Scan) -> tuple[str, ...]:
    """What the user should know of the command."""
    paths = {file.path for file in scan.tree.files}
    found = command.warnings(order.words, project.root)
    behind = tuple(
        word
        for word in git.below(project, command.paths_in(order.words))
        if word not in paths and not any(path.startswith(f"{word}/") for path in paths)
    )
    if not behind:
        return tuple(found)
    said = (
        f"named by the command and kept back by an ignore rule, so not in the job: {_some(behind)}"
    )
    return (said, *found)


def reader(project: Project) -> Callable[[str], str | None]:
    """Reads a file below the project's root; None where there is none."""
    root = Path(project.root)

    def read(name: str) -> str | None:
        path = root / name
        return path.read_text("utf-8", "surrogateescape") if path.is_file() else None

    return read


def scanned(session: Session, project: Project) -> Scan:
    """What would be sent of a project; what was read is remembered for the next time."""
    seen = session.state.seen(project.root)
    scan = git.scan(project, seen)
    if scan.seen != seen:
        session.state.keep_seen(project.root, scan.seen)
    return scan


def wanted(session: Session, layout: Layout) -> DesiredState:
    """What a job needs of the account."""
    config = session.config
    variables = session.state.variables()
    found = desired_state.account(config.settings, config.site, layout.account, variables)
    return DesiredState(tuple(r for r in found.resources if r.kind in KINDS))


def question(
    session: Session, project: Project, order: Order
) -> tuple[tuple[probe.Question, ...], Script]:
    """What is asked of the account before a run of the project, and that as a script.

    Args:
        session: Which account.
        project: The project.
        order: What the user asked for.
    """
    symbolic = Layout(SYMBOLIC)
    activated = environment.place(session, order.environment)
    place = symbolic.workspace(project.name, project.branch_component)
    asked = (
        *probe.questions(wanted(session, symbolic)),
        ("text", place.manifest),
        ("text", place.root / "identity"),
        ("text", place.environment / ".rvstate-environment"),
        ("stat", place.environment / "bin" / "python"),
        ("text", place.environment / ".rvstate" / "verified"),
        *((("stat", activated),) if activated else ()),
        *_about_commits(project, order),
    )
    return asked, probe.script(session.scratch, session.home, asked)


def _about_commits(project: Project, order: Order) -> tuple[probe.Question, ...]:
    if order.dvc is None:
        return ()
    return (("text", Layout(SYMBOLIC).repository(project.name) / "rvstate-commits"),)


def check_identity(observed: ObservedState, workspace: Workspace, project: Project) -> None:
    """Refuse a workspace that belongs to another project of the same name."""
    found = observed.texts.get(workspace.root / "identity", "").split()
    if found and not {*project.identities, *project.formerly} & {*found}:
        raise RefusedError(
            f"Another project named {project.name} has its code in {workspace.root}: it has "
            "neither a first commit nor a remote in common with this one.",
            "Rename this project's directory. If it is the same project after all, let it in: "
            f"rvstate exec \"rm '{workspace.root}/identity'\".",
        )


def known_tree(session: Session, workspace: Workspace, code_state: str, tree: Tree) -> Tree | None:
    """The tree that the cluster holds, where this machine knows it."""
    if code_state == tree.state:
        return tree
    known = session.state.tree(tree_key(session, workspace))
    return known if known is not None and known.state == code_state else None
