"""What a project declares becomes a specification whose digest covers all that decides."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError, RefusedError, RvstateError
from rvstate.model.environment import sources
from rvstate.model.environment.spec import EnvironmentSpec, Surroundings, overlooked, spec
from rvstate.model.settings import Environment

PLAIN = Environment()
PYPROJECT = '[project]\nname = "a"\nversion = "1"\ndependencies = ["six"]\n'


def made(
    files: dict[str, str],
    wanted: Environment = PLAIN,
    site: Surroundings = Surroundings(),  # noqa: B008 - frozen
) -> EnvironmentSpec | None:
    def below(path: str) -> dict[str, str]:
        return {n: t for n, t in files.items() if n == path or n.startswith(f"{path}/")}

    return spec(wanted, site, files.get, below)


def digest(
    files: dict[str, str],
    wanted: Environment = PLAIN,
    site: Surroundings = Surroundings(),  # noqa: B008 - frozen
) -> str:
    found = made(files, wanted, site)
    assert found is not None
    return found.digest


def test_a_project_without_requirements_has_no_environment() -> None:
    """Nothing is built for what declares nothing, or only settings of tools."""
    assert made({}) is None
    assert made({"pyproject.toml": "[tool.ruff]\nline-length = 100\n"}) is None
    assert made({"requirements.txt": "a"}, Environment(kind="none")) is None


def test_what_comes_beside_the_declaration_makes_another_environment() -> None:
    """It stands in the recipe as well, where the build reads it; without it all stays as it was."""
    files = {"requirements.txt": "ray[data]\n"}
    with_tools = spec(PLAIN, Surroundings(), files.get, lambda _: {}, ("pip", "virtualenv"))
    without = spec(PLAIN, Surroundings(), files.get, lambda _: {})
    assert with_tools is not None
    assert without is not None
    assert "also pip\nalso virtualenv\n" in with_tools.text
    assert without.digest == digest(files) != with_tools.digest


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({"requirements.txt": "a", "pyproject.toml": PYPROJECT}, "requirements.txt"),
        ({"uv.lock": "version = 1", "pyproject.toml": PYPROJECT}, "uv.lock"),
        ({"pylock.toml": 'lock-version = "1.0"'}, "pylock.toml"),
        ({"pyproject.toml": PYPROJECT}, "pyproject.toml"),
    ],
)
def test_the_usual_sources_have_an_order(files: dict[str, str], source: str) -> None:
    """As documented, requirements.txt is what counts where there are several."""
    found = made(files)
    assert found is not None
    assert found.sources == (source,)


def test_everything_that_decides_the_result_is_in_the_digest() -> None:
    """Files, includes, kind, interpreter, modules, extras, what is deferred; nothing else."""
    base = {"requirements.txt": "-r more.txt\n-c sub/con.txt\ntorch\n", "more.txt": "a\n"}
    base["sub/con.txt"] = "b==1\n"
    plain = digest(base)
    assert digest(base | {"other.txt": "x"}) == plain
    assert digest(base, Environment(imports=("torch",), build="job")) == plain
    assert digest(base, Environment(backup="/kept")) == plain
    assert digest(base, site=Surroundings(internet=False)) == plain
    different = [
        digest(base | {"requirements.txt": "-r more.txt\n-c sub/con.txt\ntorch==2\n"}),
        digest(base | {"more.txt": "a==2\n"}),
        digest(base | {"sub/con.txt": "b==2\n"}),
        digest(base | {"uv.toml": "offline = true\n"}),
        digest(base, Environment(python="3.12")),
        digest(base, Environment(kind="venv")),
        digest(base, Environment(relocatable=True)),
        digest(base, Environment(deferred=("torch",))),
        digest(base, site=Surroundings(python="miniforge/1")),
        digest(base, site=Surroundings(compiler="gcc/1")),
        digest(base, site=Surroundings(cuda="cuda/1")),
    ]
    assert len({plain, *different}) == 12
    project = {"pyproject.toml": PYPROJECT, "uv.lock": "version = 1"}
    locked = [
        digest(project),
        digest(project, Environment(extras=("x",))),
        digest(project, Environment(groups=("x",))),
        digest(project, Environment(source="pyproject.toml")),
        digest(project | {"uv.lock": "version = 2"}),
    ]
    assert len(set(locked)) == 5


def test_files_that_include_each_other_end() -> None:
    """A circle of includes is read once round."""
    assert digest({"requirements.txt": "-r b.txt\n", "b.txt": "-r requirements.txt\n"})


@pytest.mark.parametrize(
    "line",
    [
        "-r more.txt",
        "-rmore.txt",
        "--requirement=more.txt",
        "--requirement more.txt  # why",
        "-c 'more.txt'",
        "-r \\\nmore.txt",
    ],
)
def test_every_way_to_include_is_understood(line: str) -> None:
    """What is included decides the digest, however it is written."""
    found = made({"requirements.txt": f"{line}\n", "more.txt": "a\n"})
    assert found is not None
    assert found.inputs == ("more.txt", "requirements.txt")


def test_includes_are_relative_to_their_file() -> None:
    """As pip and uv read them."""
    files = {"requirements.txt": "-r sub/a.txt", "sub/a.txt": "-r b.txt", "sub/b.txt": ""}
    found = made(files)
    assert found is not None
    assert found.inputs == ("requirements.txt", "sub/a.txt", "sub/b.txt")


def test_what_is_missing_is_named_with_who_names_it() -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=r"requirements.txt names more.txt"):
        made({"requirements.txt": "-r more.txt\n"})
    with pytest.raises(ConfigError, match=r"source is gone.txt"):
        made({}, Environment(source="gone.txt"))


@pytest.mark.parametrize("line", ["-e .", "--editable=.", ".", "./", "-e .[dev,more]"])
def test_the_project_itself_is_never_installed(line: str) -> None:
    """It is imported from each job's snapshot; what it needs is installed."""
    found = made({"requirements.txt": f"{line}\nsix\n", "pyproject.toml": PYPROJECT})
    assert found is not None
    assert found.sources == ("requirements.txt", "pyproject.toml")
    extras = tuple(value for key, value in found.recipe if key == "extra")
    assert extras == (("dev", "more") if "[" in line else ())


