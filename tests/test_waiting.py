"""DVC's own queue on this machine: what of it travels, and what does not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import experiment, overrides, waiting
from rvstate.errors import ConfigError, RvstateError
from rvstate.model.experiment import Asked
from rvstate.request import Request
from rvstate.workflows.dvc import run_all
from rvstate.workflows.run.order import Order, ordered
from tests import runkit

TOKEN = "isat_5ecret"
# As DVC 3.67 packs it.
PLAIN: dict[str, Any] = {
    "run_env": {"DVC_STUDIO_TOKEN": TOKEN},
    "targets": [],
    "single_item": False,
    "force": False,
    "dry": False,
    "interactive": False,
    "pipeline": False,
    "pull": False,
    "all_pipelines": False,
    "downstream": False,
    "recursive": False,
    "on_error": "fail",
    "force_downstream": False,
    "allow_missing": False,
}


def packed(**values: Any) -> bytes:
    """How an experiment was queued."""
    return pickle.dumps({"args": (), "kwargs": {**PLAIN, **values}})


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A project with DVC."""
    return runkit.repository(tmp_path / "app", {"p.yaml": "lr: 1\n", ".dvc/config": ""})


def queue(root: Path, name: str, lr: str, data: bytes | None = None, place: str = ".dvc") -> str:
    """Queue an experiment as DVC does it; its commit."""
    base = runkit.git(root, "rev-parse", "HEAD").strip()
    (root / "p.yaml").write_text(f"lr: {lr}\n")
    file = root / place / "tmp" / "repro.dat"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(packed() if data is None else data)
    runkit.git(root, "add", "--all", "--force")
    tree = runkit.git(root, "write-tree").strip()
    commit = runkit.git(root, "commit-tree", "-p", base, "-m", name, tree).strip()
    runkit.git(root, "reset", "--quiet", "--hard")
    said = f"commit: dvc-exp:{base}:{base}:{name}"
    runkit.git(root, "update-ref", "--create-reflog", "-m", said, "refs/exps/celery/stash", commit)
    return commit


def test_the_queue_is_read_in_its_order(app: Path) -> None:
    """Each with its own files, its baseline, and how it was queued."""
    base = runkit.git(app, "rev-parse", "HEAD").strip()
    queue(app, "one", "2")
    queue(app, "two", "3", packed(force=True, targets=["train", "a b"], on_error="keep-going"))
    found = waiting.waiting(app)
    assert [one.name for one in found] == ["one", "two"]
    assert {one.baseline for one in found} == {base}
    assert [runkit.git(app, "show", f"{one.files}:p.yaml") for one in found] == [
        "lr: 2\n",
        "lr: 3\n",
    ]
    assert found[0].words == ()
    assert found[1].words == ("--force", "--keep-going", "--", "train", "a b")
    assert runkit.git(app, "status", "--porcelain") == ""


def test_what_holds_a_token_stays_here(app: Path) -> None:
    """It is in no object that the commits lead to, in a subdirectory's DVC either."""
    queue(app, "one", "2")
    queue(app, "two", "3", place="sub/.dvc")
    found = waiting.waiting(app)
    top = waiting.gathered(app, (one.files for one in found))
    objects = runkit.git(app, "rev-list", "--objects", top)
    assert "repro.dat" not in objects
    for line in objects.splitlines():
        assert TOKEN not in runkit.git(app, "cat-file", "-p", line.split(" ")[0])
    assert all(one.files in objects for one in found)


def test_a_queue_is_the_same_commits_each_time(app: Path) -> None:
    """So a run that is taken up again finds them on the cluster."""
    queue(app, "one", "2")
    first = waiting.waiting(app)
    assert waiting.waiting(app) == first
    files = [one.files for one in first]
    assert waiting.gathered(app, files) == waiting.gathered(app, files)


def test_no_queue_is_an_empty_one(app: Path) -> None:
    """Where DVC has queued nothing yet there is no such reference."""
    assert waiting.waiting(app) == ()


def _twice(root: Path) -> None:
    queue(root, "one", "2")
    queue(root, "one", "3")


def _elsewhere(root: Path) -> None:
    commit = queue(root, "one", "2")
    base = runkit.git(root, "rev-parse", "HEAD").strip()
    said = f"commit: dvc-exp:{commit}:{base}:two"
    runkit.git(root, "commit", "--quiet", "--allow-empty", "-m", "other")
    other = runkit.git(root, "rev-parse", "HEAD").strip()
    runkit.git(root, "update-ref", "-m", said, "refs/exps/celery/stash", other)


