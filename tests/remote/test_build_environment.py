import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rvstate import archive
from rvstate.script import Script
from tests import runkit
from tests.runkit import Ran, run

UV = """#!/bin/sh
# uv, as far as build_environment.sh can tell
echo "$@" >>"${0%/*}/calls"
case "$1 $2" in
    "venv "*)
        for last; do :; done
        mkdir -p "$last/bin" &&
            printf '#!/bin/sh\\n[ "$1" != --version ] || echo Python 3.99\\n' \\
                >"$last/bin/python" &&
            chmod 755 "$last/bin/python" ;;
    "pip install")
        [ ! -e "${0%/*}/refuse" ] || { echo "no such package: torch9" >&2; exit 1; }
        for word; do case $word in *.txt) cat "$word" >>"${0%/*}/installed" ;; esac; done ;;
    "pip check") [ ! -e "${0%/*}/contradict" ] || { echo "a needs b" >&2; exit 1; } ;;
esac
"""
RECIPE = "digest {digest}\nkind uv\nsource require ments.txt\nimports named\ninternet yes\n"


class Place:
    """A workspace with requirements, and a uv that remembers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        runkit.write(root, {"tools/uv": UV}, executable=True)
        runkit.write(root, {"work/code/require ments.txt": "torch\n", "work/manifest": "state\n"})

    @property
    def link(self) -> Path:
        return self.root / "envs/app/main"

    def generation(self, digest: str) -> Path:
        return self.root / "envs/app/.generations/main" / digest

    def script(
        self,
        digest: str = "d1",
        state: str = "state",
        token: str = "token",
        backup: Path | str = "",
        recipe: str = RECIPE,
    ) -> Script:
        generation = self.generation(digest)
        return Script(
            "build_environment",
            (
                "build",
                str(generation.parent / "lock"),
                "5",
                str(self.link),
                str(generation),
                str(self.root / "tools/uv"),
                str(self.root / "cache"),
                str(self.root / "work/code"),
                state,
                token,
                str(backup),
            ),
            archive.bundle(
                {"recipe": recipe.format(digest=digest), "check.py": ""},
                {"inputs": ("./require ments.txt",)},
            ),
        )

    def build(self, digest: str = "d1", state: str = "state", dies_at: int | None = None) -> Ran:
        return run(self.script(digest, state), dies_at=dies_at)

    def calls(self) -> list[str]:
        path = self.root / "tools/calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_environment_is_built_checked_stamped_and_linked(place: Place) -> None:
    """In that order; the requirements are the ones of the code."""
    said = place.build().lines
    assert said[-1] == f"built {place.generation('d1')}"
    assert said[0].split()[0] == "size"
    assert place.link.resolve() == place.generation("d1")
    stamp = (place.generation("d1") / ".rvstate-environment").read_text()
    assert stamp.splitlines() == ["d1", "Python 3.99"]
    assert (place.root / "tools/installed").read_text() == "torch\n"


def test_what_the_recipe_adds_comes_from_where_the_rest_does(place: Place) -> None:
    """Behind what is declared, with the indexes of the requirements; a failure is one."""
    (place.root / "work/code/require ments.txt").write_text("--find-links /wheels\ntorch\n")
    recipe = RECIPE + "also pip\nalso virtualenv\n"
    assert run(place.script(recipe=recipe)).status == 0
    installs = [call for call in place.calls() if call.startswith("pip install")]
    options = place.generation("d1") / ".rvstate/options"
    assert installs[-1].endswith(f" --requirement {options} pip virtualenv")
    assert options.read_text() == "--find-links /wheels\n"
    (place.root / "tools/refuse").touch()
    assert run(place.script(digest="d2", recipe=recipe)).status == 1


def test_again_is_a_no_op(place: Place) -> None:
    """A stamped generation is not touched."""
    place.build()
    calls = place.calls()
    assert place.build().status == 0
    assert place.calls() == calls


def test_a_new_generation_leaves_the_old_one_to_its_jobs(place: Place) -> None:
    """The link moves; what a queued job was submitted with stays."""
    place.build()
    place.build("d2")
    assert place.link.resolve() == place.generation("d2")
    assert (place.generation("d1") / "bin/python").exists()


def test_a_missing_link_is_made_again(place: Place) -> None:
    """The documented `rm -rf .../envs/PROJECT/BRANCH` is mended."""
    place.build()
    place.link.unlink()
    place.build()
    assert place.link.resolve() == place.generation("d1")


@pytest.mark.parametrize(
    ("why", "says"), [("refuse", "no such package: torch9"), ("contradict", "a needs b")]
)
def test_a_failed_build_says_why_and_is_no_environment(place: Place, why: str, says: str) -> None:
    """uv's own words come back, no stamp is left, and the next build mends it."""
    (place.root / "tools" / why).touch()
    ran = place.build()
    assert (ran.status, says in ran.errors) == (1, True)
    assert not place.link.exists()
    assert not (place.generation("d1") / ".rvstate-environment").exists()
    (place.root / "tools" / why).unlink()
    assert place.build().status == 0
    assert place.link.resolve() == place.generation("d1")


