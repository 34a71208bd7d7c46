"""The remote commands of a run: send the code, build the environment, submit."""

from __future__ import annotations

import datetime
import fnmatch
import json
import sys
import time
from collections.abc import Callable

from rvstate import batchscript, notification, retention
from rvstate.model.job import JobSpec
from rvstate.model.layout import Layout
from rvstate.model.project import Tree, difference
from rvstate.script import Script
from rvstate.shell import join, printf_b
from rvstate.size import human_bytes
from rvstate.slurm import sacct, squeue, token
from rvstate.workflows.run.environment import backup, payload
from rvstate.workflows.run.prepared import Prepared
from rvstate.workflows.run.receipt import receipt
from rvstate.workflows.session import Session

PATIENCE = "60"
# as long as another run may take to build the same environment; its progress is told
_BUILD_PATIENCE = "3600"
_HISTORY_DAYS = 14


def push_script(
    prepared: Prepared, known: Tree | None, tell: Callable[[str], None] = lambda _: None
) -> Script | None:
    """What brings the workspace's code to the tree's state; None where it is there.

    Args:
        prepared: The run.
        known: The tree that the workspace holds; None sends all of it.
        tell: Told how far a large transfer has come.
    """
    tree, root, project = prepared.tree, prepared.workspace.root, prepared.project
    if prepared.code_state == tree.state:
        return None
    if prepared.spec.snapshot is None and prepared.environment_ready:
        # the job clones, and nothing is built from what is here
        return None
    change = difference(known or Tree(()), tree)
    lists: dict[str, tuple[str, ...]] = {}
    if known is None or not change.same_paths:
        lists["files"] = tuple(f"./{file.path}" for file in tree.files)
    if known is not None:
        lists["changed"] = tuple(f"./{file.path}" for file in change.changed)
        lists["deleted"] = tuple(f"./{path}" for path in change.deleted)
        lists["emptied"] = tuple(f"./{path}" for path in change.emptied)
    # only now: what packs is not needed where nothing changed
    from rvstate import archive

    payload = archive.pack(project.root, change.changed, lists, Rate(tell))
    old = known.state if known is not None else "-"
    return Script(
        "push",
        (
            *(root / "lock", PATIENCE, root, old, tree.state),
            *("\n".join(names) for names in (project.identities, project.formerly)),
        ),
        payload,
    )


class Rate:
    """Tells how far a transfer has come, and how fast it is, once it takes longer than a second."""

    def __init__(self, tell: Callable[[str], None], what: str = "the code") -> None:
        self._tell = tell
        self._what = what
        self._begun = self._told = 0.0

    def __call__(self, done: int, size: int) -> None:
        """Count what was sent: `done` of `size` bytes."""
        now = time.monotonic()
        if not self._begun:
            self._begun = self._told = now
        elif now - self._told >= 1:
            self._told = now
            rate = human_bytes(round(done / (now - self._begun)))
            self._tell(
                f"sending {self._what}: {human_bytes(done)} of {human_bytes(size)}, {rate}/s"
            )


