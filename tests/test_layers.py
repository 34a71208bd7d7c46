"""Where the layers of stages lie, what a look asks of them, and what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from rvstate import probe
from rvstate.config import load
from rvstate.errors import ConfigError, ConvergeError, RefusedError
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.layout import Account, Layout
from rvstate.model.observed import Absent, Entry, ObservedState, Present
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.paths import RemotePath
from rvstate.script import Answer, Script
from rvstate.state import State
from rvstate.transport import Local
from rvstate.workflows.run import layers
from rvstate.workflows.session import Session
from tests import layerkit

BASE = RemotePath("/scratch/u/.rv/envs/app/.generations/main/d1")
SPEC = EnvironmentSpec("uv", "d1")
ONE = RuntimeEnv("uv", ("six",))
PYTHON = Present("l", 0o777, 1, 7, "/usr/bin/python3", "f")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """One whose account nobody answers."""
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path / "rv"))
    return Session(load(), Local(tmp_path), State(tmp_path / "rv"))


def observed(
    layer: layers.Layer, stamp: str = "", walked: str = "", python: Entry = PYTHON
) -> ObservedState:
    place = layer.place
    return ObservedState(
        Account("u", 1, RemotePath("/home/u"), RemotePath("/scratch/u")),
        {place / "bin" / "python": python},
        {},
        {place / ".rvstate-environment": stamp, place / ".rvstate" / "verified": walked},
        {},
        {},
        {},
    )


def test_what_adds_no_package_is_the_base_itself(session: Session) -> None:
    """No directory, and nothing is asked."""
    for one in (RuntimeEnv(), RuntimeEnv(env_vars=(("A", "1"),))):
        (found,) = layers.layers(session, SPEC, BASE, [one]).values()
        assert (found.key, found.place) == ("", BASE)
        assert layers.questions([found]) == ()
        assert layers.look(session, [found]) == ()
    assert session.transport.commands == 0


def test_equal_ones_are_one_layer(session: Session) -> None:
    """However they are written; variables make no other one, and each is asked for once."""
    same = RuntimeEnv("uv", ("six",), env_vars=(("A", "1"),))
    found = layers.layers(session, SPEC, BASE, [ONE, same, RuntimeEnv("pip", ("six",))])
    assert found[ONE].place == found[same].place == BASE.parent / f"layer-{found[ONE].key}"
    assert len({one.place for one in found.values()}) == 2
    assert len(layers.questions(found.values())) == 6


def test_pins_are_part_of_the_name(session: Session) -> None:
    """What was built while a package might change is not taken when it may not."""
    (found,) = layers.layers(session, SPEC, BASE, [ONE]).values()
    assert found == layerkit.layer(BASE, {"uv": ["six"]})
    assert found.place != layerkit.layer(BASE, {"uv": ["six"]}, pins=()).place
    assert layers.pinned(("B_b", "nvidia.*", "a", "A")) == ("a", "b-b", "nvidia-*")
    with pytest.raises(ConfigError, match="is no name of a package"):
        layers.pinned(("torch==2",))


@pytest.mark.parametrize(
    ("spec", "generation"), [(None, None), (EnvironmentSpec("existing", path="/opt/python"), None)]
)
def test_packages_need_a_base_that_is_built(
    session: Session, spec: EnvironmentSpec | None, generation: RemotePath | None
) -> None:
    """Nothing is ever written to what rvstate did not make."""
    with pytest.raises(ConfigError, match="no environment that rvstate builds"):
        layers.layers(session, spec, generation, [ONE])


@pytest.mark.parametrize(
    ("state", "is_there"),
    [
        ({"stamp": "{}\nPython 3.11\n"}, True),
        ({"stamp": "{}\n", "walked": "5 sound"}, True),
        ({"stamp": "{}\n", "walked": "5 damaged"}, False),
        ({"stamp": "{}\n", "python": Absent()}, False),
        ({"stamp": "{}\n", "python": Present("l", 0, 1, 7, "/gone", "N")}, False),
        ({"stamp": "layer-other\n"}, False),
        ({}, False),
    ],
)
def test_a_layer_is_there_where_nothing_is_known_against_it(
    session: Session, state: dict[str, str], is_there: bool
) -> None:
    """Its stamp, its Python, and the last walk."""
    (found,) = layers.layers(session, SPEC, BASE, [ONE]).values()
    if "stamp" in state:
        state = {**state, "stamp": state["stamp"].format(found.place.name)}
    there = layers.missing([found, found], observed(found, **state)) == ()  # type: ignore[arg-type]
    assert there is is_there
    asked = probe.script("/s", "/h", layers.questions([found])).args
    assert sum(str(found.place) in word for word in asked) == 3


class Answering:
    """A transport that gives one answer."""

    heard = None

    def __init__(self, status: int, body: str, errors: str) -> None:
        self.answer = Answer(status, (("", body.encode()),), errors)

    def run(self, script: Script) -> Answer:
        assert script.name == "layers"
        return self.answer


def build(session: Session, status: int, body: str, errors: str = "") -> layers.Built:
    (found,) = layers.layers(session, SPEC, BASE, [ONE]).values()
    body = body.replace("LAYER", found.place.name).replace("PLACE", found.place)
    given = replace(session, transport=cast("Any", Answering(status, body, errors)))
    account = Account("u", 1, RemotePath("/home/u"), RemotePath("/scratch/u"))
    return layers.build(given, Layout(account), "/uv", (found,), "token", lambda _: None)


def test_what_building_said_is_told(session: Session) -> None:
    """What was built, and what the user should know of it."""
    body = "at LAYER\nnote slow\ndeferred x\nsize 7 2048 1024\nbuilt PLACE\n"
    done = build(session, 0, body)
    assert [one.runtime_env for one in done.layers] == [ONE]
    assert done.notices == (
        "slow",
        "x is built by the stage's first job, on its compute node",
        "a layer has 7 files, 2.0 KiB, of which 1.0 KiB are its own",
    )
    assert build(session, 0, "there PLACE\n").layers == ()


def test_a_failure_names_the_layer_and_has_the_installers_words(session: Session) -> None:
    """Those of uv and of pip, and not more of them than can be read."""
    for words in ("  cause: there is no six.\n", "ERROR: there is no six\n"):
        with pytest.raises(ConvergeError) as caught:
            build(session, 1, "at LAYER\n", f"Using Python\n{words}rvstate: not installed\n")
        assert caught.value.message == (
            "The layer of uv: six could not be built: not installed (there is no six)."
        )
    with pytest.raises(ConvergeError, match=r"could not be built: it is full\.$"):
        build(session, 1, "at LAYER\n", "linking\nrvstate: it is full\n")


def test_a_package_that_must_stay_is_refused(session: Session) -> None:
    """With the remedies; nothing is broken, so it is no failure."""
    refused = "at LAYER\nrefused torch would be 2 and is 1 in the base\n"
    with pytest.raises(RefusedError, match="The layer of uv: six: torch would be 2") as caught:
        build(session, 1, refused, "linking\n")
    assert "pin_to_base" in caught.value.remedy
