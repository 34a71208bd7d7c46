"""A job to be submitted, and what is known of one that was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rvstate.paths import RemotePath
from rvstate.slurm.options import SbatchOptions
from rvstate.slurm.states import FINISHED, JobState

if TYPE_CHECKING:
    # loaded only for a run of DVC
    from rvstate.model.experiment import Experiment

# How a run may follow another one, in words for "if it …".
FOLLOWING = {"ok": "succeeds", "any": "ends", "failed": "fails"}
# The same in Slurm's words (sbatch(1), --dependency).
_SLURM = {"ok": "afterok", "any": "afterany", "failed": "afternotok"}


@dataclass(frozen=True, slots=True)
class Dependency:
    """A run that another one is to follow.

    Args:
        run_id: Its id.
        name: Its job's name.
        job: Its job, as the scheduler numbers it; several of a long array with commas.
        when: One of `FOLLOWING`.
    """

    run_id: str
    name: str
    job: str
    when: str

    @property
    def option(self) -> str:
        """As sbatch reads it."""
        return f"{_SLURM[self.when]}:{self.job.replace(',', ':')}"

    def met_by(self, state: JobState) -> bool:
        """Whether this end of it lets the other one start."""
        return self.when == "any" or (self.when == "ok") is (state is JobState.COMPLETED)


@dataclass(frozen=True, slots=True)
class Array:
    """A run of several elements, each a job with the same code and environment.

    Args:
        indices: Of its elements, ascending.
        at_once: How many may run at the same time, or None.
        sweep: Parameters with their values, the last one counted fastest; empty for none.
        parts: The jobs that it takes, where a site's arrays are shorter: what is added to the
            index that Slurm counts with, and the value of `--array`.
    """

    indices: tuple[int, ...]
    at_once: int | None
    sweep: tuple[tuple[str, tuple[str, ...]], ...]
    parts: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A run that goes on in segments, for longer than one job may be.

    Args:
        total: Seconds of all segments together.
        lead: Seconds ahead of a segment's end at which the program is warned.
        signal: With which it is: `USR1` or `USR2`.
        retries: How many failures of the program do not end it.
        most: Segments that there are at most, whatever happens.
    """

    total: int
    lead: int
    signal: str
    retries: int
    most: int


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an array, as far as anybody knows it; fields as in `RunRecord`."""

    index: int
    job: str
    state: JobState
    exit_code: int | None = None
    elapsed: int | None = None
    nodes: tuple[str, ...] = ()
    results: str = ""


@dataclass(frozen=True, slots=True)
class StageStep:
    """What makes a job a stage of a pipeline.

    Args:
        name: The stage.
        data: The pipeline's directory, where relative paths of inputs and outputs begin.
        key: What decides whether it is to run again, a word and its value each.
        links: Names at the snapshot's top that lead to the same names in `data`.
        after: The stages that it follows.
        inputs: What it reads and is no code.
        outputs: What it makes.
        folders: Those of them that are directories, which are there before it begins.
        variables: Its own variables, which go over the user's.
        unless_same: Whether its job ends at once where what it reads came out as it was.
    """

    name: str
    data: RemotePath
    key: tuple[tuple[str, str], ...] = ()
    links: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    unless_same: bool = False


@dataclass(frozen=True, slots=True)
class RayStep:
    """What makes a job several stages of a pipeline, on a Ray of its nodes.

    Args:
        data: The pipeline's directory.
        nodes: How many there are.
        copies: How many environments of its own Ray may make on a node.
        plan: What `remote/ray_driver.py` runs, as JSON.
        stages: The stages that run.
    """

    data: RemotePath
    nodes: int
    copies: int
    plan: str
    stages: tuple[StageStep, ...]

    @property
    def links(self) -> tuple[str, ...]:
        """Names at the snapshot's top that lead to the same names in `data`."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.links))


