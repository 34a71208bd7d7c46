"""Runs of DVC: gates before any connection, what the batch script says, and what goes to DVC."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rvstate import batchscript, config, experiment, git, history, sweep
from rvstate.cli.dvc import run as dvc_run
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.experiment import Asked, Experiment
from rvstate.model.job import JobSpec
from rvstate.model.project import File, Project, Tree
from rvstate.paths import RemotePath
from rvstate.request import Request
from rvstate.shape import Shape
from rvstate.slurm.options import SbatchOptions
from rvstate.workflows.dvc import fitting
from rvstate.workflows.run.launching import launching
from rvstate.workflows.run.order import Order, ordered
from rvstate.workflows.run.receipt import spec_in
from tests import runkit

RV = RemotePath("/scratch/me/.rv")
STORE = RemotePath("/scratch/me/rv-workspaces/app/.repository")
FOUND = Experiment(
    how="snapshot",
    source=STORE,
    commit="a" * 40,
    branch="fea'ture/$x",
    remote="origin",
    url="git@example.org:me/app.git",
    prefix="sub dir/",
    subdirectory="",
    name="O'Hara",
    email="o@example.org",
    store=STORE,
    cache=RemotePath("/scratch/me/.cache/dvc/projects/app"),
    links=("reflink", "copy"),
)
SPEC = JobSpec(
    run_id="20260102-030405-0a1b2c3d",
    options=SbatchOptions(name="rv-dvc", time=3600),
    rv=RV,
    run_directory=RV / "runs/20260102-030405-0a1b2c3d",
    library=RV / "lib/0123456789abcdef",
    command=experiment.WORDS,
    snapshot=RemotePath("/scratch/me/rv-workspaces/app/main/snapshots/rv-dvc-1"),
    sources="src",
    extensions=True,
    dvc=FOUND,
)
# any bytes that an argument may hold, as Python hands them over
WORD = st.binary(max_size=12).map(
    lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)


def read(text: str, function: str) -> list[str]:
    """The arguments with which the script calls a step, as bash reads them."""
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{function} "))
    body = "\n".join(lines[at:])
    shell = f'{function}() {{ printf "%s\\0" "$@"; exit; }}\n{body}\n'
    data = shell.encode("utf-8", "surrogateescape")
    done = subprocess.run(["bash"], input=data, capture_output=True, check=True)
    return [w.decode("utf-8", "surrogateescape") for w in done.stdout.split(b"\0")[:-1]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WORD, max_size=4))
@example(["-S", "model.name='it''s \"$HOME\" `id` $(id)\n\t*?~ \\", "", "-n", "--"])
@example(["=", "then", "rv_end", "#", "!!"])
def test_every_argument_reaches_dvc_byte_for_byte(words: list[str]) -> None:
    """Whatever is in it, through the batch script and bash."""
    spec = replace(SPEC, command=(*experiment.WORDS, *words))
    assert read(batchscript.render(spec), "rv_dvc") == ["yes", *words]


OURS = {
    **dict.fromkeys(("--pull", "--no-pull", "--follow", "--dry-run", "--json", "--mig"), 0),
    **dict.fromkeys(("--time", "-g", "--mode", "--job-name", "--partition", "-A"), 1),
}


def split(args: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Which words are ours, and which are DVC's."""
    assert isinstance(dvc_run, click.Command)
    context = click.Context(dvc_run, info_name="run", resilient_parsing=True)
    dvc_run.parse_args(context, list(args))
    theirs = context.params["arguments"]
    return args[: len(args) - len(theirs)], theirs


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(OURS)), max_size=3),
    st.sampled_from(["-S", "-p", "-f", "-n", "--name", "-j", "train", "--queue", "-Sa.g=1", "-v"]),
    st.lists(WORD | st.sampled_from(sorted(OURS)), max_size=4),
    st.booleans(),
)
def test_options_of_ours_end_at_the_first_other_word(
    ours: list[str], first: str, rest: list[str], dashes: bool
) -> None:
    """From there on everything is DVC's, also what looks like ours."""
    values = {"--mode": "clone", "-g": "2"}
    front = [w for name in ours for w in ([name, values.get(name, "1h")] if OURS[name] else [name])]
    _, theirs = split([*front, *(["--"] if dashes else []), first, *rest])
    assert theirs == (first, *rest)


