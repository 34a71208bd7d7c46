import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rvstate import assets
from rvstate.shell import quote
from tests import runkit

STEPS = """#!/bin/bash
. {lib}/job.sh || exit 1
rv_begin {rv} {run} rv-train
{more}
rv_run {command}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Directories as converge makes them, with our scripts."""
    for name in ("lib", "rv/logs", "run", "snapshot/sub", "env/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lib/job.sh").write_text(assets.job_scripts()["job.sh"])
    return tmp_path


def script(place: Path, command: str, *more: str) -> Path:
    path = place / "job.sh"
    path.write_text(
        STEPS.format(
            lib=place / "lib",
            rv=place / "rv",
            run=place / "run",
            more="\n".join(more),
            command=command,
        )
    )
    return path


def job(place: Path, command: str, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a batch script to its end, as job 41."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(place), "RV_JOB_ID": "41", **env}
    return subprocess.run(
        ["bash", str(script(place, command, *more))],
        capture_output=True,
        text=True,
        env=clean,
        cwd=place,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def snapshot(place: Path, sub: str = "", sources: str = "") -> str:
    return f"rv_directory {quote(str(place / 'snapshot'))} {quote(sub)} {quote(sources)}"


@pytest.mark.parametrize("status", [0, 1, 7, 200])
def test_the_exit_code_is_the_programs_own(place: Path, status: int) -> None:
    """And it is kept with the run, for accounting may lag or subtract."""
    assert job(place, f"sh -c 'exit {status}'").returncode == status
    assert (place / "run/exit").read_text().split()[0] == str(status)


def test_a_program_that_is_not_there_is_127(place: Path) -> None:
    """As the shell says it."""
    done = job(place, "no-such-program-here")
    assert done.returncode == 127
    assert "no-such-program-here" in done.stderr


def test_names_and_directories_of_the_job_are_in_its_environment(place: Path) -> None:
    """The documented variables, and the directories are there."""
    done = job(place, "env", SLURM_CPUS_PER_TASK="8", SLURM_GPUS_ON_NODE="4")
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert found["RV_OUTPUT_DIR"] == str(place / "rv/outputs/rv-train-41")
    assert found["RV_CHECKPOINT_DIR"] == str(place / "rv/checkpoints/rv-train")
    assert (found["PYTHONUNBUFFERED"], found["TOKENIZERS_PARALLELISM"]) == ("1", "false")
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["MASTER_PORT"] == found["PET_MASTER_PORT"] == "10041"
    assert Path(found["RV_OUTPUT_DIR"]).is_dir()
    assert Path(found["RV_CHECKPOINT_DIR"]).is_dir()


def test_a_port_that_somebody_has_is_passed_over(place: Path) -> None:
    """The node may be shared: the next port on which nobody listens is the job's own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = job(place, "true", f"rv_port {port}").stdout
        assert port < int(said) < port + 50
        (place / "run/claim").unlink()
    assert job(place, "true", f"rv_port {port}").stdout == str(port)


def test_programs_that_share_the_node_share_its_threads(place: Path) -> None:
    """Of eight CPUs each of four programs has two, and of two each has one."""
    for cpus, threads in (("8", "2"), ("2", "1")):
        said = job(place, "sh -c 'echo $OMP_NUM_THREADS'", "rv_share 4", SLURM_CPUS_PER_TASK=cpus)
        assert said.stdout == f"{threads}\n"
        (place / "run/claim").unlink()


def test_what_srun_needs_stays_and_what_would_lead_python_astray_goes(place: Path) -> None:
    """SLURM_* is kept but for the one that would empty srun's environment."""
    env = {"SLURM_EXPORT_ENV": "NONE", "SLURM_NTASKS": "2", "PYTHONPATH": "/x", "PYTHONHOME": "/x"}
    found = {line.partition("=")[0] for line in job(place, "env", **env).stdout.splitlines()}
    assert "SLURM_NTASKS" in found
    assert not found & {"SLURM_EXPORT_ENV", "PYTHONPATH", "PYTHONHOME"}


def test_it_runs_where_the_user_stood_and_imports_from_the_snapshot(place: Path) -> None:
    """The subdirectory is the working directory; src and the package's metadata are found."""
    (place / "snapshot/src").mkdir()
    (place / "run/package/bin").mkdir(parents=True)
    tool = place / "run/package/bin/tool"
    tool.write_text("#!/bin/sh\necho from the tool\n")
    tool.chmod(0o755)
    assert job(place, "pwd", snapshot(place, "sub")).stdout.strip() == str(place / "snapshot/sub")
    done = job(place, "sh -c 'echo $PYTHONPATH; tool'", snapshot(place, "", "src"))
    expected = f"{place}/snapshot/src:{place}/run/package"
    assert done.stdout.splitlines() == [expected, "from the tool"]


def test_a_snapshot_that_is_gone_ends_the_job_before_the_program(place: Path) -> None:
    """Never the user's program in another directory."""
    done = job(place, "touch ran", f"rv_directory {place}/nowhere '' ''")
    assert done.returncode == 1
    assert "is gone; submit again" in done.stderr
    assert not (place / "ran").exists()
    assert (place / "run/exit").read_text().split()[0] == "1"


def test_an_environment_that_is_gone_ends_the_job_before_the_program(place: Path) -> None:
    """Not the site's own Python instead."""
    done = job(place, "touch ran", f"rv_environment {place}/env")
    assert (done.returncode, "is gone" in done.stderr) == (1, True)
    assert not (place / "ran").exists()


@pytest.mark.parametrize("mender", ["alive", "dead"])
def test_a_job_that_starts_while_its_environment_is_mended_finds_it(
    place: Path, mender: str
) -> None:
    """Between the two renames there is none: it waits, or does what a killed one left to do."""
    for name, text in assets.job_scripts().items():
        (place / "lib" / name).write_text(text)
    generation = place / "envs/.generations/main/d1"
    whole = generation.parent / ".healing/d1"
    (whole / "bin").mkdir(parents=True)
    (whole / "bin/python").write_text("#!/bin/sh\necho mended\n")
    (whole / "bin/python").chmod(0o755)
    (whole / ".rvstate-environment").write_text("d1\n")
    (generation.parent / ".gone-d1").mkdir()
    with contextlib.ExitStack() as ending:
        if mender == "alive":
            heal = f'rv_lock {generation.parent}/lock 5; sleep 2; exchange {generation}; echo "$?"'
            texts = (assets.script(name) for name in ("lib", "manifest", "build_environment"))
            mending = subprocess.Popen(["sh", "-c", "\n".join((*texts, heal))])
            ending.callback(mending.wait)
            while not (generation.parent / "lock").is_symlink():
                time.sleep(0.05)
        done = job(place, "python", f"rv_environment {generation}")
    assert (done.returncode, done.stdout) == (0, "mended\n"), done.stderr
    assert "waiting for it" in done.stderr
    assert sorted(p.name for p in generation.parent.iterdir()) == ["d1"]


def test_modules_that_do_not_load_end_the_job(place: Path) -> None:
    """All or none, with the place to mend it."""
    (place / "profile").write_text('module() { echo "$@" >&2; [ "$2" != bad ]; }\n')
    first = f". {place}/profile"
    assert job(place, "true", first, "rv_modules good").returncode == 0
    done = job(place, "touch ran", first, "rv_modules bad")
    assert (done.returncode, "[modules]" in done.stderr) == (1, True)
    assert not (place / "ran").exists()


def test_the_users_variables_win_and_reach_only_the_program(place: Path) -> None:
    """Over our defaults; our own tools around it do not see them."""
    (place / "user.env").write_text("export OMP_NUM_THREADS='5'\nexport LD_PRELOAD_X='no such'\n")
    script_line = f"rv_variables {place}/user.env"
    (place / "snapshot/out").write_text("kept")
    cp = place / "env/bin/cp"
    cp.write_text(f'#!/bin/sh\nenv >{place}/seen-by-cp\nexec /bin/cp "$@"\n')
    cp.chmod(0o755)
    done = job(
        place,
        "sh -c 'echo $OMP_NUM_THREADS $LD_PRELOAD_X'",
        f"PATH={place}/env/bin:$PATH",
        script_line,
        snapshot(place),
        "rv_keep out",
    )
    assert done.stdout.strip() == "5 no such"
    assert "LD_PRELOAD_X" not in (place / "seen-by-cp").read_text()


@pytest.mark.parametrize("kind", ["venv", "conda", "named"])
def test_nothing_hides_the_environment(place: Path, kind: str) -> None:
    """Neither what a module brings for its own Python, nor a PATH of the user's own."""
    runkit.write(
        place,
        {"env/bin/python": '#!/bin/sh\necho "ours ${PYTHONPATH-} ${PYTHONHOME-}"\n'},
        executable=True,
    )
    runkit.write(place, {"other/python": "#!/bin/sh\necho theirs\n"}, executable=True)
    if kind == "conda":
        (place / "env/conda-meta").mkdir()
    (place / "user.env").write_text(f"export PATH='{place}/other:/usr/bin:/bin'\n")
    step = "rv_activate ''" if kind == "named" else "rv_environment"
    done = job(
        place,
        "python",
        "module() { export PYTHONPATH=/theirs PYTHONHOME=/theirs; }",
        "rv_modules python",
        f"{step} {place}/env",
        f"rv_variables {place}/user.env",
        snapshot(place),
    )
    assert done.stdout.split() == ["ours"], done.stderr


def test_a_moved_environment_is_said_to_be(place: Path) -> None:
    """Its programs name the old place; where it lies as it was made nothing is said."""
    runkit.write(place, {"env/bin/python": "#!/bin/sh\necho ran\n"}, executable=True)
    for made, says in (("/elsewhere", True), (str(place / "env"), False)):
        runkit.write(place, {"env/bin/activate": f"VIRTUAL_ENV='{made}'\n"})
        done = job(place, "python", f"rv_activate '' {place}/missing {place}/env")
        assert (done.stdout, "moved since" in done.stderr) == ("ran\n", says)


@pytest.mark.parametrize(
    "files",
    [
        {"bin/activate": "case x in\n *) VIRTUAL_ENV=$(cygpath HERE) ;;\nesac\nVIRTUAL_ENV=HERE\n"},
        {"bin/activate": "    export VIRTUAL_ENV='HERE'\n"},
        {"pyvenv.cfg": "home = /usr/bin\ncommand = /usr/bin/python3.12 -m venv HERE\n"},
        {"bin/tool": "#!HERE/bin/python3\n"},
        {"bin/a": "#!/usr/bin/python3\n", "bin/b": "\0\1\2", "bin/c": "#!HERE/bin/python\n"},
        {"bin/tool": "#!/bin/sh\n'''exec' 'HERE/bin/python' \"$0\" \"$@\"\n' '''\n"},
        {"conda-meta/history": "", "bin/tool": "#!HERE/bin/python3.12\n"},
    ],
)
def test_every_trace_of_the_former_place_is_read(place: Path, files: dict[str, str]) -> None:
    """Where activate names none, pyvenv.cfg or a program does."""
    runkit.write(place, {"an env/bin/python": "#!/bin/sh\necho ran\n"}, executable=True)
    for made, says in (("/else where", True), (str(place / "an env"), False)):
        runkit.write(place / "an env", {k: v.replace("HERE", made) for k, v in files.items()})
        done = job(place, "python", f"rv_activate '' '{place}/an env'")
        assert (done.stdout, "was made as /else where and moved since" in done.stderr) == (
            "ran\n",
            says,
        ), done.stderr


def test_a_relocatable_environment_has_not_moved(place: Path) -> None:
    """None of its files names a place."""
    runkit.write(place, {"env/bin/python": "#!/bin/sh\necho ran\n"}, executable=True)
    activate = "VIRTUAL_ENV=''\"$(dirname -- \"$SCRIPT_PATH\")\"''\n"
    tool = '#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$0")"/\'python\' "$0" "$@"\n'
    runkit.write(place, {"env/bin/activate": activate, "env/bin/tool": tool})
    done = job(place, "python", f"rv_activate '' {place}/env")
    assert (done.stdout, "moved" in done.stderr) == ("ran\n", False)


def test_another_python_is_said_in_the_log(place: Path) -> None:
    """Its errors would look like those of an environment that lacks something."""
    for name in ("env", "other"):
        runkit.write(place, {f"{name}/bin/python3": "#!/bin/sh\n"}, executable=True)
    (place / "env/bin/python").symlink_to("python3")
    step = f"rv_environment {place}/env"
    done = job(place, f"{place}/other/bin/python3 x.py", step)
    assert f"{place}/other/bin/python3 is another Python" in done.stderr
    said = f"rvstate: python is {place}/env/bin/python\n"
    assert job(place, f"{place}/env/bin/python3 x.py", step).stderr == said
    assert job(place, "python3 x.py", step).stderr == said
    assert job(place, f"{place}/other/bin/python3 x.py").stderr == ""


def test_a_job_without_an_environment_says_which_python_it_has(place: Path) -> None:
    """Where it starts one by name; any other program has none to speak of."""
    runkit.write(place, {"other/python3": "#!/bin/sh\necho ran\n"}, executable=True)
    said = f"rvstate: python is {place}/other/python3\n"
    for command in ("python3 x.py", "env A=1 python3 x.py"):
        done = job(place, command, f"PATH={place}/other:$PATH")
        assert (done.stdout, done.stderr) == ("ran\n", said)
    assert job(place, "true").stderr == ""


def shadowed(place: Path, how: str) -> tuple[str, ...]:
    """Steps behind which `python` is another one than the environment's."""
    step = f"rv_environment {place}/env"
    if how == "function":
        return ("python() { echo theirs; }", "export -f python", step)
    if how == "project":
        package = {"run/package/bin/python": "#!/bin/sh\necho theirs\n"}
        runkit.write(place, package, executable=True)
        return (step, snapshot(place, "", "src"))
    if how == "gone":
        return (step, f"rm {place}/interpreter")
    # behind the environment's own directory on PATH, as hooks of conda may put it
    return (step, f"PATH={place}/other:$PATH")


@pytest.mark.parametrize("how", ["function", "project", "gone", "hook"])
@pytest.mark.parametrize("command", ["python", "bash -c python"])
def test_a_shadowed_environment_ends_the_job_before_the_program(
    place: Path, how: str, command: str
) -> None:
    """With the reason; no result of another Python passes for the environment's."""
    runkit.write(place, {"interpreter": "#!/bin/sh\necho ours\n"}, executable=True)
    runkit.write(place, {"other/python": "#!/bin/sh\necho theirs\n"}, executable=True)
    (place / "env/bin/python").symlink_to(place / "interpreter")
    done = job(place, command, *shadowed(place, how))
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not get the Python of its environment" in done.stderr
    assert done.stderr.endswith("; nothing was run\n")
    assert (place / "run/exit").read_text().split()[0] == "1"


@pytest.mark.parametrize("kind", ["conda", "interpreter", "image"])
def test_what_is_only_activated_is_said_too(place: Path, kind: str) -> None:
    """An interpreter goes by the names of python; a conda environment may have none at all."""
    runkit.write(place, {"opt/python3.99": "#!/bin/sh\necho ours\n"}, executable=True)
    runkit.write(place, {"apptainer": "#!/bin/sh\necho entered\n"}, executable=True)
    (place / "env/conda-meta").mkdir()
    where = {"conda": "env", "interpreter": "opt/python3.99", "image": "image.sif"}[kind]
    runkit.write(place, {"image.sif": "", "user.env": f"export PATH='{place}:/usr/bin:/bin'\n"})
    step = f"rv_activate {'apptainer' if kind == 'image' else chr(39) * 2} {place}/{where}"
    command = "echo none" if kind == "conda" else "python"
    done = job(place, command, step, f"rv_variables {place}/user.env")
    says = {
        "conda": ("none\n", ""),
        "interpreter": ("ours\n", f"rvstate: python is {place}/opt/python3.99\n"),
        "image": ("entered\n", f"rvstate: python is that of {place}/image.sif\n"),
    }[kind]
    assert (done.stdout, done.stderr) == says


def test_of_several_programs_on_a_node_one_says_it(place: Path) -> None:
    """Every one is looked at."""
    runkit.write(place, {"env/bin/python": "#!/bin/sh\necho ours\n"}, executable=True)
    step = f"rv_environment {place}/env"
    first = job(place, "python", step, LOCAL_RANK="0")
    assert first.stderr == f"rvstate: python is {place}/env/bin/python\n"
    (place / "run/claim").unlink()
    assert job(place, "python", step, LOCAL_RANK="1").stderr == ""


def test_an_environment_that_the_first_job_cannot_build_is_named(place: Path) -> None:
    """All of it, or the packages that were left; the program is not started."""
    (place / "lib/lib.sh").write_text("")
    (place / "lib/environment.sh").write_text("main() { return 1; }\n")
    runkit.write(place, {"env/bin/python": ""}, executable=True)
    runkit.write(place, {"env/.rvstate/whole": "", "env/.rvstate/recipe": ""})
    done = job(place, "echo ran", f"rv_environment {place}/env")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the environment could not be built on this node" in done.stderr
    runkit.write(place, {"env/.rvstate/deferred": "a\nb\n"})
    done = job(place, "echo ran", f"rv_environment {place}/env")
    assert "the environment's packages (a b) could not be built" in done.stderr


def test_kept_paths_are_copied_however_the_program_ends(place: Path) -> None:
    """Files and directories of odd names, apart from each other; what is missing is named."""
    for name in ("a/out.txt", "b/out.txt", "-odd name", "dir/x/y"):
        path = place / "snapshot" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    keep = "rv_keep a/out.txt ./b/out.txt '-odd name' dir/x nothing"
    done = job(place, "false", snapshot(place), keep)
    kept = place / "rv/outputs/rv-train-41"
    found = {str(p.relative_to(kept)): p.read_text() for p in kept.rglob("*") if p.is_file()}
    assert found == {n: n for n in ("a/out.txt", "b/out.txt", "-odd name", "dir/x/y")}
    assert "nothing was asked for with -o" in done.stderr
    assert done.returncode == 1


def running(place: Path, command: str, *more: str) -> subprocess.Popen[bytes]:
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "RV_JOB_ID": "41"}
    words = ["bash", str(script(place, command, *more))]
    process = subprocess.Popen(words, env=env, cwd=place, start_new_session=True)
    end = time.monotonic() + 30
    while not (place / "snapshot/up").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("listens", [True, False])
def test_a_term_reaches_the_program_and_its_outputs_are_kept(place: Path, listens: bool) -> None:
    """Cancel or walltime: the program may still save; one that does not listen loses no output."""
    handler = "echo saved >out; exit 3" if listens else ""
    body = f"trap '{handler}' TERM; echo half >out; touch up; while :; do sleep 0.05; done"
    process = running(place, f"sh -c {quote(body)}", snapshot(place), "rv_keep out")
    process.send_signal(signal.SIGTERM)
    kept = place / "rv/outputs/rv-train-41/out"
    end = time.monotonic() + 30
    while not kept.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    if listens:
        assert process.wait() == 3
        assert kept.read_text() == "saved\n"
        assert (place / "run/exit").read_text().split()[0] == "3"
    else:
        assert kept.read_text() == "half\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_user_signal_is_passed_on_and_ends_nothing(place: Path) -> None:
    """`--signal=B:USR1@120` reaches the program, which goes on."""
    body = "trap 'touch got; exit 0' USR1; touch up; while :; do sleep 0.05; done"
    process = running(place, f"sh -c {quote(body)}", snapshot(place))
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 0
    assert (place / "snapshot/got").exists()


def test_a_program_that_ends_as_the_signal_comes_has_its_own_exit_code(place: Path) -> None:
    """The shell hears the warning at the moment in which the program, warned too, has saved."""
    steps = f""". {place}/lib/job.sh
rv_begin {place}/rv {place}/run rv-train
while read -r _; do
    rv_await {sys.executable} -I -S -c "$0"
    echo "ended $rv_status"
done
"""
    code = "import os, signal, time; signal.signal(10, lambda *_: os._exit(0)); "
    code += "print('up', os.getpid(), flush=True); time.sleep(60)"
    clean = {"PATH": os.environ["PATH"], "HOME": str(place), "RV_JOB_ID": "41"}
    ended = set()
    with subprocess.Popen(
        ["bash", "-c", steps, code], stdin=-1, stdout=-1, text=True, env=clean
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        for turn in range(150):
            shell.stdin.write("go\n")
            shell.stdin.flush()
            program = int(shell.stdout.readline().split()[1])
            pause = time.perf_counter() + 0.00001 * (turn % 50)
            os.kill(program, signal.SIGUSR1)
            while time.perf_counter() < pause:
                pass
            os.kill(shell.pid, signal.SIGUSR1)
            ended.add(shell.stdout.readline())
        shell.stdin.close()
    assert ended == {"ended 0\n"}


def test_the_program_has_ordinary_signal_handling(place: Path) -> None:
    """Nothing is ignored that Python would turn into KeyboardInterrupt."""
    code = "from signal import *; print(getsignal(SIGINT), getsignal(SIGTERM) == SIG_DFL)"
    done = job(place, f"python3 -c {quote(code)}")
    assert "default_int_handler" in done.stdout
    assert done.stdout.split()[-1] == "True"


def test_a_second_job_of_one_run_does_nothing(place: Path) -> None:
    """Should a run ever be submitted twice, one of the two goes on; a requeued job does."""
    assert job(place, "touch first").returncode == 0
    assert (place / "run/job").read_text() == "41\n"
    done = job(place, "touch second", RV_JOB_ID="42")
    assert (done.returncode, "is job 41 already" in done.stderr) == (1, True)
    assert not (place / "second").exists()
    assert (place / "run/exit").read_text().split()[0] == "0"
    assert job(place, "touch again").returncode == 0
    assert (place / "again").exists()


def test_an_attempt_after_which_slurm_starts_the_job_again_is_no_end(place: Path) -> None:
    """Its exit code is not the run's, also where the program saved and ended well after TERM."""
    (place / "bin").mkdir()
    scontrol = place / "bin/scontrol"
    scontrol.write_text(
        "#!/bin/sh\n"
        # asked for an array by the number of one element, it tells of all
        "for job in 40 $4; do echo JobId=$job ArrayTaskId=$job Restarts=1 BatchFlag=2; done\n"
    )
    scontrol.chmod(0o755)
    slurm = {"PATH": f"{place}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "41"}
    saved = "bash -c 'trap exit TERM; kill $(ps -o ppid= -p $PPID); sleep 9 & wait'"
    for command in ("false", saved):
        done = job(place, command, **slurm)
        assert "put this job back into its queue" in done.stderr
        assert not (place / "run/exit").exists()
    done = job(place, "false", SLURM_RESTART_COUNT="1", **slurm)
    assert (done.returncode, done.stderr) == (1, "")
    assert (place / "run/exit").read_text().split()[0] == "1"


def test_permission_denied_on_a_shared_snapshot_is_explained(place: Path) -> None:
    """A job that writes to a file of its code is told how to; others are not."""
    log = place / "rv/logs/rv-train-41.err"
    log.write_text("PermissionError: [Errno 13] Permission denied: 'metrics.csv'\n")
    assert "--writable" in job(place, "false", snapshot(place), "rv_read_only").stderr
    assert "--writable" not in job(place, "true", snapshot(place), "rv_read_only").stderr
    assert "--writable" not in job(place, "false", snapshot(place)).stderr
    log.write_text("ValueError\n")
    assert "--writable" not in job(place, "false", snapshot(place), "rv_read_only").stderr


def test_extensions_are_built_in_the_snapshot_or_the_reason_is_said(place: Path) -> None:
    """setup.py build_ext --inplace runs there before the program; a failure ends the job."""
    (place / "snapshot/setup.py").write_text(
        "import sys\nopen('built', 'w').write(' '.join(sys.argv[1:]))\n"
    )
    (place / "env/bin/python").write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit "${NO_SETUPTOOLS:-0}"\nexec python3 "$@"\n'
    )
    (place / "env/bin/python").chmod(0o755)
    steps = (f"rv_environment {place}/env", snapshot(place), "rv_extensions")
    assert job(place, "cat built", *steps).stdout == "--quiet build_ext --inplace"
    done = job(place, "touch ran", *steps, NO_SETUPTOOLS="1")
    assert (done.returncode, "needs setuptools" in done.stderr) == (1, True)


def start(place: Path, number: int) -> subprocess.Popen[str]:
    """The same run as another job, under way."""
    env = {"PATH": os.environ["PATH"], "HOME": str(place), "RV_JOB_ID": str(number)}
    return subprocess.Popen(
        ["bash", str(place / "job.sh")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=place,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("links", [True, False])
def test_of_many_jobs_of_one_run_one_runs_the_program(place: Path, links: bool) -> None:
    """Started at the same moment, also where a file system has no hard links; the others say so."""
    script(place, "sh -c 'echo ran >>ran; sleep 1'", "" if links else "true")
    if not links:
        path = place / "bin"
        path.mkdir()
        (path / "ln").write_text("#!/bin/sh\nexit 1\n")
        (path / "ln").chmod(0o755)
        text = (place / "job.sh").read_text()
        (place / "job.sh").write_text(text.replace("#!/bin/bash", f"PATH={path}:$PATH", 1))
    started = [start(place, number) for number in range(41, 53)]
    ended = [(x.communicate(timeout=60)[1], x.returncode) for x in started]
    assert (place / "ran").read_text() == "ran\n"
    assert sorted(status for _, status in ended) == [0, *[1] * 11]
    owner = (place / "run/claim").read_text().strip()
    assert sum(f"this run is job {owner} already" in said for said, _ in ended) == 11
    assert not list((place / "run").glob(".claim-*"))


def test_a_requeued_job_goes_on(place: Path) -> None:
    """It keeps its number, so the run is its own already."""
    assert job(place, "sh -c 'echo ran >>ran'").returncode == 0
    assert job(place, "sh -c 'echo ran >>ran'").returncode == 0
    assert (place / "ran").read_text() == "ran\nran\n"


def test_a_run_that_was_cancelled_never_starts(place: Path) -> None:
    """Whatever became of its submission; and it claims nothing."""
    (place / "run/cancelled").write_text("1\n")
    done = job(place, "touch ran")
    assert done.returncode == 1
    assert "was cancelled; nothing was run" in done.stderr
    assert not (place / "ran").exists()
    assert not (place / "run/claim").exists()


def element(place: Path, index: int, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one element of a sweep, as task `index - 3` of array job 12."""
    path = script(place, "env", *more)
    text = path.read_text().replace(" rv-train\n", ' rv-train "${1:-0}"\n')
    path.write_text(text)
    known = {"SLURM_JOB_ID": str(50 + index), "SLURM_ARRAY_JOB_ID": "12"}
    known |= {"SLURM_ARRAY_TASK_ID": str(index - 3)}
    return subprocess.run(
        ["bash", str(path), "3"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(place), **known, **env},
        stdin=subprocess.DEVNULL,
        check=False,
    )


SWEEP = ("rv_sweep lr RV_SWEEP_LR 2 1e-3 'a b'", "rv_sweep seed RV_SWEEP_SEED 1 0 1", "rv_array 4")


def test_each_element_has_values_and_directories_of_its_own(place: Path) -> None:
    """Counted from the part's offset; the last parameter changes fastest."""
    done = element(place, 3, *SWEEP)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (found["RV_SWEEP_LR"], found["RV_SWEEP_SEED"]) == ("a b", "1")
    assert (found["RV_ARRAY_INDEX"], found["RV_ARRAY_SIZE"]) == ("3", "4")
    assert found["RV_JOB_ID"] == "12_0"
    assert found["RV_OUTPUT_DIR"] == str(place / "rv/outputs/rv-train-12/3")
    assert found["RV_CHECKPOINT_DIR"] == str(place / "rv/checkpoints/rv-train/3")
    assert (place / "run/elements/3/job").read_text() == "12_0\n"
    assert (place / "run/elements/of-53").read_text() == "3\n"
    assert sorted(os.listdir(place / "run/ended")) == ["3-0", "3-begun"]
    assert not (place / "run/exit").exists()


def test_checkpoints_may_be_named_by_the_parameters(place: Path) -> None:
    """Then another sweep under one name has others, and the same values have the same again."""
    named = (*SWEEP[:2], "rv_array 4 named")

    def where(index: int, *steps: str) -> str:
        done = element(place, index, *steps)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return next(line for line in lines if line.startswith("RV_CHECKPOINT_DIR="))

    first, second = where(3, *named), where(2, *named)
    assert first != second
    assert Path(first.partition("=")[2]).is_dir()
    assert not (place / "rv/checkpoints/rv-train/3").exists()
    shutil.rmtree(place / "run/elements")
    assert where(3, *named) == first
    shutil.rmtree(place / "run/elements")
    assert where(3, SWEEP[0].replace("a b", "other"), *named[1:]) not in (first, second)


def test_one_element_is_run_once(place: Path) -> None:
    """Of two jobs that one element may have become, one goes on; another element is no rival."""
    assert element(place, 3, *SWEEP).returncode == 0
    assert element(place, 4, *SWEEP).returncode == 0
    again = element(place, 3, *SWEEP, SLURM_ARRAY_JOB_ID="13")
    assert (again.returncode, "is job 12_0 already" in again.stderr) == (1, True)


def test_checkpoints_of_other_parameters_are_not_taken_up(place: Path) -> None:
    """A sweep that was changed under one name would go on from the wrong ones."""
    assert element(place, 4, *SWEEP).returncode == 0
    for name in ("claim", "job"):
        (place / "run/elements/4" / name).unlink()
    assert element(place, 4, *SWEEP).returncode == 0
    for name in ("claim", "job"):
        (place / "run/elements/4" / name).unlink()
    other = element(place, 4, SWEEP[0].replace("1e-3", "1e-9"), *SWEEP[1:])
    assert other.returncode == 1
    assert "has checkpoints of lr=1e-3 seed=0, and this is lr=1e-9 seed=0" in other.stderr


SCANCEL = """#!/bin/sh
echo "$0 $*" | sed 's|.*/||' >>"$HOME/ended"
"""


def choices(place: Path) -> None:
    """Several jobs stand for the run, of which one is to run; scancel and scontrol remember."""
    (place / "run/choices").write_text("--partition=a\n--partition=b\n")
    (place / "run/copies").write_text("41,42,43\n")
    os.link(place / "run/copies", place / "run/job")
    (place / "bin").mkdir()
    for name in ("scancel", "scontrol"):
        (place / "bin" / name).write_text(SCANCEL)
        (place / "bin" / name).chmod(0o755)
    text = (place / "job.sh").read_text()
    (place / "job.sh").write_text(text.replace("#!/bin/bash", f"PATH={place}/bin:$PATH", 1))


def test_of_several_jobs_the_first_to_start_ends_the_others(place: Path) -> None:
    """All at once: one program runs, the run is that job, and for nobody it is a failure."""
    script(place, "sh -c 'echo ran >>ran; sleep 1'")
    choices(place)
    started = [start(place, number) for number in (41, 42, 43)]
    ended = [(x.communicate(timeout=60)[1], x.returncode) for x in started]
    assert (place / "ran").read_text() == "ran\n"
    assert [status for _, status in ended] == [0, 0, 0]
    owner = (place / "run/claim").read_text().strip()
    assert (place / "run/job").read_text().strip() == owner
    said = set((place / "ended").read_text().splitlines())
    others = {"41", "42", "43"} - {owner}
    assert said == {f"scancel {n}" for n in others} | {
        f"scontrol update jobid={n} mailtype=NONE" for n in others
    }


def test_of_several_jobs_the_others_end_by_themselves_where_nothing_can_end_them(
    place: Path,
) -> None:
    """A compute node without Slurm's commands: one that starts hours later finds the claim."""
    script(place, "sh -c 'echo ran >>ran'")
    choices(place)
    for name in ("scancel", "scontrol"):
        (place / "bin" / name).unlink()
    for number in (42, 41, 43):
        process = start(place, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert (place / "ran").read_text() == "ran\n"
    assert (place / "run/job").read_text() == "42\n"