def _odd(root: Path) -> None:
    commit = queue(root, "one", "2")
    runkit.git(root, "update-ref", "-d", "refs/exps/celery/stash")
    words = ("--create-reflog", "-m", "something else", "refs/exps/celery/stash", commit)
    runkit.git(root, "update-ref", *words)


@pytest.mark.parametrize(
    "make",
    [
        _twice,
        _elsewhere,
        _odd,
        lambda root: queue(root, "one", "2", packed(new_option=True)),
        lambda root: queue(root, "one", "2", packed(interactive=True)),
        lambda root: queue(root, "one", "2", b""),
        lambda root: queue(root, "one", "2", b"not a pickle"),
        lambda root: queue(root, "one", "2", pickle.dumps([1])),
    ],
)
def test_what_cannot_be_run_as_it_was_queued_is_refused(
    app: Path, make: Callable[[Path], object]
) -> None:
    """With a way out, and before anything is sent."""
    make(app)
    with pytest.raises(RvstateError) as caught:
        waiting.waiting(app)
    assert "dvc queue remove" in caught.value.remedy


class Trap:
    """What runs a command when it is unpacked."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it was run')",))


def test_nothing_that_was_packed_is_run(app: Path) -> None:
    """Plain values are read, and nothing is called."""
    with pytest.raises(ConfigError):
        waiting.words("one", pickle.dumps({"kwargs": {"targets": [Trap()]}}))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_targets_stay_what_they_are(targets: list[str]) -> None:
    """Whatever they look like: an option, an override."""
    found = waiting.words("one", packed(targets=targets, force=True))
    assert found == ("--force", *(("--", *targets) if targets else ()))
    assert [argument.option for argument in overrides.read(found)] == ["--force"]


def order(root: Path, *words: str) -> Order:
    """What a user asks for."""
    return Order((*experiment.WORDS, *words), Request(), None, (), root, dvc=Asked())


def test_run_all_takes_the_whole_queue(app: Path) -> None:
    """As an array, of which `-j` run at once; a receipt tells all of it again."""
    queue(app, "one", "2")
    queue(app, "two", "3")
    found = run_all.with_queue(order(app, "--run-all", "-j", "2"))
    assert found.dvc is not None
    assert [one.name for one in found.dvc.queued] == ["one", "two"]
    assert found.array == "%2"
    assert run_all.with_queue(order(app, "--run-all")).array == ""
    assert run_all.with_queue(order(app, "-S", "a=1")).dvc == Asked()
    import json
    from dataclasses import asdict

    told = {"words": ["dvc"], "request": {}, "name": None, "keep": [], "writable": False}
    said = json.loads(json.dumps({**told, "subdirectory": "", "dvc": asdict(found.dvc)}))
    assert ordered({"order": said}, app).dvc == found.dvc


@pytest.mark.parametrize("words", [("train",), ("-S", "a=1"), ("-f",), ("--", "x"), ("--name=y",)])
def test_run_all_takes_nothing_else(app: Path, words: tuple[str, ...]) -> None:
    """What is queued runs as it was queued, so another word would be lost."""
    queue(app, "one", "2")
    for given_words in (("--run-all", *words), (*words, "--run-all")):
        if given_words[0] == "--":
            continue
        with pytest.raises(ConfigError) as caught:
            run_all.with_queue(order(app, *given_words))
        assert "--queue" in caught.value.remedy


def test_an_empty_queue_is_said(app: Path) -> None:
    """With how it is filled."""
    with pytest.raises(ConfigError) as caught:
        run_all.with_queue(order(app, "--run-all"))
    assert "--queue" in caught.value.remedy


def test_only_queueing_is_told_from_running() -> None:
    """A message that says so is none."""
    assert run_all.is_queueing(("-S", "a=1", "--queue"))
    assert not run_all.is_queueing(("-m", "--queue"))


@pytest.mark.parametrize("words", [("--queue", "-m", "x"), ("--queue", "-Cdata")])
def test_what_the_queue_does_not_keep_is_refused(app: Path, words: tuple[str, ...]) -> None:
    """DVC gives it to its own worker only."""
    with pytest.raises(ConfigError):
        run_all.queue_here(app, words)