def test_values_of_ours_are_read_in_every_spelling() -> None:
    """`--time=2h`, `--time 2h`, `-g2`, `-g 2`; and an option of ours needs no `--` behind it."""
    for front in (["--time=2h"], ["--time", "2h"], ["-g2"], ["-g", "2"], ["--no-pull"], []):
        assert split([*front, "-S", "a=1"])[1] == ("-S", "a=1")
    assert split(["--", "--pull", "--"])[1] == ("--pull", "--")
    assert split(["--time", "2h"])[1] == ()


def test_names_that_dvc_has_too_are_dvcs() -> None:
    """`-p`, `-f` and `--name` mean what they mean to `dvc exp run`."""
    own = {name for p in dvc_run.params for name in (*p.opts, *p.secondary_opts)}
    assert not own & {"-p", "-f", "-n", "--name", "-s", "-S", "-j", "-m", "-v", "-q", "-k"}
    assert {"--partition", "--job-name", "--follow"} <= own


def test_the_script_names_each_step() -> None:
    """Odd names survive, and neither imports nor extensions come from the snapshot."""
    spec = replace(
        SPEC,
        dvc=replace(
            FOUND,
            sources="src",
            extensions=True,
            warning=90,
            place=RV / "envs/app/.scripted/0f",
            script="init it.sh",
            venv=".venv",
        ),
    )
    text = batchscript.render(spec)
    told = ["snapshot", STORE, "a" * 40, "fea'ture/$x", "origin", FOUND.url, "sub dir/", ""]
    assert read(text, "rv_dvc_repository") == told
    assert read(text, "rv_dvc_author") == ["O'Hara", "o@example.org"]
    assert read(text, "rv_dvc_package") == ["src", "yes"]
    made = [RV / "envs/app/.scripted/0f", "init it.sh", ".venv"]
    assert read(text, "rv_dvc_environment") == made
    assert read(text, "rv_dvc_warning") == ["90"]
    assert read(text, "rv_directory")[2] == ""
    assert "rv_extensions" not in text
    assert text.index("rv_enter") < text.index("dvc.sh")


def test_the_script_knows_what_is_set() -> None:
    """However it is spelt, and in an array with the element's own values."""
    words: tuple[str, ...] = ("-S", "a=1 'x'", "--set-param=b=2", "-n", "-S", "target")
    spec = replace(SPEC, command=(*experiment.WORDS, *words))
    assert read(batchscript.render(spec), "rv_dvc_parameters") == ["a=1 'x'", "b=2"]
    array = sweep.array("", (("lr", ("1", "2")),), None)
    words = ("-S", "lr={lr}", "-S", "c=3")
    text = batchscript.render(replace(spec, command=(*experiment.WORDS, *words), array=array))
    (line,) = (line for line in text.splitlines() if line.startswith("rv_dvc_parameters "))
    assert line == f"rv_dvc_parameters {sweep.word('lr={lr}', array)} {sweep.word('c=3', array)}"
    assert "rv_dvc_parameters" not in batchscript.render(SPEC)


