"""The program that looks into a new environment: what it tries, what it need not try again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvstate import assets
from tests import envkit, runkit

BODY = "import os\nopen(os.environ['TRIED'], 'a').write(__name__ + '\\n')\n"
USER = (
    BODY + "import other\ntry:\n    import extra\nexcept ImportError:\n    print('@@loaded no')\n"
)


class Site:
    """Environments of one project, as directories that Python imports from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = 0
        runkit.write(root, {"check.py": assets.program("check_environment")})

    def run(self, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(place),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TRIED": str(self.root / "tried"),
        }
        argv = [sys.executable, str(self.root / "check.py"), *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    def tried(self, status: int = 0, **bodies: str) -> set[str]:
        """Which of user and other a new environment with these packages tries."""
        self.number += 1
        place = self.root / f"envs/main/{self.number}"
        for name, body in bodies.items():
            envkit.unpacked(place, name, body)
        kept = place / ".rvstate/imported"
        kept.parent.mkdir()
        seen = self.root / "tried"
        seen.write_text("")
        words = ("imports", str(kept), str(self.root / "envs"), "named", "user")
        done = self.run(place, *words)
        assert done.returncode == status, done.stderr
        return {*seen.read_text().split()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "a [place]")


def test_what_a_neighbour_imported_is_not_tried_again(site: Site) -> None:
    """Whatever else is in either of them."""
    assert site.tried(user=USER, other=BODY) == {"user", "other"}
    assert site.tried(user=USER, other=BODY, third=BODY) == set()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"user": USER, "other": f"{BODY}#"}, 0),
        ({"user": f"{USER}#", "other": BODY}, 0),
        ({"user": USER, "other": BODY, "extra": ""}, 0),
        ({"user": USER}, 1),
    ],
    ids=["same-version-other-files", "itself", "one-came", "one-went"],
)
def test_it_is_tried_again_where_what_it_saw_differs(
    site: Site, changed: dict[str, str], status: int
) -> None:
    """What it loaded, and what it looked for in vain; versions say nothing about that."""
    site.tried(user=USER, other=BODY)
    assert "user" in site.tried(status, **changed)


def test_another_interpreter_tries_all_again(site: Site) -> None:
    """A module of the site brings another Python."""
    site.tried(user=USER, other=BODY)
    kept = site.root / "envs/main/1/.rvstate/imported"
    text = kept.read_text()
    assert " python=" in text
    kept.write_text(text.replace(" python=", " python=0"))
    assert site.tried(user=USER, other=BODY) == {"user", "other"}


def test_what_failed_is_tried_again(site: Site) -> None:
    """Nothing is kept of it."""
    assert site.tried(1, user=USER)
    assert site.tried(1, user=USER)


def test_a_package_without_one_of_its_files_is_named(site: Site) -> None:
    """A purge took it out of the cache before it was linked."""
    for name in ("whole", "hollow"):
        envkit.unpacked(site.root / "place", name, BODY)
    (site.root / "place/hollow/__init__.py").unlink()
    named = site.run(site.root / "place", "spoiled").stdout.split()
    assert ("hollow" in named, "whole" in named) == (True, False)
