"""Environments with a real uv, on this machine: sources, kinds, hand-made changes, refusals."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rvstate import assets
from tests import envkit
from tests.runkit import Laptop, git, repository, write

UV = str(Path(sys.executable).parent / "uv")
TINY = "--find-links ./dist\n--no-index\n"


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "laptop")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project with an index of its own: what it installs is made here."""
    root = repository(tmp_path / "work/app", {"requirements.txt": f"{TINY}tiny\n", "a.py": ""})
    for name, version in (("tiny", "1.0"), ("other", "1.0"), ("other", "2.0")):
        envkit.wheel(root / "dist", name, version)
    return root


def log(laptop: Laptop, found: dict[str, Any]) -> str:
    """What a job wrote, but for the line that tells of its Python."""
    laptop.await_state(found["run_id"], "COMPLETED", "FAILED")
    errors = re.sub(r"\Arvstate: python is .*\n", "", Path(found["error_log"]).read_text())
    return Path(found["log"]).read_text() + errors


def test_shell_commands_get_what_is_there_and_build_what_is_not(laptop: Laptop, app: Path) -> None:
    """A first `bash train.sh` builds; later ones build nothing; Python is never the system's."""
    write(app, {"train.sh": "command -v python\npython -c 'import tiny; print(tiny.VERSION)'\n"})
    first = laptop.submit("bash", "train.sh", cwd=app)
    generation = first["environment"]
    assert log(laptop, first) == f"{generation}/bin/python\n1.0\n"
    write(app, {"requirements.txt": f"{TINY}tiny\nother\n"})
    for words in (
        ("bash", "train.sh"),
        ("make -v || bash train.sh",),
        ("FOO=1", "bash", "train.sh"),
    ):
        found = laptop.submit(*words, cwd=app)
        assert found["environment"] == generation, words
        assert "requirements have changed" in found["said"]
    for words in (
        ("python", "a.py"),
        ("A=1", "python", "a.py"),
        ("python -c 'import other'",),
        ("python", "-m", "other"),
        ("torchrun", "a.py"),
        ("accelerate", "launch", "a.py"),
        ("deepspeed", "a.py"),
    ):
        found = laptop.submit(*words, cwd=app)
        assert found["environment"] != generation, words
        Path(found["environment"]).parent.parent.parent.joinpath("main").unlink()
        laptop.submit("bash", "train.sh", cwd=app)


@pytest.mark.parametrize("kind", ["uv", "venv", "virtualenv"])
def test_each_kind_is_made_and_has_what_was_asked(laptop: Laptop, app: Path, kind: str) -> None:
    """Of its kind, with pip in it."""
    write(app, {"rvstate.toml": f'[environment]\nkind = "{kind}"\n'})
    words = ("python", "-c", "import tiny, pip, sys; print(sys.prefix)")
    found = laptop.submit(*words, cwd=app)
    assert log(laptop, found) == f"{found['environment']}\n"


def test_a_relocatable_one_works_in_another_place(laptop: Laptop, app: Path) -> None:
    """Its programs find the Python beside them, wherever that is."""
    write(app, {"rvstate.toml": "[environment]\nrelocatable = true\n"})
    found = laptop.submit("python", "-c", "import tiny; print(tiny.VERSION)", cwd=app)
    assert log(laptop, found) == "1.0\n"
    generation = Path(found["environment"])
    moved = generation.rename(app.parent / "moved")
    done = subprocess.run([moved / "bin/pip", "--version"], capture_output=True, text=True)
    assert str(moved) in done.stdout, done