def test_a_receipt_tells_all_of_it() -> None:
    """What was rendered once can be rendered again from it, names without UTF-8 too."""
    from rvstate.workflows.run.receipt import told

    spec = replace(SPEC, dvc=replace(FOUND, deleted=("gone", "odd\udce9")))
    said: dict[str, Any] = {"spec": told(spec), "dvc": asdict(spec.dvc) if spec.dvc else None}
    import json

    again = spec_in(json.loads(json.dumps(said)))
    assert again == spec
    assert batchscript.render(again) == batchscript.render(spec)
    order = {"words": ["dvc"], "request": {}, "name": None, "keep": [], "writable": False}
    found = {"order": {**order, "subdirectory": "", "dvc": asdict(Asked("clone", False, True))}}
    assert ordered(found, Path("/p")).dvc == Asked("clone", False, True)


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("git@example.org:me/app.git", "git@example.org:me/app.git"),
        ("ssh://git@example.org:22/a", "ssh://git@example.org:22/a"),
        ("ssh://me:secret@example.org/a", "ssh://me@example.org/a"),
        ("https://secret@example.org/a", "https://example.org/a"),
        ("https://me:secret@example.org:8443/a?b", "https://example.org:8443/a?b"),
        ("https://example.org/a", "https://example.org/a"),
        ("/srv/a b.git", "/srv/a b.git"),
        ("file:///srv/a", "file:///srv/a"),
    ],
)
def test_no_password_or_token_of_a_url_travels(url: str, public: str) -> None:
    """The account of ssh is kept, for it is part of the place."""
    assert experiment.public_url(url) == public