def test_a_local_package_decides_by_its_files() -> None:
    """Every file below it; as editable it could change under a job, so that is refused."""
    files = {"requirements.txt": "./libs/foo\n", "libs/foo/setup.py": "1", "libs/foo/x.py": "1"}
    assert digest(files) != digest(files | {"libs/foo/x.py": "2"})
    with pytest.raises(RefusedError, match="editable"):
        made(files | {"requirements.txt": "-e ./libs/foo\n"})
    with pytest.raises(RefusedError, match="outside the project"):
        made({"requirements.txt": "../libs/foo\n"})


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Environment(kind="poetry"), "which is none"),
        (Environment(kind="existing"), "does not say where"),
        (Environment(path="./x", source="requirements.txt"), "to be built"),
        (Environment(source="/etc/x"), "not a path in the project"),
        (Environment(extras=("a b",)), "is no name"),
        (Environment(imports=("a;b",)), "is no module"),
        (Environment(extras=("x",)), "has none"),
        (Environment(python="3\n"), "line break"),
        (Environment(kind="conda"), "has no environment.yml"),
        (Environment(path="~/envs/x"), "~ is not expanded"),
        (Environment(backup="~/kept"), "not an absolute path"),
        (Environment(backup="kept"), "not an absolute path"),
        (Environment(kind="venv", relocatable=True), "none that can be moved"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(wanted: Environment, says: str) -> None:
    """Each by name."""
    with pytest.raises(ConfigError, match=says):
        made({"requirements.txt": "a"}, wanted)


def test_nodes_without_internet_build_nothing_alone() -> None:
    """They could fetch nothing."""
    wanted = Environment(build="job")
    assert made({"requirements.txt": "a"}, wanted) is not None
    with pytest.raises(ConfigError, match="reach no package index"):
        made({"requirements.txt": "a"}, wanted, Surroundings(internet=False))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("environment.yml", 'only with kind = "conda"'),
        ("setup.py", "setup.py is not read"),
        ("Pipfile", "Pipfile is not read"),
    ],
)
def test_what_may_have_been_meant_is_said(name: str, says: str) -> None:
    """A file that declares an environment for others, where nobody chose to have none."""
    files: Callable[[str], str | None] = {name: ""}.get
    assert says in overlooked(PLAIN, files)
    assert overlooked(Environment(kind="none"), files) == ""
    assert overlooked(PLAIN, {"README": ""}.get) == ""


