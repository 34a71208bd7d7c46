"""Make a prepared run so: what the account lacks, the code, the environment, the job last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rvstate.errors import (
    ConvergeError,
    Interrupted,
    ParseError,
    ProbeError,
    RefusedError,
    RvstateError,
    SubmitError,
    UnreachableError,
)
from rvstate.model.job import JobSpec
from rvstate.model.project import Tree
from rvstate.script import Script
from rvstate.shell import join
from rvstate.size import human_bytes
from rvstate.slurm import offers, sinfo
from rvstate.workflows.run.apply import apply
from rvstate.workflows.run.prepared import Prepared, Submitted, tree_key
from rvstate.workflows.run.receipt import receipt
from rvstate.workflows.run.scripts import build_script, push_script, submit_script
from rvstate.workflows.session import Session


def submit(
    session: Session, prepared: Prepared, tell: Callable[[str], None], *, repeated: bool = False
) -> Submitted:
    """Make it so: what the account lacks, the code, the environment, and the job last.

    Args:
        session: Which account.
        prepared: The run.
        tell: Told what is being done, in a few words.
        repeated: Whether its snapshot must be there already: the code is not sent again.

    Raises:
        ConvergeError, SubmitError: A step failed; its own words are in the message.
        RefusedError: Nothing at the site fits the request.
        Interrupted: Ctrl-C while it was submitted; any earlier one leaves nothing half done.
    """
    begun = receipt(session, prepared, None)
    session.state.keep_receipt(prepared.run_id, begun)
    steps: list[str] = []

    def note(step: str) -> None:
        steps.append(step)
        tell(step)

    try:
        job, new, said = _twice(session, prepared, note, repeated)
    except KeyboardInterrupt:
        from rvstate.infra.runs import SUBMITTING

        if SUBMITTING in steps:
            raise Interrupted(
                "Whether the job was submitted is not known here.",
                "Run `rvstate run --resume`: it finds the job, or submits it, never twice.",
            ) from None
        session.state.keep_receipt(prepared.run_id, {**begun, "failed": "interrupted"})
        raise
    except (UnreachableError, ProbeError) as error:
        raise type(error)(
            f"{error.message} Whether the job was submitted is not known here.",
            "Run `rvstate run --resume`: it finds the job, or submits it, never twice.",
        ) from error
    except RvstateError as failed:
        # an answer, though not the one hoped for: nothing is left to be taken up again
        session.state.keep_receipt(prepared.run_id, {**begun, "failed": failed.message})
        raise _offered(session, prepared, failed) from failed
    if prepared.known is not prepared.tree:
        session.state.keep_tree(tree_key(session, prepared.workspace), prepared.tree)
    session.state.keep_receipt(prepared.run_id, receipt(session, prepared, job))
    return Submitted(prepared, job, new, session.transport.commands, told(said, prepared))


def _offered(session: Session, prepared: Prepared, error: RvstateError) -> RvstateError:
    """The same error; where nothing at the site fits the request, a refusal with what there is."""
    if not isinstance(error, SubmitError) or not offers.is_impossible(error.message):
        return error
    deadline = prepared.spec.options.deadline
    if deadline:
        # Slurm says of it that the time limit is wrong
        remedy = (
            f"The deadline {deadline} leaves too little time: name a later one, or less --time."
        )
        return RefusedError(error.message, remedy)
    said = [
        session.transport.execute(join(command)).output.decode("utf-8", "replace")
        for command in (sinfo.PARTITIONS_COMMAND, sinfo.NODES_COMMAND)
    ]
    try:
        partitions, nodes = sinfo.parse_partitions(said[0]), sinfo.parse_nodes(said[1])
    except ParseError:
        # what Slurm said itself is enough then
        return error
    offered = offers.in_words(partitions, nodes, prepared.spec.options.partition)
    return RefusedError(error.message, offered or error.remedy)


def _twice(
    session: Session, prepared: Prepared, tell: Callable[[str], None], repeated: bool
) -> tuple[str, bool, tuple[str, ...]]:
    job, new, said = _attempt(session, prepared, tell, known=prepared.known)
    if job is None and "unbuilt" in said:
        # its code is there by now
        again = replace(_unbuilt(prepared), code_state=prepared.tree.state)
        job, new, more = _attempt(session, again, tell, known=prepared.tree)
        said = (*said, *more)
    if job is None and repeated:
        raise SubmitError(
            f"The snapshot {prepared.spec.snapshot} is gone.", "Type the command again."
        )
    if job is None:
        # somebody pushed meanwhile, or changed a file over there: send all of it, once
        job, new, more = _attempt(session, replace(prepared, code_state=""), tell, known=None)
        said = (*said, *more)
    if job is None:
        raise SubmitError(
            "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
        )
    return job, new, said


def _unbuilt(prepared: Prepared) -> Prepared:
    """The same run, whose environment somebody removed since the look, and which builds it."""
    spec, generation = prepared.environment, prepared.generation
    if spec is None or generation is None or generation.name != spec.digest:
        raise SubmitError(
            f"The environment {generation} was removed meanwhile.", "Type the command again."
        )
    return replace(prepared, environment_ready=False)


def _attempt(
    session: Session, prepared: Prepared, tell: Callable[[str], None], known: Tree | None
) -> tuple[str | None, bool, tuple[str, ...]]:
    from rvstate.infra import runs

    scripts = runs.Scripts(
        push=push_script(prepared, known, tell),
        build=build_script(prepared),
        submit=submit_script(session, prepared),
        commits=_commits(prepared, tell),
        data=_data(prepared),
    )
    return apply(session, prepared, scripts, tell)


def _data(prepared: Prepared) -> Script | None:
    if prepared.spec.dvc is None:
        return None
    from rvstate.workflows.dvc.store import data_script  # only runs of DVC need it

    return data_script(prepared, prepared.spec.dvc)


def _commits(prepared: Prepared, tell: Callable[[str], None]) -> Script | None:
    if prepared.spec.dvc is None:
        return None
    from rvstate.workflows.dvc.store import store_script  # only runs of DVC need it

    return store_script(prepared, prepared.spec.dvc, tell)


def push_only(session: Session, prepared: Prepared, tell: Callable[[str], None]) -> tuple[str, ...]:
    """Bring the code, and what it needs of the account, without environment and job.

    Returns:
        What the user should know.

    Raises:
        ConvergeError: A step failed, or somebody else keeps changing the workspace.
    """
    from rvstate.infra import runs

    said: tuple[str, ...] = ()
    for known, state in ((prepared.known, prepared.code_state), (None, "")):
        script = push_script(replace(prepared, code_state=state), known, tell)
        scripts = runs.Scripts(push=script, build=None, submit=None)
        if script is None and prepared.plan.empty:
            return ()
        transport, layout, plan = session.transport, prepared.layout, prepared.plan
        _, _, more = runs.run(transport, layout, plan, prepared.observed, scripts, tell)
        said = (*said, *more)
        if "stale" not in more:
            break
    else:
        raise ConvergeError(
            "Another rvstate keeps changing this workspace.", "Wait for it, then try again."
        )
    session.state.keep_tree(tree_key(session, prepared.workspace), prepared.tree)
    return told(said, prepared)


def tested(session: Session, prepared: Prepared) -> str:
    """What `sbatch --test-only` says of the batch script; nothing where there is no sbatch.

    Raises:
        SubmitError: Slurm would not take it.
        RefusedError: Nothing at the site fits it.
    """
    if session.config.site.scheduler == "process":
        return ""
    unset = ("-u", "SBATCH_PARTITION", "-u", "SBATCH_ACCOUNT")
    words: tuple[str, ...] = ("env", *unset, "sbatch", "--test-only")
    if prepared.spec.choices:
        # the script itself does not say in what several jobs differ
        words += prepared.spec.choices[0]
    text = prepared.text.encode("utf-8", "surrogateescape")
    done = session.transport.execute(join(words), text)
    said = " ".join(done.errors.split()).removeprefix("sbatch: ")
    if done.status != 0:
        error = SubmitError(
            f"Slurm would not take this job: {said or 'it gave no reason'}",
            "Change the options, or ask the site what your account may use.",
        )
        raise _offered(session, prepared, error)
    return said


def _has_own_checkpoints(spec: JobSpec) -> bool:
    """Whether a run of DVC names their directory by what it runs with (remote/dvc.sh)."""
    from rvstate import experiment, overrides  # only runs of DVC need them

    given = overrides.settings(spec.command[len(experiment.WORDS) :])
    return bool(given or (spec.dvc and spec.dvc.queued))


def told(said: tuple[str, ...], prepared: Prepared) -> tuple[str, ...]:
    """What the user should know of what the scripts said."""
    found = []
    for line in said:
        word, _, value = line.partition(" ")
        if word == "aside":
            found.append(f"files in the workspace that were not sent from here are kept in {value}")
        elif word == "untold":
            found.append(
                "no job behind this one will tell how it ended, so the next `rvstate ps` does: "
                f"{value.strip()}"
            )
        elif word == "twin":
            name, spec = prepared.spec.options.name, prepared.spec
            if spec.dvc and _has_own_checkpoints(spec):
                continue
            found.append(
                f"job {value} of the same name is active, and both use RV_CHECKPOINT_DIR "
                f"{prepared.layout.checkpoints / name}; "
                f"{'--job-name' if spec.dvc else '--name'} tells them apart"
            )
        elif word == "deferred":
            found.append(f"{value} is built by the first job, on its compute node")
        elif word == "note":
            found.append(value)
        elif word == "unpacked":
            found.append(f"the environment was unpacked from its kept copy {value}")
        elif word == "kept":
            taken, _, place = value.partition(" ")
            found.append(
                f"a copy of the environment is kept in {place} ({human_bytes(int(taken))}, 2 files)"
            )
        elif word == "size":
            files, size, new = map(int, value.split())
            found.append(
                f"the environment has {files} files, {human_bytes(size)}, of which "
                f"{human_bytes(new)} are its own and the rest is shared with uv's cache"
            )
    return tuple(found)