def test_a_url_with_a_line_break_is_refused() -> None:
    """It could say something else to who reads lines."""
    with pytest.raises(ConfigError):
        experiment.public_url("https://example.org/\nx")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project with DVC that is pushed."""
    root = runkit.repository(tmp_path / "app", {"a.py": "1\n", "b.py": "2\n", ".dvc/config": ""})
    bare = tmp_path / "bare.git"
    runkit.git(tmp_path, "init", "--quiet", "--bare", str(bare))
    runkit.git(root, "remote", "add", "origin", str(bare))
    runkit.git(root, "push", "--quiet", "origin", "main")
    return root


def checked(root: Path, mode: str = "clone") -> tuple[str, ...]:
    """The gates of that mode."""
    return experiment.check(history.repository(git.inspect(root), "origin"), mode)


def refused(root: Path, mode: str = "clone") -> RefusedError:
    """Why they refuse."""
    with pytest.raises(RefusedError) as caught:
        checked(root, mode)
    assert caught.value.remedy
    return caught.value


def test_what_is_pushed_may_be_cloned(app: Path) -> None:
    """Also from a detached HEAD, a worktree and a subdirectory; what is untracked is named."""
    assert checked(app) == ()
    runkit.git(app, "worktree", "add", "--quiet", "--detach", "../tree")
    assert checked(app.parent / "tree") == ()
    assert history.repository(git.inspect(app.parent / "tree"), "origin").branch is None
    runkit.write(app, {"new.py": "3\n"})
    assert "new.py" in checked(app)[0]
    assert checked(app, "snapshot") == ()


def test_what_is_not_pushed_is_refused_by_name(app: Path) -> None:
    """Each gate names the files, or the commit, and a way out; snapshot mode takes all of it."""
    runkit.write(app, {"a.py": "changed\n"})
    assert "not staged: a.py" in refused(app).message
    runkit.git(app, "add", "a.py")
    assert "not committed: a.py" in refused(app).message
    runkit.git(app, "mv", "b.py", "c.py")
    assert "c.py" in refused(app).message
    runkit.git(app, "commit", "--quiet", "-m", "second")
    commit = runkit.git(app, "rev-parse", "HEAD")[:10]
    error = refused(app)
    assert commit in error.message
    assert "git push origin main" in error.remedy
    assert checked(app, "snapshot") == ()
    runkit.git(app, "push", "--quiet", "origin", "main")
    assert checked(app) == ()


def test_a_project_without_dvc_or_commit_or_remote_is_refused(app: Path) -> None:
    """With the command that mends it."""
    runkit.git(app, "remote", "remove", "origin")
    assert "'origin'" in refused(app).message
    assert checked(app, "snapshot") == ()
    runkit.git(app, "rm", "--quiet", "-r", ".dvc")
    assert "dvc init" in refused(app, "snapshot").remedy
    bare = app.parent / "empty"
    bare.mkdir()
    runkit.git(bare, "init", "--quiet")
    assert "commits" in refused(bare, "snapshot").message


def test_what_a_clone_lacks_is_said_or_refused(app: Path, tmp_path: Path) -> None:
    """Submodules and what git-LFS keeps: fetched by the job where it can, else refused by name."""
    with_lfs = {".gitattributes": "*.bin filter=lfs\n", "big.bin": "1"}
    runkit.repository(tmp_path / "library", {"lib.py": "1\n"})
    runkit.git(app, "submodule", "--quiet", "add", str(tmp_path / "library"), "lib dir")
    runkit.write(app, with_lfs)
    runkit.git(app, "add", "--all")
    runkit.git(app, "commit", "--quiet", "-m", "more")
    runkit.git(app, "push", "--quiet", "origin", "main")
    (notice,) = checked(app)
    assert "submodule lib dir" in notice
    assert "big.bin" in notice
    assert checked(app, "snapshot") == ()
    found = history.repository(git.inspect(app), "origin")
    assert experiment.check(found, "snapshot", queued=True) == (notice,)
    for mode, queued in (("clone", False), ("snapshot", True)):
        with pytest.raises(RefusedError) as caught:
            experiment.check(found, mode, offline=True, queued=queued)
        assert "lib dir" in caught.value.message
    assert experiment.check(found, "snapshot", offline=True) == ()
    # a commit of it that only this machine has
    runkit.git(app / "lib dir", "commit", "--quiet", "--allow-empty", "-m", "here")
    runkit.git(app, "commit", "--quiet", "--all", "-m", "newer")
    runkit.git(app, "push", "--quiet", "origin", "main")
    error = refused(app)
    assert "submodule lib dir" in error.message
    assert "git -C 'lib dir' push" in error.remedy


def test_a_shallow_clone_cannot_be_sent(app: Path) -> None:
    """Its history is not here; it can be cloned all the same."""
    runkit.git(app, "commit", "--quiet", "--allow-empty", "-m", "more")
    runkit.git(app, "push", "--quiet", "origin", "main")
    clone = f"file://{app.parent}/bare.git"
    runkit.git(app.parent, "clone", "--quiet", "--depth=1", "--branch=main", clone, "shallow")
    assert "--unshallow" in refused(app.parent / "shallow", "snapshot").remedy
    assert checked(app.parent / "shallow") == ()


def test_the_remote_itself_can_be_asked(app: Path) -> None:
    """What it forgot since the last fetch is not there any more; what is behind its tip is."""
    project = git.inspect(app)
    assert project.commit is not None
    url = "origin"
    assert history.has_commit(project, url, project.commit)
    runkit.git(app, "commit", "--quiet", "--allow-empty", "-m", "more")
    runkit.git(app, "push", "--quiet", "origin", "main")
    assert history.has_commit(project, url, project.commit)
    runkit.git(app, "checkout", "--quiet", "--orphan", "other")
    runkit.git(app, "commit", "--quiet", "-m", "another history")
    runkit.git(app, "push", "--quiet", "--force", "origin", "other:main")
    assert not history.has_commit(project, url, project.commit)


def test_what_was_deleted_is_known_by_name(app: Path) -> None:
    """Staged or not, of the commit and below the project's root only."""
    runkit.write(app, {"sub/x.py": "", "sub/o d\nd.py": "", "sub/pyproject.toml": ""})
    runkit.git(app, "add", "--all")
    runkit.git(app, "commit", "--quiet", "-m", "second")
    (app / "sub" / "o d\nd.py").unlink()
    runkit.git(app, "rm", "--quiet", "a.py", "sub/x.py")
    inner = git.inspect(app / "sub")
    found = history.repository(inner, "origin")
    assert sorted(found.deleted) == ["o d\nd.py", "x.py"]
    assert found.prefix == "sub/"
    assert found.has_dvc


