"""Stages: what is declared, in which order it can run, and what cannot be right about it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import config
from rvstate.errors import ConfigError
from rvstate.model import stage as stages
from rvstate.model.settings import Defaults, Settings
from rvstate.model.stage import Pipeline, Resources, Stage, pipeline
from rvstate.request import Request
from rvstate.workflows.pipeline.stagejobs import one_type


def read(name: str) -> str | None:
    """The project's files: one of requirements."""
    return "Torch==2.4\n" if name == "requirements-train.txt" else None


def declared(tables: dict[str, Any]) -> tuple[Stage, ...]:
    return stages.declared(tables, "rvstate.toml", read)


def test_a_table_says_all_of_a_stage() -> None:
    """Each key becomes the value of that name; a text is a command of one word."""
    (found,) = declared(
        {
            "train": {
                "command": ["python", "train.py"],
                "resources": {"gpus": 1, "time": "2h", "exclusive": True, "sbatch": ["qos=low"]},
                "after": ["prepare"],
                "inputs": ["./data//features/", "/project/shared"],
                "outputs": ["model/"],
                "code": ["train.py"],
                "runtime_env": {"pip": "requirements-train.txt", "env_vars": {"A": "1"}},
                "batch_size": 4,
                "num_workers": 2,
            }
        }
    )
    assert found.runtime_env is not None
    assert found.runtime_env.layered
    assert found == Stage(
        "train",
        ("python", "train.py"),
        Resources(gpus=1, time="2h", exclusive=True, sbatch=("qos=low",)),
        ("prepare",),
        ("data/features", "/project/shared"),
        ("model",),
        ("train.py",),
        found.runtime_env,
        4,
        2,
        ("model",),
    )
    (plain,) = declared({"a": {"command": "a.py --lr 1"}})
    assert plain == Stage("a", ("a.py", "--lr", "1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.py", ("train.py",)),
        ("train.py --name 'a b'", ("train.py", "--name", "a b")),
        ("A=1 python train.py", ("A=1", "python", "train.py")),
        ("make data && python train.py", ("make data && python train.py",)),
        ("echo $HOME", ("echo $HOME",)),
        ("echo 'open", ("echo 'open",)),
    ],
)
def test_a_text_is_split_where_no_shell_is_needed(text: str, words: tuple[str, ...]) -> None:
    """So `train.py --lr 1` means what it means behind `rvstate run`."""
    assert declared({"a": {"command": text}})[0].command == words


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "stages.a.command is missing"),
        ({"command": " "}, "names no command"),
        ({"command": []}, "names no command"),
        ({"command": "x", "afer": ["b"]}, "stages.a.afer"),
        ({"command": "x", "resources": {"gpu": 1}}, "stages.a.resources.gpu"),
        ({"command": "x", "resources": {"gpus": "1"}}, "should be a whole number"),
        ({"command": "x", "inputs": ["../x"]}, "stages.a.inputs"),
        ({"command": "x", "inputs": ["~/x"]}, "stages.a.inputs"),
        ({"command": "x", "outputs": ["/x"]}, "stages.a.outputs"),
        ({"command": "x", "outputs": ["."]}, "stages.a.outputs"),
        ({"command": "x", "outputs": [""]}, "stages.a.outputs"),
        ({"command": "x", "outputs": ["a\nb"]}, "stages.a.outputs"),
        ({"command": "x", "outputs": [".rvstate/x"]}, "stages.a.outputs"),
        ({"command": "x", "batch_size": 0}, "at least 1|is 0"),
        ({"command": "x", "runtime_env": {"conda": []}}, "runtime_env of stage a"),
        ({"command": "x", "runtime_env": {"uv": "no.txt"}}, "no.txt"),
        ("x", "is not a table"),
    ],
)
def test_what_cannot_be_right_names_its_key(table: Any, message: str) -> None:
    """Before anything is sent, with the key and the file."""
    with pytest.raises(ConfigError) as error:
        declared({"a": table})
    import re

    assert re.search(message, error.value.message), error.value.message
    assert error.value.remedy


@pytest.mark.parametrize("name", ["", "a..b", "-a", ".a", "a/b", "a b", "é", "a:uv", "x" * 61])
def test_names_that_would_mean_something_else_are_refused(name: str) -> None:
    """`..` is a range, `:` an environment, `/` a directory."""
    with pytest.raises(ConfigError, match="cannot be a stage's name"):
        pipeline("p", (Stage(name),))