def test_requirements_are_read_as_pip_reads_them(laptop: Laptop, app: Path) -> None:
    """Hashes, continued lines, markers, includes, constraints, addresses, comments; all kept."""
    for name in ("far", "near", "never"):
        envkit.wheel(app / "dist", name)
    far = envkit.wheel(app.parent / "elsewhere", "far", "3.0")
    digest = hashlib.sha256((app / "dist/tiny-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    lines = [
        "# what we need",
        "-r 'more/base.txt'",
        "--constraint=more/limits.txt",
        f"far @ {far.as_uri()}#egg=far   # by its address",
        'never ; python_version < "3"',
        'near>=1 ; sys_platform == "linux"',
    ]
    hashed = f"tiny==1.0 \\\n    --hash=sha256:{digest}\nother\n"
    write(
        app,
        {
            "requirements.txt": TINY + "\n".join(lines),
            "more/base.txt": hashed,
            "more/limits.txt": "other<2\n",
        },
    )
    words = ("python", "-c", "import far, near, other; print(far.VERSION, other.VERSION)")
    found = laptop.submit(*words, cwd=app)
    assert log(laptop, found) == "3.0 1.0\n"
    installed = (Path(found["environment"]) / ".rvstate/installed").read_text()
    assert "never" not in installed
    write(app, {"more/base.txt": hashed.replace(digest, "0" * 64)})
    assert "Hash mismatch" in laptop.run("run", "a.py", cwd=app, status=1).stderr


def test_a_standard_lock_is_installed(laptop: Laptop, app: Path) -> None:
    """pylock.toml, here with a file of the project's own in it; its digest is held."""
    wheel = app / "dist/tiny-1.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = (
        'lock-version = "1.0"\ncreated-by = "a test"\n'
        '[[packages]]\nname = "tiny"\nversion = "1.0"\n'
        f'wheels = [{{ path = "dist/{wheel.name}", hashes = {{ sha256 = "%s" }} }}]\n'
    )
    write(
        app,
        {
            "requirements.txt": None,
            "pylock.here.toml": lock % digest,
            "rvstate.toml": '[environment]\nsource = "pylock.here.toml"\n',
        },
    )
    words = ("python", "-c", "import tiny; print(tiny.VERSION)")
    assert log(laptop, laptop.submit(*words, cwd=app)) == "1.0\n"
    write(app, {"pylock.here.toml": lock % ("0" * 64)})
    assert "Hash mismatch" in laptop.run("run", "a.py", cwd=app, status=1).stderr


def test_what_is_only_activated_or_meant_otherwise(laptop: Laptop, app: Path) -> None:
    """One interpreter and no other; a path where nothing is, and a file nobody reads, are said."""
    words = ("python", "-c", "import sys; print(sys.prefix)")
    found = laptop.submit("--env", sys.executable, *words, cwd=app)
    assert log(laptop, found) == f"{sys.prefix}\n"
    found = laptop.submit("--env", "/no/such", *words, cwd=app)
    assert "there is nothing at /no/such on the login node" in found["said"]
    assert "there is no environment at /no/such" in log(laptop, found)
    write(app, {"requirements.txt": None, "environment.yml": ""})
    assert 'only with kind = "conda"' in laptop.submit("true", cwd=app)["said"]
    assert "conda" not in laptop.submit("--env", "none", "true", cwd=app)["said"]


def test_extras_groups_and_locks(laptop: Laptop, app: Path) -> None:
    """pyproject.toml with an extra and a group; the same from uv.lock, which decides versions."""
    (app / "requirements.txt").unlink()
    write(
        app,
        {
            "pyproject.toml": '[project]\nname = "app"\nversion = "1"\n'
            'requires-python = ">=3.11"\n'
            'dependencies = ["tiny"]\n[project.optional-dependencies]\nx = ["other==1.0"]\n'
            '[dependency-groups]\ng = ["tiny==1.0"]\n'
            '[tool.uv]\nno-index = true\nfind-links = ["./dist"]\n',
            "rvstate.toml": '[environment]\nextras = ["x"]\ngroups = ["g"]\n',
        },
    )
    words = ("python", "-c", "import other, tiny; print(other.VERSION)")
    assert log(laptop, laptop.submit(*words, cwd=app)) == "1.0\n"
    env = {**os.environ, "UV_CACHE_DIR": str(laptop.root / "cache")}
    subprocess.run([UV, "lock", "--quiet"], cwd=app, env=env, check=True)
    found = laptop.submit(*words, cwd=app)
    assert log(laptop, found) == "1.0\n"
    recipe = Path(found["environment"]) / ".rvstate/recipe"
    assert "source uv.lock" in recipe.read_text()


