import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rvstate import assets, batchscript, config
from rvstate.model.job import JobSpec, StageStep
from rvstate.paths import RemotePath
from rvstate.slurm.options import SbatchOptions

GOLDEN = Path(__file__).parent / "golden"
RV = RemotePath("/scratch/abc1de/.rv")
SMALL = JobSpec(
    run_id="20260102-030405-0a1b2c3d",
    options=SbatchOptions(name="rv-train", time=3600, export="NONE"),
    rv=RV,
    run_directory=RV / "runs/20260102-030405-0a1b2c3d",
    library=RV / "lib/0123456789abcdef",
    command=("python", "train.py"),
)
FULL = replace(
    SMALL,
    options=SbatchOptions(
        name="rv-train",
        partition="gpu-a6000",
        account="mygroup",
        time=10740,
        mem=32768,
        cpus_per_task=4,
        gpus=("a6000", 2),
        output="/scratch/abc1de/.rv/logs/%x-%j.out",
        error="/scratch/abc1de/.rv/logs/%x-%j.err",
        comment="rvstate:20260102-030405-0a1b2c3d",
        export="NONE",
    ),
    command=("torchrun", "--nproc_per_node=2", "train it.py", "--note", "it's $HOME"),
    variables=(("HF_HOME", "/scratch/abc1de/.cache/huggingface"),),
    variables_file=RV / "env/user.env",
    modules=("cuda/12.8.0", "miniforge/24.11.3-py3.12"),
    environment=RV / "envs/app/.generations/main/0f",
    snapshot=RemotePath("/scratch/abc1de/rv-workspaces/app/main/snapshots/rv-train-1"),
    subdirectory="experiments/first one",
    sources="src",
    keep=("results", "-odd name"),
    note="project app, branch main, commit none",
)


NODES = replace(
    FULL,
    options=replace(FULL.options, nodes=2, ntasks_per_node=1, exclude="udc-an28-3"),
    start="node",
    ranks=2,
)


STAGE = replace(
    FULL,
    snapshot=RemotePath("/scratch/abc1de/rv-workspaces/app/main/snapshots/app-1"),
    read_only=True,
    stage=StageStep(
        name="train",
        data=RemotePath("/scratch/abc1de/rv-workspaces/app/main/data"),
        key=(("code", "0f"), ("command", "1f"), ("environment", "none"), ("variables", "2f")),
        links=("data", "out put"),
        after=("prepare",),
        inputs=("data/it's", "/project/shared"),
        outputs=("out put/model", "data/x"),
        variables=(("A", "b c"),),
        folders=("data/x",),
    ),
)


@pytest.mark.parametrize(
    ("name", "spec"), [("small", SMALL), ("full", FULL), ("nodes", NODES), ("stage", STAGE)]
)
def test_the_script_reads_as_kept(name: str, spec: JobSpec) -> None:
    """A change of the text that every job runs is seen and meant."""
    kept = GOLDEN / f"{name}.sh"
    assert batchscript.render(spec) == kept.read_text()


def shellcheck(*texts: str, folder: Path) -> str:
    files = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.sh"
        path.write_text(text)
        files.append(str(path))
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "shellcheck belongs to the development requirements"
    done = subprocess.run([program, *files], capture_output=True, text=True)
    return done.stdout + done.stderr


ODD = st.sampled_from(
    (
        *(
            "it's",
            "\\",
            "'\\'",
            "$HOME",
            "`id`",
            "*",
            "~",
            "{a,b}",
            "!x",
            "a=1",
            "time",
            "-n",
            "#no",
        ),
        *("\u201cquoted\u201d", "\u2018so\u2019", "\u00b4", "\u00a0", "a\u00a0b", "\u00e9"),
        *("\n", "\t", "&&", "$(id)", '"', "a\nb", "[x]", "=", "==1", "+=1"),
    )
)
WORD = ODD | st.text(min_size=1, max_size=12).filter(
    lambda t: "\0" not in t and "\r" not in t and not any(0xD800 <= ord(c) < 0xE000 for c in t)
)