def test_stages_stand_behind_what_they_need() -> None:
    """By `after`, and by outputs that are read; else in the order of declaration."""
    found = pipeline(
        "p",
        (
            Stage("evaluate", inputs=("model/best.pt",)),
            Stage("train", inputs=("features",), outputs=("model",)),
            Stage("other"),
            Stage("features", outputs=("features/a", "features/b")),
            Stage("report", after=("evaluate", "other")),
        ),
    )
    assert found.names == ("other", "features", "train", "evaluate", "report")
    assert found.needs(found.stage("train")) == ("features",)
    assert found.behind("train") == ("train", "evaluate", "report")
    assert found.behind("other") == ("other", "report")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((Stage("a"), Stage("a")), "two stages a"),
        ((Stage("train"), Stage("b", after=("trian",))), "no such stage"),
        ((Stage("a", after=("b",)), Stage("b", after=("a",))), "a follows b follows a"),
        ((Stage("a", after=("a",)),), "a follows a"),
        ((Stage("c"), Stage("a", inputs=("x",), outputs=("y",)),
          Stage("b", inputs=("y/1",), outputs=("x/2",))), "a follows b follows a"),
        ((Stage("a", outputs=("x",)), Stage("b", outputs=("x/y",))), "both make"),
        ((Stage("a", inputs=("x",), outputs=("x/y",)),), "reads x and makes x/y"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_said(made: tuple[Stage, ...], message: str) -> None:
    """Two of one name, nobody of that name, circles, an output of two."""
    with pytest.raises(ConfigError, match=message):
        pipeline("p", made)


def test_an_unknown_stage_is_answered_with_the_nearest() -> None:
    """Wherever a name is given."""
    found = pipeline("p", (Stage("featurise"), Stage("train")))
    with pytest.raises(ConfigError) as error:
        found.stage("featurize")
    assert error.value.remedy == "Did you mean featurise?"


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_order_of_declaration_runs(count: int, chance: random.Random) -> None:
    """Whatever the order in which stages without a circle are declared, none stands too early."""
    made = [
        Stage(f"s{n}", after=tuple(f"s{m}" for m in range(n) if chance.random() < 0.4))
        for n in range(count)
    ]
    chance.shuffle(made)
    found: Pipeline = pipeline("p", made)
    seen: set[str] = set()
    for stage in found.stages:
        assert {*stage.after} <= seen
        seen.add(stage.name)
    assert seen == {f"s{n}" for n in range(count)}


def test_both_files_of_a_project_may_declare_stages(tmp_path: Path) -> None:
    """`[stages.NAME]` and `[tool.rvstate.stages.NAME]`; what holds nothing else is no setting."""
    (tmp_path / "rvstate.toml").write_text('[stages.a]\ncommand = "a.py"\n')
    (tmp_path / "pyproject.toml").write_text(
        '[tool.rvstate.stages.b]\ncommand = "b.py"\n[tool.rvstate.defaults]\ntime = "1h"\n'
    )
    found = config.load(project=tmp_path)
    assert [(x.name.rpartition("/")[2], list(x.table)) for x in found.stages] == [
        ("rvstate.toml", ["a"]),
        ("pyproject.toml", ["b"]),
    ]
    assert found.settings.defaults.time == "1h"
    (tmp_path / "rvstate.toml").write_text("stages = 3\n")
    with pytest.raises(ConfigError, match=r"stages in .* is not a table"):
        config.load(project=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.py --lr 'a b'", ("train.py", "--lr", "a b")),
        ("cd sub", ("cd sub",)),
        ("exit 3", ("exit 3",)),
        (". ./setup.sh", (". ./setup.sh",)),
        ("exitcode.py 3", ("exitcode.py", "3")),
        ("./x.py", ("./x.py",)),
    ],
)
def test_what_only_a_shell_knows_is_left_to_one(text: str, words: tuple[str, ...]) -> None:
    """A word at the beginning that is no program."""
    assert declared({"a": {"command": text}})[0].command == words


def test_a_stage_gets_the_only_type_of_gpu_that_serves() -> None:
    """Where several would, they are named: no job can follow several of which one runs."""
    uva, settings = config.load_site("uva"), Settings(defaults=Defaults(time="2:00:00"))
    with pytest.raises(ConfigError, match="left open which type") as error:
        one_type(Request(gpus=1), settings, uva)
    assert "gpu_type in its resources" in error.value.remedy
    assert "a6000, a40" in error.value.remedy
    found = one_type(Request(gpus=1, partition="gpu-a40"), settings, uva)
    assert found == Request(gpus=1, partition="gpu-a40", gpu_type="a40")
    for asked in (Request(), Request(gpus=1, gpu_type="a100"), Request(mig=True)):
        assert one_type(asked, settings, uva) == asked