def test_the_project_itself_comes_from_the_snapshot(laptop: Laptop, app: Path) -> None:
    """`-e .` installs what the project needs, never the project."""
    write(
        app,
        {
            "requirements.txt": f"{TINY}-e .\n",
            "pyproject.toml": '[project]\nname = "app"\nversion = "1"\ndependencies = ["tiny"]\n',
            "src/app/__init__.py": "",
        },
    )
    found = laptop.submit("python", "-c", "import app, tiny; print(app.__file__)", cwd=app)
    assert log(laptop, found) == f"{found['snapshot']}/src/app/__init__.py\n"


def test_an_environment_in_the_project_is_found_where_it_lies(laptop: Laptop, app: Path) -> None:
    """`./envs/x`, made over there by hand, is no part of any snapshot and is used all the same."""
    first = laptop.submit("true", cwd=app)
    code = Path(first["snapshot"]).parent.parent / "code"
    subprocess.run([UV, "venv", "--quiet", str(code / "envs/x")], check=True)
    write(app, {"rvstate.toml": '[environment]\npath = "./envs/x"\n'})
    words = ("python", "-c", "import sys; print(sys.prefix)")
    assert log(laptop, laptop.submit(*words, cwd=app)) == f"{code}/envs/x\n"
    write(app, {"rvstate.toml": '[environment]\npath = "./envs/y"\n'})
    assert "there is no environment at" in log(laptop, laptop.submit(*words, cwd=app))
    interpreter = code / "envs/x/bin/python"
    write(app, {"rvstate.toml": f'[environment]\npath = "{interpreter}"\n'})
    assert log(laptop, laptop.submit(*words, cwd=app)) == f"{code}/envs/x\n"


def test_a_conda_prefix_is_activated_with_its_hooks(laptop: Laptop, app: Path) -> None:
    """By name and by path, by the documented layout; conda itself need not be there."""
    laptop.submit("true", cwd=app)
    home = laptop.root / "home"
    laptop.env["HOME"] = str(home)
    prefix = home / "miniforge/envs/science"
    write(
        prefix,
        {
            "conda-meta/history": "",
            "bin/python": '#!/bin/sh\necho "$CONDA_PREFIX $PROJ_DATA"\n',
        },
        executable=True,
    )
    write(prefix, {"etc/conda/activate.d/proj.sh": "export PROJ_DATA=$CONDA_PREFIX/share\n"})
    write(home, {".conda/environments.txt": f"{home}/miniforge\n{prefix}\n"})
    for path in ("science", str(prefix)):
        write(app, {"rvstate.toml": f'[environment]\nkind = "conda"\npath = "{path}"\n'})
        found = laptop.submit("a.py", cwd=app)
        assert log(laptop, found) == f"{prefix} {prefix}/share\n"


def test_nodes_without_internet_find_what_they_build(laptop: Laptop, app: Path) -> None:
    """In the version that is asked for, with what only it needs; no node asks an index."""
    site = (assets.site("local") or "").replace('name = "local"', 'name = "closed"')
    assert "compute_internet = true" in site
    site = site.replace("compute_internet = true", "compute_internet = false")
    write(laptop.home, {"sites/closed.toml": site})
    (laptop.home / "config.toml").write_text('[connection]\nhost = "@local"\nsite = "closed"\n')
    setup = "from setuptools import setup\nsetup(name='needy', version='{}', py_modules=['needy'],"
    folder = app.parent / "index"
    for version in ("1.0", "2.0"):
        text = setup.format(version) + " install_requires=['only'])\n"
        files = {"setup.py": text, "needy.py": f"VERSION = {version!r}\n"}
        envkit.sdist(folder, "needy", files, version)
    envkit.wheel(folder, "only")
    with envkit.index(folder) as (address, asked):
        write(
            app,
            {
                "requirements.txt": f"--extra-index-url {address}\nneedy==1.0\n",
                "rvstate.toml": '[environment]\ndeferred = ["needy"]\n',
            },
        )
        words = ("python", "-c", "import needy, only; print(needy.VERSION, only.VERSION)")
        found = laptop.submit(*words, cwd=app)
        before = len(asked)
        assert log(laptop, found).startswith("1.0 1.0\n")
    assert before > 0
    assert len(asked) == before