def test_a_pack_is_a_difference_to_what_is_there(app: Path, tmp_path: Path) -> None:
    """The second one is small, unknown commits on the other side say nothing, all of it arrives."""
    runkit.write(app, {"large.bin": "".join(f"{n * 7919}\n" for n in range(20_000))})
    runkit.git(app, "add", "--all")
    runkit.git(app, "commit", "--quiet", "-m", "large")
    first = runkit.git(app, "rev-parse", "HEAD").strip()
    whole = history.pack(app, first, ())
    runkit.git(app, "commit", "--quiet", "--allow-empty", "-m", "next")
    second = runkit.git(app, "rev-parse", "HEAD").strip()
    more = history.pack(app, second, ("f" * 40, first))
    assert more.size < whole.size / 10
    with pytest.raises(RefusedError):
        history.pack(app, "f" * 40, ())


def test_what_names_a_scripts_environment_is_what_it_reads() -> None:
    """Another script or lock file is another environment; other code is not."""

    def digest(**texts: str) -> str:
        files = {"init.sh": "1", "uv.lock": "1", "train.py": "1", **texts}
        tree = Tree(tuple(File(name, "f", text, 1) for name, text in sorted(files.items())))
        return experiment.script_digest(tree, "init.sh", ("python",))

    plain = digest()
    assert digest(**{"train.py": "2"}) == plain
    assert len({plain, digest(**{"init.sh": "2"}), digest(**{"uv.lock": "2"})}) == 3
    assert digest(**{"sub/requirements-dev.txt": "1"}) != plain
    with pytest.raises(RefusedError):
        experiment.script_digest(Tree(()), "init.sh", ())


def test_links_are_dvcs_words() -> None:
    """A word that DVC does not know would fail in every job."""
    assert experiment.links(("hardlink", "copy")) == ("hardlink", "copy")
    for wrong in (("softlink",), ()):
        with pytest.raises(ConfigError):
            experiment.links(wrong)


@pytest.mark.parametrize(
    ("said", "walltime", "lead"),
    [
        (None, None, 0),
        (None, 100, 0),
        (None, 600, 60),
        (None, 2000, 200),
        (None, 86400, 300),
        ("2m", 600, 120),
        ("10m", 600, 0),
    ],
)
def test_the_warning_fits_the_job(said: str | None, walltime: int | None, lead: int) -> None:
    """Slurm would warn a job at once that is shorter than the warning, so that is not asked for."""
    assert fitting.warning(said, walltime) == lead


def test_a_warning_that_slurm_cannot_give_is_refused() -> None:
    """It looks at the clock every half minute."""
    with pytest.raises(ConfigError):
        fitting.warning("10s", 600)


def test_on_several_nodes_dvc_runs_once(tmp_path: Path) -> None:
    """Its stages start what they need on the others, so no launcher has to be named."""
    order = Order(experiment.WORDS, Request(), None, (), tmp_path, dvc=Asked())
    site = config.load_site("uva")
    found = launching(order, Project(str(tmp_path), "p", ("x",)), Shape(2, 4, True), site)
    assert found.start == ""


def test_outside_git_nothing_is_asked(tmp_path: Path) -> None:
    """And the refusal says what is missing."""
    project = Project(str(tmp_path), "p", ("x",))
    found = history.repository(project, "origin")
    assert found.commit is None


def test_a_remote_that_does_not_answer_is_named(app: Path) -> None:
    """With the way to go on without asking it."""
    project = git.inspect(app)
    assert project.commit is not None
    runkit.git(app, "remote", "set-url", "origin", str(app.parent / "nowhere.git"))
    with pytest.raises(ConfigError) as caught:
        history.has_commit(project, "origin", project.commit)
    assert "Remote origin does not answer" in caught.value.message
    assert "--check-remote" in caught.value.remedy
