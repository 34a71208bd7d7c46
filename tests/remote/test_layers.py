"""layers.sh: layers are links to their base, whole or not there, and made once."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rvstate.script import Script
from rvstate.workflows.run.layers import Layer
from tests import layerkit
from tests.remote.test_build_environment import Place as Environment
from tests.runkit import KILLED, Ran, contents, run, write

PACKAGE = "lib/python3.9/site-packages/big"
# uv over test_build_environment's: what it installs, and what it says that it would
UV = """
case "$1 $2" in
    "pip install")
        for word; do case $word in */.layer.txt) lines=$word ;; esac; done
        [ -n "$lines" ] || exit 0
        case " $* " in *" --dry-run "*) cat "${0%/*}/would" 2>/dev/null; exit 0 ;; esac
        [ ! -e "${0%/*}/clash" ] || { echo "No solution found: torch" >&2; exit 1; }
        root=${4%/bin/python}
        mkdir -p "$root/lib/python3.9/site-packages/added-1.dist-info" ;;
esac
"""


class Place:
    """An environment with something in it."""

    def __init__(self, root: Path) -> None:
        self.environment = Environment(root)
        uv = root / "tools/uv"
        uv.write_text(uv.read_text() + UV)
        assert self.environment.build().status == 0
        self.base = self.environment.generation("d1")
        self.root = root
        write(self.base, {f"{PACKAGE}/__init__.py": "x = 1\n", f"{PACKAGE}/data": "d" * 4096})
        write(self.base, {"bin/tool": f"#!{self.base}/bin/python\n"}, executable=True)
        write(self.base, {".rvstate/installed": "", ".lock": ""})
        self.keep()

    def keep(self) -> None:
        """What is there now is what was built."""
        manifest = f"rv_manifest '{self.base}' '{self.base}/.rvstate/manifest'"
        assert run_lines(manifest).status == 0

    def layer(self, *packages: str) -> Layer:
        return layerkit.layer(self.base, {"uv": packages or ("six",)})

    def build(self, *wanted: Layer, dies_at: int | None = None) -> Ran:
        given = wanted or (self.layer(),)
        uv = self.root / "tools/uv"
        return run(layerkit.script(given, self.root, uv), dies_at=dies_at)

    def layers(self) -> list[str]:
        return sorted(p.name for p in self.base.parent.iterdir() if p.name.startswith("layer-"))


def run_lines(text: str) -> Ran:
    """A line with what travels in front of a build."""
    script = Script("build_environment", ("added", "/none"))
    whole = script.text.replace("rv_run_this() {", f"rv_run_this() {{ {text} || return 1; ", 1)

    class One(Script):
        __slots__ = ()

        @property
        def text(self) -> str:
            return whole

    return run(One(script.name, script.args, b"", script.nonce))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_layer_is_links_to_its_base(place: Place) -> None:
    """Files are shared and read-only, programs name the layer, nothing else lies beside it."""
    before = contents(place.base)
    layer = place.layer()
    said = place.build(layer)
    assert said.lines[-1] == f"built {layer.place}", said.errors
    made = Path(layer.place)
    for name in ("__init__.py", "data"):
        assert (made / PACKAGE / name).samefile(place.base / PACKAGE / name)
        assert not (made / PACKAGE / name).stat().st_mode & 0o222
    assert (made / "bin/tool").read_text() == f"#!{made}/bin/python\n"
    assert (made / "bin/tool").stat().st_mode & stat.S_IXUSR
    assert (made / "lib/python3.9/site-packages/added-1.dist-info").is_dir()
    assert (made / ".rvstate/recipe").read_text().startswith(f"digest {layer.key}\nbase d1\n")
    assert not (made / ".lock").exists()
    assert contents(place.base) == before
    assert place.layers() == [made.name]
    left = {p.name for p in place.base.parent.iterdir()}
    assert left == {"d1", ".d1.kept", made.name, f".{made.name}.kept"}


def test_the_second_time_nothing_is_started(place: Place) -> None:
    """Neither for the same one nor beside another."""
    place.build()
    calls = place.environment.calls()
    assert place.build().lines == [f"there {place.layer().place}"]
    assert place.environment.calls() == calls
    both = place.build(place.layer(), place.layer("attrs")).lines
    assert (both[0], both[-1]) == (
        f"there {place.layer().place}",
        f"built {place.layer('attrs').place}",
    )
    assert len(place.layers()) == 2


def test_two_at_once_build_one(place: Place) -> None:
    """The second waits for the first and finds it."""
    with ThreadPoolExecutor() as pool:
        said = [f.result() for f in [pool.submit(place.build) for _ in range(2)]]
    assert sorted(one.lines[-1].split()[0] for one in said) == ["built", "there"]
    installs = [c for c in place.environment.calls() if ".layer.txt" in c]
    assert len(installs) == 1


def test_killed_anywhere_no_half_layer_is_there(tmp_path: Path) -> None:
    """A layer has its stamp or is not there, the base is as it was, and the next one finishes."""
    for number, step in enumerate((*range(10, 1400, 25), 10**6)):
        place = Place(tmp_path / str(number))
        before = contents(place.base)
        ran = place.build(dies_at=step)
        made = Path(place.layer().place)
        assert made.exists() == (made / ".rvstate-environment").exists()
        assert contents(place.base) == before
        assert place.build().status == 0
        assert (made / PACKAGE / "data").samefile(place.base / PACKAGE / "data")
        assert not (made.parent / ".healing").exists()
        assert not list(made.parent.glob(".inputs*"))
        if ran.status != KILLED:
            assert number > 8
            return


def test_a_base_that_lost_files_gets_no_layer(place: Place) -> None:
    """A layer would have lost them, too; the look finds it damaged from then on."""
    (place.base / PACKAGE / "data").unlink()
    said = place.build()
    assert (said.status, "rvstate converge mends it" in said.errors) == (1, True)
    assert (place.base / ".rvstate/verified").read_text().split()[1] == "damaged"
    assert place.layers() == []


def test_a_base_that_is_gone_gets_no_layer(place: Place) -> None:
    """Somebody pruned it."""
    (place.base / ".rvstate-environment").unlink()
    assert "is not there" in place.build().errors
    assert not (place.base.parent / ".healing").exists()


def test_what_a_killed_mender_had_whole_is_put_in_place_first(place: Place) -> None:
    """It lies where layers are built, too, and the base is nowhere else."""
    healing = place.base.parent / ".healing"
    healing.mkdir()
    place.base.rename(healing / "d1")
    (place.base.parent / ".gone-d1").mkdir()
    assert place.build().status == 0
    assert (place.base / PACKAGE / "data").exists()
    assert place.environment.link.resolve() == place.base


def test_a_failed_layer_says_why_and_leaves_nothing(place: Place) -> None:
    """The installer's words come back; of several, those that were built stay."""
    (place.root / "tools/clash").touch()
    said = place.build()
    assert (said.status, "No solution found" in said.errors) == (1, True)
    assert place.layers() == []
    assert not (place.base.parent / ".healing").exists()
    (place.root / "tools/clash").unlink()
    assert place.build().status == 0


