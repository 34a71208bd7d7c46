"""heal.sh: damaged environments are taken out of use, once, and only those."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rvstate.script import Script
from tests.runkit import KILLED, Ran, run, write


class Place:
    """An environment with the link of its branch."""

    def __init__(self, root: Path) -> None:
        self.link = root / "envs/app/main br"
        self.generation = root / "envs/app/.generations/main br/d1"
        write(self.generation, {".rvstate-environment": "d1\n"})
        write(self.generation, {"bin/python": "#!/bin/sh\n"}, executable=True)
        os.symlink(self.generation, self.link)

    def heal(self, dies_at: int | None = None) -> Ran:
        return run(Script("heal", ("5", str(self.link))), dies_at=dies_at)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_one_that_is_whole_by_now_is_left_alone(place: Place) -> None:
    """Somebody else has built it since the look."""
    assert place.heal().lines == ["done 0 "]
    assert place.link.is_symlink()


@pytest.mark.parametrize("damage", ["stamp", "interpreter", "verified", "gone"])
def test_a_damaged_one_is_taken_out_of_use(place: Place, damage: str) -> None:
    """Neither link nor stamp are left, and the second time there is nothing to do."""
    if damage == "stamp":
        (place.generation / ".rvstate-environment").unlink()
    elif damage == "interpreter":
        (place.generation / "bin/python").unlink()
    elif damage == "verified":
        write(place.generation, {".rvstate/verified": "5 damaged\n"})
    else:
        place.generation.rename(place.generation.with_name("elsewhere"))
    for _ in range(2):
        assert place.heal().lines == ["done 0 "]
        assert not place.link.is_symlink()
        assert not (place.generation / ".rvstate-environment").exists()


def test_what_is_not_ours_is_refused(place: Place, tmp_path: Path) -> None:
    """A link to somewhere else keeps what it leads to."""
    place.link.unlink()
    (tmp_path / "mine").mkdir()
    place.link.symlink_to(tmp_path / "mine")
    ran = place.heal()
    assert ran.status == 1
    assert "which rvstate did not make" in ran.lines[0]
    assert place.link.is_symlink()


def test_killed_anywhere_the_next_one_finishes(tmp_path: Path) -> None:
    """A stamp never outlives the decision, and nothing else is lost."""
    for step in range(1, 400):
        place = Place(tmp_path / str(step))
        write(place.generation, {".rvstate/verified": "5 damaged\n"})
        ran = place.heal(dies_at=step)
        assert place.link.is_symlink() or not (place.generation / ".rvstate-environment").exists()
        assert place.heal().status == 0
        assert not place.link.is_symlink()
        assert (place.generation / "bin/python").exists()
        if ran.status != KILLED:
            return
    raise AssertionError("it never came to its end")
