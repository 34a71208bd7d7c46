import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.model.layout import Workspace
from rvstate.paths import RemotePath, component

ODD = st.text("aAb-./_x0 é", max_size=12)
ANY = st.text(st.characters(exclude_categories=()), max_size=12)
NAMES = ODD | ANY | st.text("ab/", min_size=75, max_size=90)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("main", "main"),
        ("feature/foo", "feature--foo"),
        ("feature-foo", "feature-foo"),
        ("exp-20240115", "exp-20240115"),
        ("v1.2_x", "v1.2_x"),
    ],
)
def test_ordinary_names_are_kept(name: str, expected: str) -> None:
    """The documented form: / becomes --, and nothing is added."""
    assert component(name) == expected


def test_a_branch_cannot_pose_as_a_detached_head() -> None:
    """The directory of a detached HEAD is never a branch's."""
    assert re.fullmatch(r"detached-1a2b3c4-x[0-9a-f]{8}", component("detached-1a2b3c4"))


@given(NAMES)
def test_a_component_is_safe(name: str) -> None:
    """One directory name, at most 80 safe characters, never hidden, special or reserved."""
    result = component(name)

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", result)
    assert result != "_default"


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_different_names_never_share_a_component(names: list[str]) -> None:
    """Two branches cannot overwrite each other."""
    assert len({component(name) for name in names}) == len(names)


@given(NAMES)
def test_a_component_is_not_another_names_component(name: str) -> None:
    """A branch that is called like the shortened form of another one gets a form of its own."""
    result = component(name)

    assert result == name or component(result) != result or "/" in name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "_default", "/", "-", "é", "日本", ".hidden", "\ud800"]
)
def test_special_names(name: str) -> None:
    """Names that are nothing, or mean something to the file system, get a digest."""
    assert re.search(r"(\A|-)x[0-9a-f]{8}\Z", component(name))


@pytest.mark.parametrize("text", ["", "a", "~/x", "./x", "/a\nb", "/a\0", "/a\x7f"])
def test_paths_that_are_refused(text: str) -> None:
    """Relative paths and control characters never reach a script."""
    with pytest.raises(ConfigError):
        RemotePath(text)


def test_paths_are_normal() -> None:
    """Two spellings of one path are one value."""
    assert RemotePath("//a/./b//c/../d/") == "/a/b/d"
    assert RemotePath("/a") / "/b" / "c" == "/a/b/c"
    assert RemotePath("/") / "a" == "/a"
    assert (RemotePath("/a/b").name, RemotePath("/a/b").parent) == ("b", "/a")
    assert isinstance(RemotePath("/a/b").parent, RemotePath)


@pytest.mark.parametrize(
    ("path", "above", "expected"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/a", "/a/", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
        ("/", "/", True),
    ],
)
def test_is_below(path: str, above: str, expected: bool) -> None:
    """Below means by components, not by characters."""
    assert RemotePath(path).is_below(above) is expected


def test_a_snapshots_path_can_stand_in_a_list_of_paths() -> None:
    """Lists such as PYTHONPATH are parted by colons, which a job's name may hold."""
    place = Workspace(RemotePath("/s/w/p/main"), RemotePath("/s/e"))
    run = "20260102-030405-0a1b2c3d"
    assert place.snapshot("rv-a:p:main", run) == f"/s/w/p/main/snapshots/rv-a_p_main-{run}"
    assert place.snapshot("rv-a", run) == f"/s/w/p/main/snapshots/rv-a-{run}"