def test_requirements_of_somebody_elses_code_are_not_installed(place: Place) -> None:
    """The code changed meanwhile: nothing is built under this run's digest."""
    assert place.build(state="another").lines == ["stale"]
    assert place.calls() == []
    assert not place.link.exists()


def test_a_foreign_directory_in_the_links_place_is_left_alone(place: Place) -> None:
    """An environment that somebody made by hand is not removed."""
    runkit.write(place.link, {"bin/python": "mine"})
    ran = place.build()
    assert (ran.status, "not a link of ours" in ran.errors) == (1, True)
    assert (place.link / "bin/python").read_text() == "mine"


def test_killed_at_any_command_the_next_build_mends_it(tmp_path: Path) -> None:
    """kill -9 before every third command: a link never leads to a half-built environment."""
    for number in range(1, 5000, 3):
        place = Place(tmp_path / str(number))
        ran = place.build(dies_at=number)
        if place.link.exists():
            assert (place.link / ".rvstate-environment").read_text().startswith("d1\n"), number
        if ran.status == 0:
            break
        runkit.age_locks(place.root)
        assert place.build().lines[-1].startswith("built"), number
        assert place.link.resolve() == place.generation("d1"), number
        shutil.rmtree(place.root)
    assert number > 200


CONDA = """#!/bin/sh
# conda, as far as its documentation says what `env create` makes
echo "$CONDA_ALWAYS_YES $MAMBA_ALWAYS_YES $*" >>"${0%/*}/calls"
[ ! -e "${0%/*}/refuse" ] || { echo "PackagesNotFoundError: nosuch" >&2; exit 1; }
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/bin" "$2/conda-meta" && touch "$2/conda-meta/history" && cp "$4" "$2/declared"
printf '#!/bin/sh\\n[ "$1" != --version ] || echo Python 3.99\\n' >"$2/bin/python"
chmod 755 "$2/bin/python"
"""


