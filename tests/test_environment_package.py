import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rvstate.errors import ConfigError
from rvstate.model.environment import package as environment


def reader(**files: str) -> Callable[[str], str | None]:
    """The files of a project, their names with `__` for a dot and `_of_` for a slash."""
    named = {k.replace("_of_", "/").replace("__", "."): v for k, v in files.items()}
    return named.get


TOML = """
[project]
name = "My.Tool"
version = "1.5"
[project.scripts]
my-tool = "my_tool.cli:main"
"bad/name" = "x:y"
injected = "os:system('x')"
[project.entry-points."my.plugins"]
one = "my_tool.plug:One"
"""


def test_metadata_is_what_importlib_reads(tmp_path: Path) -> None:
    """Version and entry points are found in the files, and the console script runs."""
    found = environment.package(reader(pyproject__toml=TOML))
    assert found is not None
    for name, text in environment.package_files(found, "0"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (distribution,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert (distribution.metadata["Name"], distribution.version) == ("My.Tool", "1.5")
    points = {(point.group, point.name) for point in distribution.entry_points}
    assert ("my.plugins", "one") in points
    assert {p.name for p in (tmp_path / "bin").iterdir()} == {"my-tool"}
    (tmp_path / "my_tool").mkdir()
    (tmp_path / "my_tool/__init__.py").write_text("")
    (tmp_path / "my_tool/cli.py").write_text("def main():\n    print('ran')\n    return 4\n")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bin/my-tool")],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "ran\n")


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject__toml": '[tool.poetry]\nname = "a"\nversion = "2"\nscripts = {a = "a:b"}\n'},
        {
            "setup__py": "",
            "setup__cfg": "[metadata]\nname = a\nversion = 2\n"
            "[options.entry_points]\nconsole_scripts =\n    a = a:b\n",
        },
    ],
)
def test_other_ways_to_declare_a_package_are_read(files: dict[str, str]) -> None:
    """poetry's table and setup.cfg say the same."""
    found = environment.package(reader(**files))
    assert found is not None
    assert (found.name, found.version) == ("a", "2")
    assert found.entry_points == (("console_scripts", (("a", "a:b"),)),)


def test_a_version_that_a_build_would_find_out_comes_from_git() -> None:
    """`attr:` and dynamic versions are no versions."""
    config = "[metadata]\nname = a\nversion = attr: a.__version__\n"
    found = environment.package(reader(setup__py="", setup__cfg=config))
    assert found is not None
    assert found.version == ""
    names = [name for name, _ in environment.package_files(found, "3.dev0+gabc")]
    assert names[0] == "a-3.dev0+gabc.dist-info/METADATA"


def test_what_is_compiled_is_recognised() -> None:
    """setup.py with extensions is built in the snapshot; other compilers are named."""
    plain = environment.package(reader(setup__py="setup(name='x')"))
    built = environment.package(reader(setup__py="setup(ext_modules=cythonize('a.pyx'))"))
    rust = environment.package(
        reader(pyproject__toml='[build-system]\nbuild-backend = "maturin"\n')
    )
    assert plain is not None
    assert built is not None
    assert rust is not None
    assert (plain.extensions, built.extensions) == (False, True)
    assert "maturin" in rust.backend


def test_a_broken_pyproject_is_said() -> None:
    """With the reason, before anything is sent."""
    with pytest.raises(ConfigError, match="not valid TOML"):
        environment.package(reader(pyproject__toml="[project"))


def test_a_src_layout_is_seen_in_the_files() -> None:
    """Only where Python files are below src."""
    assert environment.uses_paths(["src/a/__init__.py"])
    assert not environment.uses_paths(["src/data.csv", "a.py"])