@pytest.mark.parametrize("name", ["pylock.toml", "pylock.gpu.toml", "locks/pylock.toml"])
def test_a_lock_brings_the_files_that_it_names(name: str) -> None:
    """Relative to the lock; addresses are nobody's files."""
    lock = (
        'lock-version = "1.0"\n[[packages]]\nname = "a"\nwheels = [{ path = "w/a.whl" }]\n'
        '[[packages]]\nname = "b"\ndirectory = { path = "b" }\n'
        '[[packages]]\nname = "c"\narchive = { url = "https://example.org/c.zip" }\n'
    )
    here = name.rpartition("pylock")[0]
    files = {name: lock, f"{here}w/a.whl": "1", f"{here}b/setup.py": "2", "other.py": "3"}
    found = made(files, Environment(source=name))
    assert found is not None
    assert found.inputs == tuple(sorted(files.keys() - {"other.py"}))


def test_a_path_is_only_activated() -> None:
    """Nothing is built for an environment that is there."""
    found = made({"requirements.txt": "a"}, Environment(path="./envs/x"))
    assert found is not None
    assert (found.managed, found.path, found.digest) == (False, "./envs/x", "")


def test_dynamic_dependencies_bring_their_files() -> None:
    """What setuptools reads them from decides."""
    text = PYPROJECT.replace('dependencies = ["six"]', 'dynamic = ["dependencies"]') + (
        '[tool.setuptools.dynamic]\ndependencies = {file = ["deps.in"]}\n'
    )
    files = {"pyproject.toml": text, "deps.in": "six\n", "setup.cfg": "[metadata]\n"}
    found = made(files)
    assert found is not None
    assert found.inputs == ("deps.in", "pyproject.toml", "setup.cfg")


def test_a_conda_file_brings_its_pip_section() -> None:
    """`- -r requirements.txt` under pip is an input."""
    files = {"environment.yml": "dependencies:\n  - pip:\n    - -r r.txt\n", "r.txt": "six\n"}
    found = made(files, Environment(kind="conda"))
    assert found is not None
    assert found.inputs == ("environment.yml", "r.txt")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No requirements file ends in a bug, and none changes its digest by being read."""
    files: dict[str, str] = {"requirements.txt": text, "pyproject.toml": PYPROJECT}
    read: Callable[[str], str | None] = files.get
    try:
        found = sources.inputs("requirements.txt", read, lambda _: {})
    except RvstateError:
        return
    assert found.files["requirements.txt"] == text


def test_the_recipe_reads_back() -> None:
    """One `key value` a line; the digest first."""
    wanted = replace(PLAIN, python="3.12", deferred=("Flash-Attn",))
    found = made({"requirements.txt": "a"}, wanted, Surroundings(compiler="gcc/11"))
    assert found is not None
    lines = found.text.splitlines()
    assert lines[0] == f"digest {found.digest}"
    assert {"kind uv", "python 3.12", "compiler gcc/11", "deferred flash-attn"} <= set(lines)