def test_a_package_that_is_pinned_to_the_base_is_refused_with_both_versions(place: Place) -> None:
    """Before it is fetched: the installer is asked what it would take."""
    write(place.base, {".rvstate/installed": "torch==2.4.0\n"})
    (place.base / "lib/python3.9/site-packages/torch-2.4.0.dist-info").mkdir()
    place.keep()
    (place.root / "tools/clash").touch()
    (place.root / "tools/would").write_text(" - torch==2.4.0\n + torch==2.6.0\n + six==1.0\n")
    said = place.build(place.layer("torch==2.6.0"))
    assert said.status == 1
    refused = "refused torch would be 2.6.0 and is 2.4.0 in the base, where pin_to_base keeps it"
    assert said.lines[-1] == refused
    installs = [c for c in place.environment.calls() if ".layer.txt" in c]
    assert "--constraint" in installs[0]
    assert "--dry-run" in installs[1]
    assert place.layers() == []


def test_what_was_installed_by_hand_is_in_no_layer(place: Place) -> None:
    """A key knows nothing of it, so the layer would differ from the next one of that name."""
    (place.base / "lib/python3.9/site-packages/mine-3.dist-info").mkdir()
    said = place.build()
    assert any("mine==3 by hand, which no layer gets" in line for line in said.lines), said
    assert any("pip uninstall" in call for call in place.environment.calls())


def test_a_damaged_layer_is_made_again_with_what_was_added(place: Place) -> None:
    """In its place; jobs find it by the same name."""
    layer = place.layer()
    place.build(layer)
    made = Path(layer.place)
    before = (made / ".rvstate/recipe").read_text()
    (made / PACKAGE / "data").unlink()
    write(made, {".rvstate/verified": "5 damaged\n"})
    (made / "lib/python3.9/site-packages/mine-3.dist-info").mkdir()
    words = ("5", "/none", str(place.root / "cache"), str(layer.place))
    path = f"{place.root / 'tools'}:{os.environ['PATH']}"
    ran = run(Script("heal", words), env={"PATH": path})
    assert ran.lines == ["done 0 it was built again"], ran.errors
    assert (made / PACKAGE / "data").samefile(place.base / PACKAGE / "data")
    assert (made / ".rvstate/recipe").read_text() == before
    asked = [c for c in place.environment.calls() if ".exactly.txt" in c]
    assert len(asked) == 1
    assert run(Script("heal", words), env={"PATH": path}).lines == ["done 0 "]


def test_a_damaged_layer_without_its_base_waits_for_its_pipeline(place: Place) -> None:
    """It loses its stamp, so nothing takes it for whole, and the look does not list it."""
    layer = place.layer()
    place.build(layer)
    made = Path(layer.place)
    (made / PACKAGE / "data").unlink()
    write(made, {".rvstate/verified": "5 damaged\n"})
    place.environment.link.unlink()
    (place.base / ".rvstate-environment").unlink()
    ran = run(Script("heal", ("5", "/none", "/none", str(layer.place))))
    assert ran.lines == [
        "done 0 its environment is not there any more; the next run of its pipeline makes it"
    ]
    assert not (made / ".rvstate-environment").exists()