def build_script(prepared: Prepared) -> Script | None:
    """What builds the project's environment; None where it is built or none is declared."""
    spec, generation = prepared.environment, prepared.generation
    if spec is None or generation is None or prepared.environment_ready:
        return None
    code, state = prepared.workspace.code, prepared.tree.state
    if prepared.copied_from is not None:
        # a snapshot that was just checked, and that nothing changes
        code, state = prepared.spec.snapshot or code, "-"
    return Script(
        "build_environment",
        (
            "build",
            generation.parent / "lock",
            _BUILD_PATIENCE,
            prepared.workspace.environment,
            generation,
            prepared.observed.tools.get("uv") or prepared.layout.tools / "bin" / "uv",
            prepared.layout.scratch_caches / "uv",
            code,
            state,
            prepared.run_id,
            backup(spec, prepared.layout.account),
        ),
        payload(spec),
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


def active_jobs(session: Session, layout: Layout) -> str:
    """The command line that lists the user's jobs that wait or run, with the ids of their runs."""
    if session.config.site.scheduler == "process":
        return join((sys.executable, "-m", "rvstate.process", "active", layout.rv / "process"))
    return join(squeue.command()) + ' --user="$rv_user"'


def keep_after(session: Session, prepared: Prepared) -> str:
    """When a snapshot must have been taken to be kept, as `submit.sh` reads it."""
    here, skew = int(time.time()), prepared.observed.skew
    oldest = retention.oldest(session.config.settings.snapshot.keep_days, here, skew)
    stamp = datetime.datetime.fromtimestamp(oldest, datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp} {oldest}"


def submit_script(session: Session, prepared: Prepared) -> Script:
    """What takes the snapshot and submits the job."""
    words, queue, history = scheduler(session, prepared.layout)
    spec = prepared.spec
    return Script(
        "submit",
        (
            prepared.workspace.root / "lock",
            PATIENCE,
            prepared.workspace.root,
            # what the job clones needs no snapshot
            "-" if prepared.order.code or spec.snapshot is None else prepared.tree.state,
            "" if prepared.order.code else spec.snapshot or "",
            "link" if spec.read_only else "copy",
            keep_after(session, prepared),
            spec.run_directory,
            printf_b(prepared.text.encode("utf-8", "surrogateescape")),
            printf_b(json.dumps(receipt(session, prepared, None)).encode()),
            prepared.generation or "",
            queue,
            history,
            _parts(spec),
            *words,
        ),
        _run_files(session, prepared),
    )


def _parts(spec: JobSpec) -> str:
    """The jobs of an array that one job cannot hold, a line each; empty where there is one job."""
    parts = spec.array.parts if spec.array else ()
    return "\n".join(f"{offset} {listed}" for offset, listed in parts) if len(parts) > 1 else ""


def _run_files(session: Session, prepared: Prepared) -> bytes:
    """What the run itself brings along: own copies, package metadata, whom to tell."""
    patterns = session.config.settings.snapshot.writable
    lists: dict[str, tuple[str, ...]] = {}
    if prepared.spec.read_only and patterns:
        names = tuple(f"./{f.path}" for f in prepared.tree.files if _matches(f.path, patterns))
        if names:
            lists["writable"] = names
    if prepared.spec.dvc is not None and prepared.spec.dvc.deleted:
        lists["deleted"] = tuple(f"./{path}" for path in prepared.spec.dvc.deleted)
    files = run_texts(session, prepared)
    if not files and not lists:
        return b""
    from rvstate import archive

    return archive.bundle(files, lists)


def run_texts(session: Session, prepared: Prepared) -> dict[str, str]:
    """The texts that are kept with a run, by their names below its directory."""
    files = {f"package/{path}": text for path, text in prepared.package}
    if _parts(prepared.spec) and (words := token.words(prepared.spec.options.comment)):
        files["comment"] = words
    if prepared.spec.choices:
        files["choices"] = "".join(f"{join(words)}\n" for words in prepared.spec.choices)
    if prepared.spec.announce:
        files |= _notify_files(session, prepared)
    if prepared.part is not None:
        from rvstate.rayplan import run_files

        files |= run_files(prepared.spec)
    return files


def _notify_files(session: Session, prepared: Prepared) -> dict[str, str]:
    """What `remote/notify.sh` needs of the run: see there."""
    spec, site = prepared.spec, session.config.site
    known = notification.base(
        run_id=prepared.run_id,
        name=spec.options.name,
        project=prepared.project.name,
        cluster=session.label,
        user=prepared.layout.account.user,
    )
    files = {"notify/base": known, "notify/due": "due\n"}
    if notification.has_after_job(site):
        files["notify/after.sh"] = batchscript.render_after(
            site,
            account=spec.options.account,
            wckey=spec.options.wckey,
            library=spec.library,
            run=spec.run_directory,
            logs=prepared.layout.logs,
            name=spec.options.name,
        )
    return files


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a glob of `[snapshot] writable` names the file or a directory above it."""
    above = [path[:at] for at, letter in enumerate(path) if letter == "/"]
    return any(
        fnmatch.fnmatchcase(part, pattern.rstrip("/"))
        for pattern in patterns
        for part in (path, *above)
    )
