"""A run in an environment that lost files is refused before anything is sent."""

from __future__ import annotations

import pytest

from rvstate.errors import RefusedError
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.layout import Account, Layout
from rvstate.model.observed import ObservedState, Present
from rvstate.model.project import Project
from rvstate.paths import RemotePath
from rvstate.workflows.run import environment

WHO = Account("u", 1, RemotePath("/home/u"), RemotePath("/scratch/u"))
LAYOUT = Layout(WHO)
PLACE = LAYOUT.workspace("app", "main")
PYTHON = PLACE.environment / "bin" / "python"


def seen(verified: str | None, leads_to: str = "f") -> ObservedState:
    texts = {PLACE.environment / ".rvstate-environment": "d1\nPython 3\n"}
    if verified is not None:
        texts[PLACE.environment / ".rvstate" / "verified"] = verified
    found = {PYTHON: Present("l", 0o777, 1, 4, "/usr/bin/python3", leads_to)}
    return ObservedState(WHO, {**found}, {}, {**texts}, {}, {}, {})


@pytest.mark.parametrize("verified", [None, "5 sound\n", "5 unknown\n", ""])
def test_one_without_known_damage_is_used(verified: str | None) -> None:
    """Never walked, sound, or not to be told: it is ready."""
    spec = EnvironmentSpec("uv", "d1")
    project = Project("/p", "app", ("me",), branch="main")
    chosen = environment.choose(spec, ("python", "x"), LAYOUT, project, PLACE, seen(verified))
    assert chosen.ready
    assert chosen.generation is not None


def test_a_damaged_one_is_refused() -> None:
    """The remedy is converge, which builds it again."""
    spec = EnvironmentSpec("uv", "d1")
    project = Project("/p", "app", ("me",), branch="main")
    with pytest.raises(RefusedError) as error:
        environment.choose(spec, ("python", "x"), LAYOUT, project, PLACE, seen("5 damaged\n"))
    assert "rvstate converge" in error.value.remedy


def test_one_whose_interpreter_went_is_built_again() -> None:
    """With its module, most often; a shell command gets no environment without a Python either."""
    spec = EnvironmentSpec("uv", "d1")
    project = Project("/p", "app", ("me",), branch="main")
    for words in (("python", "x"), ("bash", "x.sh")):
        chosen = environment.choose(spec, words, LAYOUT, project, PLACE, seen(None, "N"))
        assert not chosen.ready
        assert chosen.generation == LAYOUT.envs / "app/.generations/main/d1"