@pytest.mark.slow
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commands=st.lists(st.lists(WORD, min_size=1, max_size=4), min_size=6, max_size=6))
@example(commands=[["~/"], ["~"], ["~root/x"]])
@example(commands=[["if"], ["then"], ["else"], ["fi"], ["do", "done"], ["case", "esac"]])
def test_shellcheck_passes_whatever_the_command_was(
    commands: list[list[str]], tmp_path: Path
) -> None:
    """No command, name or path makes a script that shellcheck has a word to say about."""
    texts = []
    for words in commands:
        spec = replace(FULL, command=tuple(words), keep=(words[0],), subdirectory=words[-1])
        texts.append(batchscript.render(spec))
        assert STAGE.stage is not None
        step = replace(STAGE.stage, inputs=(words[0],), outputs=tuple(words), links=(words[-1],))
        texts.append(batchscript.render(replace(spec, stage=step)))
    assert shellcheck(*texts, folder=tmp_path) == ""


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORD, min_size=1, max_size=5))
def test_the_program_gets_exactly_the_words(words: list[str], tmp_path: Path) -> None:
    """Run by bash, the script hands every word on as it was typed."""
    home = tmp_path / "home"
    (home / "lib").mkdir(parents=True, exist_ok=True)
    (home / "lib/job.sh").write_text(assets.job_scripts()["job.sh"])
    (home / "run").mkdir(exist_ok=True)
    seen = home / "seen"
    program = home / "program"
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >{seen}\n")
    program.chmod(0o755)
    spec = replace(
        SMALL,
        rv=RemotePath(str(home / "rv")),
        library=RemotePath(str(home / "lib")),
        run_directory=RemotePath(str(home / "run")),
        command=(str(program), *words),
    )
    script = home / "job.sh"
    script.write_text(batchscript.render(spec))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert seen.read_text().split("\0")[:-1] == words


def test_programs_that_share_one_node_share_its_threads() -> None:
    """Where the launcher starts another number than one a GPU, the script says so."""
    steps = batchscript.render(replace(SMALL, ranks=4)).splitlines()
    assert "rv_share 4" in steps
    for same in (SMALL, replace(FULL, ranks=2)):
        assert "rv_share" not in batchscript.render(same)


def test_a_launcher_on_one_node_is_told_its_port_right_before_it_starts() -> None:
    """Behind everything that puts another program of its name in front."""
    steps = batchscript.render(replace(SMALL, fronted=True)).splitlines()
    assert steps[-2] == "rv_launchers"
    assert steps[-3].endswith("/launch.sh || exit 1")


def test_no_secret_and_no_shell_variable_of_ours_is_left_open() -> None:
    """The script names the file of the user's variables and holds none of them."""
    text = batchscript.render(FULL)
    assert "rv_variables /scratch/abc1de/.rv/env/user.env" in text
    assert "#SBATCH --export=NONE" in text


# Steps that may be gone through again by somebody who enters the running job: they set variables,
# or do nothing where `rv_visiting` (tests/remote/test_inside.py, tests/acceptance/test_desk.py).
_SURROUNDINGS = {
    *(
        "rv_begin",
        "rv_announce",
        "rv_share",
        "rv_nodes",
        "rv_modules",
        "rv_environment",
        "rv_variables",
    ),
    *("rv_activate", "rv_directory", ".", "export"),
}


@pytest.mark.parametrize("start", ["", "node", "rank", "once"])
def test_only_surroundings_stand_before_the_mark(start: str) -> None:
    """What is added in front of `rv_enter` runs once more for everybody who enters the job."""
    spec = replace(FULL, start=start, announce=True, read_only=True, extensions=True)
    head, mark, rest = batchscript.render(spec).partition("\nrv_enter\n")
    assert mark
    steps = {line.split()[0] for line in head.splitlines() if not line.startswith("#")}
    assert steps <= _SURROUNDINGS
    assert {"rv_read_only", "rv_extensions", "rv_keep"} <= {x.split()[0] for x in rest.splitlines()}


def test_what_runs_behind_a_job_is_charged_as_the_job_is() -> None:
    """A site that wants an allocation and a key wants them of each job."""
    text = batchscript.render_after(
        config.load_site("uva"),
        account="mine",
        wckey="k 1",
        library=RemotePath("/s/lib"),
        run=RemotePath("/s/runs/r"),
        logs=RemotePath("/s/logs"),
        name="rv-x",
    )
    assert "#SBATCH --account=mine\n" in text
    assert '#SBATCH --wckey="k 1"\n' in text
