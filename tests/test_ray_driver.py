"""How batches pass between pools of workers, with a Ray that answers in any order."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvstate


def loaded() -> ModuleType:
    """The driver, which is shipped as a file and not as a module."""
    path = Path(rvstate.__file__).parent / "remote/ray_driver.py"
    found = importlib.util.spec_from_file_location("ray_driver", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


DRIVER = loaded()


class Method:
    """What `actor.work` is."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def remote(self, batch: list[str]) -> object:
        """Begin a batch; its result is there when `wait` says so."""
        return self.actor.ray.begin(self.actor, batch)


class Actor:
    """A worker that says each item as many times as the first letter tells, with its stage."""

    def __init__(self, ray: Ray, stage: dict[str, Any]) -> None:
        self.ray, self.stage, self.busy = ray, stage, False
        self.work = Method(self)


class Ray:
    """As much of Ray as pools need; what is done first is a matter of chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.results: dict[object, tuple[Actor, list[str]]] = {}

    def begin(self, actor: Actor, batch: list[str]) -> object:
        """One batch at a time for each worker, of its stage's size at most."""
        assert not actor.busy
        assert 0 < len(batch) <= actor.stage["batch_size"]
        actor.busy = True
        ref = object()
        made = [f"{one}{actor.stage['name']}" for one in batch for _ in range(int(one[0]))]
        self.results[ref] = (actor, made)
        return ref

    def wait(self, refs: list[object], timeout: float) -> tuple[list[object], list[object]]:
        """Some of them."""
        ready = self.chance.sample(refs, self.chance.randint(1, len(refs)))
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: object) -> list[str]:
        """What came of a batch."""
        actor, made = self.results.pop(ref)
        actor.busy = False
        return made


def driver(seed: int) -> Any:
    """A driver with that Ray."""
    found = object.__new__(DRIVER.Driver)
    found.ray = Ray(seed)
    found.actor = lambda _, stage: Actor(found.ray, stage)
    return found


@given(
    items=st.lists(st.sampled_from(["0x", "1y", "2z"]), max_size=30),
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_items_come_out_as_they_went_in_whoever_is_faster(
    items: list[str], sizes: list[tuple[int, int]], seed: int
) -> None:
    """Each stage may drop items or make more; none is lost, none comes twice, and all in order."""
    chain = [
        {"name": "abc"[at], "batch_size": size, "num_workers": workers}
        for at, (size, workers) in enumerate(sizes)
    ]
    wanted = items
    for stage in chain:
        wanted = [f"{one}{stage['name']}" for one in wanted for _ in range(int(one[0]))]
    assert driver(seed).by_actors(chain, items) == wanted


def test_a_stage_behind_that_is_slow_is_not_flooded() -> None:
    """At most so many batches for each worker wait in front of a stage, and what is under way."""
    ours = driver(1)
    chain = [
        {"name": "a", "batch_size": 1, "num_workers": 4},
        {"name": "b", "batch_size": 1, "num_workers": 1},
    ]
    most = 0
    begin = DRIVER.Pool.begin

    def watched(self: Any) -> None:
        nonlocal most
        if self.limit == DRIVER.BUFFERED:
            most = max(most, len(self.waiting))
        begin(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRIVER.Pool, "begin", watched)
        made = ours.by_actors(chain, ["1"] * 200)
    assert len(made) == 200
    assert 0 < most <= DRIVER.BUFFERED + 2 * 4


def test_other_versions_of_what_is_pinned_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns fit names however these are spelt; what the base does not have may come."""
    here = DRIVER.versions(["hypothesis", "ruff*", "not-there"])
    assert set(here) == {"hypothesis", "ruff"}
    DRIVER.check_pins("train", here)
    with pytest.raises(RuntimeError, match=r"stage train gets hypothesis .* base .* has 0\.1"):
        DRIVER.check_pins("train", {**here, "hypothesis": "0.1"})


def test_a_chain_follows_what_its_stages_follow_and_not_itself() -> None:
    """Else it would wait for itself."""
    chain = {"stages": [{"name": "a", "after": ["x"]}, {"name": "b", "after": ["a", "y"]}]}
    assert DRIVER.follows(chain) == {"x", "y"}