def test_a_failed_resolution_stops_before_submission(laptop: Laptop, app: Path) -> None:
    """With the resolver's words; no job, no environment, no stamp."""
    write(app, {"requirements.txt": f"{TINY}nosuchpackage\n"})
    done = laptop.run("run", "a.py", cwd=app, status=1)
    assert "nosuchpackage was not found" in done.stderr
    assert laptop.document("ps")["runs"] == []


def test_what_cannot_be_imported_stops_before_submission(laptop: Laptop, app: Path) -> None:
    """Named; `imports` chooses what is tried; a GPU that is missing is no failure."""
    envkit.wheel(app / "dist", "broken", body="import nosuchmodule\n")
    envkit.wheel(app / "dist", "gpu", body="raise ImportError('libcuda.so.1: cannot open')\n")
    write(app, {"requirements.txt": f"{TINY}broken\n"})
    done = laptop.run("run", "a.py", cwd=app, status=1)
    assert "import broken fails: ModuleNotFoundError" in done.stderr
    write(app, {"rvstate.toml": "[environment]\nimports = []\n"})
    laptop.submit("a.py", cwd=app)
    write(app, {"rvstate.toml": "", "requirements.txt": f"{TINY}gpu\n"})
    assert "import gpu is not certain on this node" in laptop.submit("a.py", cwd=app)["said"]


def test_an_edit_never_reaches_the_cache_or_a_sibling(laptop: Laptop, app: Path) -> None:
    """Shared files are read-only; a forced edit stays out of the next environment."""
    # one address for all, as an index has: what is kept below each environment is not shared
    index = envkit.wheel(app.parent / "index", "tiny").parent
    write(app, {"requirements.txt": f"--no-index\n--find-links {index}\ntiny\n"})
    first = Path(laptop.submit("a.py", cwd=app)["environment"])
    module = next(first.glob("lib/python*/site-packages/tiny/__init__.py"))
    assert module.stat().st_nlink > 1
    shared = [p for p in first.rglob("*") if p.is_file() and not p.is_symlink()]
    assert not [p for p in shared if p.stat().st_nlink > 1 and p.stat().st_mode & 0o222]
    # pip puts new files in the place of old ones, and works on
    subprocess.run([first / "bin/python", "-m", "pip", "-q", "uninstall", "-y", "tiny"], check=True)
    found = laptop.submit("python", "-c", "import tiny; print(tiny.VERSION)", cwd=switched(app))
    assert log(laptop, found) == "1.0\n"
    # an editor that insists
    second = next(Path(found["environment"]).glob("lib/python*/site-packages/tiny/__init__.py"))
    second.chmod(0o644)
    second.write_text("VERSION = 'spoiled'\n")
    third = laptop.submit("python", "-c", "import tiny; print(tiny.VERSION)", cwd=switched(app))
    assert log(laptop, third) == "1.0\n"
    assert "files of tiny in the cache were changed or are missing" in third["said"]


def switched(app: Path) -> Path:
    """The project on a new branch: another environment of the same requirements."""
    name = f"b{len(git(app, 'branch').splitlines())}"
    git(app, "switch", "--quiet", "--create", name)
    return app


def test_what_was_installed_by_hand_stays_and_is_named(laptop: Laptop, app: Path) -> None:
    """It persists, the run that added it says so, and it is named before it is left behind."""
    find = f"--no-index --find-links {app}/dist"
    first = laptop.submit(f"python -m pip install -q {find} other==1.0 >&2", cwd=app)
    log(laptop, first)
    generation = Path(first["environment"])
    laptop.run("logs", first["job_id"])
    assert (generation / ".rvstate/added").read_text() == "other==1.0\n"
    second = laptop.submit("python", "-c", "import other; print(other.VERSION)", cwd=app)
    assert (second["environment"], log(laptop, second)) == (str(generation), "1.0\n")
    write(app, {"requirements.txt": f"{TINY}tiny==1.0\n"})
    for words in (("run", "--dry-run", "a.py"), ("run", "a.py")):
        said = laptop.run(*words, cwd=app).stderr
        assert "will not have what was installed by hand: other==1.0" in said
    assert (generation / ".rvstate/added").exists()