@pytest.mark.parametrize("name", ["conda", "mamba", "micromamba"])
def test_conda_makes_an_environment_without_asking(place: Place, name: str) -> None:
    """From environment.yml into the generation's prefix; a failure has its own words."""
    conda = place.root / "home/bin"
    runkit.write(conda, {name: CONDA}, executable=True)
    runkit.write(place.root / "home", {".bash_profile": f"PATH={conda}:/usr/bin:/bin\n"})
    runkit.write(place.root / "work/code", {"environment.yml": "dependencies: [nosuch]\n"})
    script = place.script()
    recipe = "digest d1\nkind conda\nsource environment.yml\nimports named\n"
    script = replace(
        script,
        payload=archive.bundle(
            {"recipe": recipe, "check.py": ""}, {"inputs": ("./environment.yml",)}
        ),
    )
    (conda / "refuse").touch()
    ran = run(script, env={"HOME": str(place.root / "home")})
    assert (ran.status, "PackagesNotFoundError: nosuch" in ran.errors) == (1, True)
    assert not place.generation("d1").exists()
    (conda / "refuse").unlink()
    ran = run(script, env={"HOME": str(place.root / "home")})
    assert ran.lines[-1] == f"built {place.generation('d1')}", ran.errors
    verb = "create" if name == "micromamba" else "env create"
    last = (conda / "calls").read_text().splitlines()[-1]
    assert last.startswith(f"true true {verb} --prefix {place.generation('d1')} --file ")
    assert (place.generation("d1") / "declared").read_text() == "dependencies: [nosuch]\n"
    assert place.link.resolve() == place.generation("d1")
    runkit.write(place.generation("d1"), {"conda-meta/r-base-4.4.1-h1_0.json": ""})
    said = run(Script("build_environment", ("added", str(place.generation("d1")))))
    assert said.lines == ["added r-base==4.4.1"]


def test_two_at_once_build_once(place: Place) -> None:
    """The second waits, says so, and finds it built."""
    slow(place)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(run, place.script(token="one"))
        wait_for(lambda: place.calls() != [])
        second = pool.submit(run, place.script(token="two"))
        wait_for(lambda: (lock(place).parent / "lock.by-two").exists())
        (place.root / "tools/go").touch()
        ran = (first.result(), second.result())
    assert [one.lines[-1] for one in ran] == [f"built {place.generation('d1')}"] * 2
    assert "waiting for another build" in ran[1].errors
    assert len([call for call in place.calls() if call.startswith("venv")]) == 1
    assert not [p.name for p in lock(place).parent.iterdir() if p.name.startswith("lock")]


def test_one_that_waits_can_be_ended_without_the_one_that_builds(place: Place) -> None:
    """Ctrl-C of one run is no other's."""
    slow(place)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(run, place.script(token="one"))
        wait_for(lambda: place.calls() != [])
        second = pool.submit(run, place.script(token="two"))
        wait_for(lambda: (lock(place).parent / "lock.by-two").exists())
        ended = run(Script("build_environment", ("cancel", str(lock(place)), "two")))
        assert (ended.lines, second.result().status < 0) == (["ended"], True)
        (place.root / "tools/go").touch()
        assert first.result().status == 0
    assert not [p.name for p in lock(place).parent.iterdir() if p.name.startswith("lock")]


def slow(place: Place) -> None:
    """A uv that makes no environment before it is told to, or a minute has passed."""
    uv = place.root / "tools/uv"
    text = uv.read_text().replace(
        "mkdir -p",
        'n=0; until [ -e "${0%/*}/go" ] || [ $((n += 1)) -gt 600 ]; do sleep 0.1; done; mkdir -p',
    )
    uv.write_text(text)


def lock(place: Place) -> Path:
    return place.generation("d1").parent / "lock"


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def test_a_generation_has_a_manifest(place: Place) -> None:
    """It is there before the stamp, and holds what was installed."""
    place.build()
    text = (place.generation("d1") / ".rvstate/manifest").read_bytes()
    assert b"\0./bin/python//ff " in text
    assert text.startswith(b"./.rvstate/check.py//ff ")
    assert text.endswith(b"\0//\0")


def test_what_a_killed_mender_left_is_taken_and_not_built(place: Place) -> None:
    """It died between its two renames: the whole one lies aside."""
    place.build()
    generation, calls = place.generation("d1"), place.calls()
    aside = generation.parent / ".healing/d1"
    aside.parent.mkdir()
    generation.rename(aside)
    assert place.build().lines[-1] == f"built {generation}"
    assert (generation / "bin/python").exists()
    assert place.calls() == calls
    assert not aside.parent.exists()