@dataclass(frozen=True, slots=True)
class Part:
    """The pipeline that a run is a stage of.

    Args:
        pipeline: The pipeline's id.
        name: The pipeline's name.
        stage: Which stage the run is; of several the first.
        plan: Every stage in order: its name, its run's id or empty, and why it runs or does not.
    """

    pipeline: str
    name: str
    stage: str
    plan: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything that a batch script is rendered from.

    Args:
        run_id: Names the run; it is the submission token too.
        options: What is asked of the scheduler.
        rv: rvstate's directory on scratch.
        run_directory: The run's own directory.
        library: The directory of our scripts.
        modules: Environment modules, loaded before the environment.
        environment: The generation that it runs in, or None.
        activated: An environment that rvstate did not build: its kind (empty where the node is to
            tell), and the places where it may lie, the first that is there counts.
        variables: Variables that rvstate sets, name to value; the user's own win over them.
        variables_file: The user's own variables.
        snapshot: The job's copy of the code, or None.
        subdirectory: Where in it the command runs.
        sources: The directory below the snapshot that imports come from (`src`, `.`), or empty.
        read_only: Whether the snapshot's files are shared with other jobs' snapshots.
        extensions: Whether compiled extensions are built in the snapshot first.
        keep: Paths to copy to RV_OUTPUT_DIR at the end.
        command: The user's command as words.
        start: How the command is started: `node`, `rank` or `once`; empty where nothing is special.
        ranks: Programs that share a node, of a job that is started so.
        fronted: Whether a program of rvstate stands in front of the launcher and tells it what it
            reads from no variable.
        node_wait: Seconds that a node may go on after another has ended without an error.
        note: One line for the reader of the script.
        announce: Whether somebody is told about the job.
        after: Runs that it is to follow and that had not ended.
        array: Its elements; None for one job.
        choices: Options of sbatch, in words, for each of several jobs of which one runs; empty for
            a single job, whose options say it all.
        chain: Its segments; None for one.
        dvc: What its experiment needs; None where DVC does not run.
        stage: What makes it a stage of a pipeline; None for a run of its own.
        ray: What makes it several stages at once, on Ray; or None.
    """

    run_id: str
    options: SbatchOptions
    rv: RemotePath
    run_directory: RemotePath
    library: RemotePath
    command: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    variables_file: RemotePath | None = None
    modules: tuple[str, ...] = ()
    environment: RemotePath | None = None
    activated: tuple[str, ...] = ()
    snapshot: RemotePath | None = None
    subdirectory: str = ""
    sources: str = ""
    read_only: bool = False
    extensions: bool = False
    keep: tuple[str, ...] = ()
    start: str = ""
    ranks: int = 1
    fronted: bool = False
    node_wait: int = 1800
    note: str = ""
    announce: bool = False
    choices: tuple[tuple[str, ...], ...] = ()
    after: tuple[Dependency, ...] = ()
    array: Array | None = None
    chain: Chain | None = None
    dvc: Experiment | None = None
    stage: StageStep | None = None
    ray: RayStep | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run, as far as anybody knows it.

    Args:
        run_id: Ours.
        job: The scheduler's id, or None where it never answered.
        name: The job's name.
        state: UNKNOWN where nobody could tell; never guessed.
        reason: Why it waits, in words.
        exit_code: The program's own, or None.
        elapsed: Seconds of run time, or None.
        project: The project's name.
        branch: The branch, or None.
        commit: The commit, or None.
        dirty: Whether the tree differed from the commit.
        submitted: Seconds since 1970, or None.
        log: The log's path on the cluster.
        error_log: The error log's path.
        command: As the user typed it.
        nodes: Names of nodes.
        gpus: What it holds of each node's GPUs, as Slurm prints it (`gpu:a100:2`).
        untold: Whether somebody is still to be told how it ended.
        parts: How many nodes write logs of their own; 0 for a job of one node.
        after: Runs that it was to follow.
        array: What elements it has; None for one job.
        elements: What is known of each of them.
        jobs: All of its jobs, where an array took several; else its only one.
        index: Which element of an array this is; None for a whole run.
        begun: Whether its submission was; a run that was refused before never became a job.
        copies: Jobs that were submitted for it and of which one runs; empty where there was one.
        chain: Its segments; None for one.
        segment: Which of them is the last that has begun.
        spent: Seconds of those that have ended.
        part: The pipeline that it is a stage of, or None.
        results: What became of the results of a run of DVC: `pushed`, `kept` or `none`, and words.
        stages: Of a job that is several stages those that have begun, each with `begun` or `done`.
    """

    run_id: str
    job: str | None
    name: str
    state: JobState
    reason: str = ""
    exit_code: int | None = None
    elapsed: int | None = None
    project: str = ""
    branch: str | None = None
    commit: str | None = None
    dirty: bool = False
    submitted: int | None = None
    log: str = ""
    error_log: str = ""
    command: tuple[str, ...] = ()
    nodes: tuple[str, ...] = field(default=())
    gpus: str = ""
    untold: bool = False
    parts: int = 0
    after: tuple[Dependency, ...] = ()
    array: Array | None = None
    elements: tuple[Element, ...] = ()
    jobs: tuple[str, ...] = ()
    index: int | None = None
    begun: bool = True
    copies: tuple[str, ...] = ()
    chain: Chain | None = None
    segment: int = 0
    spent: int = 0
    part: Part | None = None
    results: str = ""
    stages: tuple[tuple[str, str], ...] = ()

    @property
    def unpushed(self) -> str:
        """In words, which results of DVC are only on the cluster; empty where there are none."""
        word, _, text = self.results.partition(" ")
        return text if word == "kept" and self.is_over else ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in FINISHED or not self.begun

    @property
    def undecided(self) -> bool:
        """Whether several jobs stand for it of which one is to run, and none has begun."""
        return len(self.jobs) > 1 and self.array is None
