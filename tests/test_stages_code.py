"""Pipelines as code: what with_ changes, what composites are, and that code says what tables do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import assets, stages
from rvstate.model.stage import declared
from rvstate.stages import Composite, Pipeline, Stage

PIPELINE = """import os
print("printed while the file is read")
from rvstate.stages import Pipeline, Stage

class Double(Stage):
    batch_size = 2
    runtime_env = {"uv": ["packaging==24.0"]}
    def setup(self):
        self.factor = 2
    def process(self, batch):
        assert len(batch) <= 2
        return [one * self.factor for one in batch]

class Odd(Stage):
    def process(self, batch):
        return [one + 1 for one in batch if one != 4]

class Nothing(Stage):
    def process(self, batch):
        return None

class Bad(Stage):
    def process(self, batch):
        return [object()]

def pipeline():
    return Pipeline("numbers", [Double(), Odd(), Nothing()], items=lambda: range(5))

bad = Pipeline("bad", [Bad()], items=[1])
not_one = 3
"""


class Declared(Stage):
    """A stage with an environment of its own."""

    runtime_env: ClassVar[dict[str, Any] | None] = {"pip": ["packaging==23.2"]}
    resources: stages.Resources = {"cpus": 2}  # noqa: RUF012
    command = "train.py"


def described(stage: Stage) -> dict[str, Any]:
    """The table of a stage that is alone."""
    found: dict[str, Any] = stages.describe(Pipeline("p", [stage]), "p.py")["stages"][stage.name]
    return found


class Adds(Stage):
    """A stage whose author thought of no other `__init__`."""

    def __init__(self, by: int) -> None:
        self.by = by

    def process(self, batch: list[Any]) -> list[Any]:
        """Add."""
        return [one + self.by for one in batch]


def test_a_stage_with_an_init_of_its_own_has_its_name() -> None:
    """That of its class, and what it was made with; a copy and a class below it, too."""

    class More(Adds):
        pass

    assert [part.name for part in Pipeline("p", [Adds(1), More(2)]).parts()] == ["Adds", "More"]
    changed = Adds(3).with_(name="three", num_workers=2)
    assert (changed.name, changed.by, changed.num_workers) == ("three", 3, 2)


def test_with_changes_a_copy_and_leaves_the_original_alone() -> None:
    """Neither the stage nor its class sees what is changed in the copy, however deep it is."""
    original = Declared("a")
    before = stages.describe(Pipeline("p", [original]), "p.py")
    copy = original.with_(
        name="b", resources={"cpus": 9}, batch_size=3, num_workers=4, runtime_env={"uv": ["x==1"]}
    )
    copy.runtime_env["uv"].append("y==1")
    copy.resources["gpus"] = 1
    assert stages.describe(Pipeline("p", [original]), "p.py") == before
    assert Declared("c").runtime_env == {"pip": ["packaging==23.2"]}
    assert (copy.name, copy.batch_size, copy.num_workers) == ("b", 3, 4)
    assert described(copy)["runtime_env"] == {"uv": ["x==1", "y==1"]}


def test_nothing_given_keeps_and_an_empty_environment_is_the_base() -> None:
    """None is "not said"; {} takes the class's environment away; another one replaces it."""
    stage = Declared("a")
    assert stage.with_(name="b").runtime_env == {"pip": ["packaging==23.2"]}
    assert stage.with_(runtime_env=None).runtime_env == {"pip": ["packaging==23.2"]}
    assert "runtime_env" not in described(stage.with_(runtime_env={}))
    other = stage.with_(runtime_env={"pip": ["requests==2.0"]})
    assert other.runtime_env == {"pip": ["requests==2.0"]}


def test_what_is_merged_is_kept_apart_until_it_is_replaced() -> None:
    """How lists are merged is decided in one place, so code only says what is laid over what."""
    merged = Declared("a").with_(runtime_env={"pip": ["b==1"], "merge": True})
    described = stages.describe(Pipeline("p", [merged]), "p.py")
    assert described["stages"]["a"]["runtime_env"] == {"pip": ["packaging==23.2"]}
    assert described["laid"] == {"a": [{"pip": ["b==1"], "merge": True}]}
    assert stages.describe(Pipeline("p", [merged.with_(runtime_env={})]), "p.py")["laid"] == {}


def test_parts_of_composites_are_addressed_by_name_however_deep() -> None:
    """The composite that is changed is a copy too."""
    inner = Composite("inner", [Declared("x"), Declared("y")])
    outer = Composite("outer", [inner, Declared("z")])
    changed = outer.with_({"y": {"runtime_env": {}}, "z": {"name": "last", "num_workers": 2}})
    assert [part.name for part in changed.parts()] == ["x", "y", "last"]
    assert changed.parts()[1].runtime_env == {}
    assert [part.name for part in outer.parts()] == ["x", "y", "z"]
    assert outer.parts()[1].runtime_env == {"pip": ["packaging==23.2"]}


def test_unknown_and_double_names_are_refused() -> None:
    """The nearest is named; a change may not make two of one."""
    pair = Composite("pair", [Declared("first"), Declared("second")])
    with pytest.raises(ValueError, match="no stage frist; did you mean first"):
        pair.with_({"frist": {}})
    with pytest.raises(ValueError, match="two stages second"):
        pair.with_({"first": {"name": "second"}})
    with pytest.raises(ValueError, match="two stages a"):
        Pipeline("p", [Declared("a"), Composite("c", [Declared("a")])]).parts()
    with pytest.raises(TypeError, match="did you mean batch_size"):
        Stage("a", batchsize=1)


def test_a_python_stage_says_how_it_is_run_and_what_it_hands_over() -> None:
    """Its command is a declared one; it reads what the one in front of it leaves."""

    class Step(Stage):
        """A stage of Python."""

        def process(self, batch: list[Any]) -> list[Any]:
            """Give back what comes in."""
            return batch

    tables = stages.describe(Pipeline("p", [Step("a"), Step("b"), Declared("c")]), "p.py:p")
    assert tables["stages"]["a"] == {
        "command": ("python", "-m", "rvstate.stages", "run", "p.py:p", "a"),
        "outputs": ["stages/a.jsonl"],
    }
    assert tables["stages"]["b"]["inputs"] == ["stages/a.jsonl"]
    assert tables["stages"]["b"]["after"] == ["a"]
    assert tables["stages"]["c"]["after"] == ["b"]
    assert "inputs" not in tables["stages"]["c"]


def test_where_stages_stream_only_the_last_in_a_row_leaves_a_file() -> None:
    """A command ends the row, and so does a stage that follows another one than that before it."""

    class Step(Stage):
        """A stage of Python."""

        def process(self, batch: list[Any]) -> list[Any]:
            """Give back what comes in."""
            return batch

    parts = [Step("a"), Step("b"), Declared("c"), Step("d"), Step("e", after=["c"])]
    tables = stages.describe(Pipeline("p", parts), "p.py", streams=True)["stages"]
    files = {name: (t.get("inputs"), t.get("outputs")) for name, t in tables.items()}
    assert files == {
        "a": (None, None),
        "b": (None, ["stages/b.jsonl"]),
        "c": (None, None),
        "d": (["stages/b.jsonl"], ["stages/d.jsonl"]),
        "e": (["stages/d.jsonl"], ["stages/e.jsonl"]),
    }


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
PATHS = st.from_regex(r"[a-z][a-z0-9]{0,5}(/[a-z][a-z0-9]{0,5})?", fullmatch=True)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={
        "uv": st.lists(st.sampled_from(["packaging==24.0", "numpy>=2", "Torch == 2.5"])),
        "env_vars": st.dictionaries(st.sampled_from(["A", "B"]), st.text("abc $", max_size=5)),
        "merge": st.booleans(),
    },
)
TABLES = st.fixed_dictionaries(
    {"command": st.one_of(st.just("train.py --lr 1"), st.lists(NAMES, min_size=1))},
    optional={
        "resources": st.fixed_dictionaries(
            {},
            optional={
                "gpus": st.integers(1, 8),
                "time": st.just("1h"),
                "sbatch": st.lists(st.just("--x")),
            },
        ),
        "inputs": st.lists(PATHS, max_size=2),
        "outputs": st.lists(PATHS, max_size=2),
        "code": st.lists(PATHS, max_size=2),
        "batch_size": st.integers(1, 99),
        "num_workers": st.integers(1, 9),
        "runtime_env": ENVIRONMENTS,
    },
)


@given(tables=st.dictionaries(NAMES, TABLES, max_size=4), by_class=st.booleans())
def test_declaration_and_code_give_the_same_values(
    tables: dict[str, dict[str, Any]], by_class: bool
) -> None:
    """Whatever a table says, the same said in code is the same stage in the end."""
    made = []
    for name, table in tables.items():
        given = {"after": (), **table}
        made.append(type("Made", (Stage,), given)(name) if by_class else Stage(name, **given))
    described = json.loads(json.dumps(stages.describe(Pipeline("p", made), "p.py")))
    said = declared(tables, "rvstate.toml", lambda _: None)
    coded = declared(described["stages"], "p.py", lambda _: None)
    # an environment that adds nothing is the base, said or not
    bare = [(one, one.runtime_env is None or one.runtime_env.empty) for one in said]
    for (one, empty), other in zip(bare, coded, strict=True):
        for field in ("name", "command", "resources", "after", "inputs", "outputs", "code"):
            assert getattr(one, field) == getattr(other, field)
        assert (one.batch_size, one.num_workers) == (other.batch_size, other.num_workers)
        assert one.runtime_env == other.runtime_env or (empty and other.runtime_env is None)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a pipeline, and beside it what comes along with a run."""
    for name, text in assets.pipeline_modules().items():
        path = tmp_path / "python" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/pipeline.py").write_text(PIPELINE)
    return tmp_path


def called(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the module by a Python that has no rvstate and no package at all."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "rvstate.stages", *words],
        cwd=project / "app",
        env={"PYTHONPATH": str(project / "python")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_alone_describes_a_pipeline(project: Path) -> None:
    """It needs no package, and what the user's file prints does not get into the answer."""
    done = called(project, "describe", "pipeline.py")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["name"], list(found["stages"])) == ("numbers", ["Double", "Odd", "Nothing"])
    assert found["stages"]["Double"]["batch_size"] == 2
    assert "printed" in done.stderr
    missing = called(project, "describe", "pipeline.py:not_one")
    assert missing.returncode == 1
    assert "pipeline.py has no pipeline named not_one" in missing.stderr


def test_stages_hand_items_over_as_json(project: Path) -> None:
    """Each reads what the one in front of it left; a stage may drop items, or give none at all."""
    for name in ("Double", "Odd", "Nothing"):
        assert called(project, "run", "pipeline.py", name).returncode == 0
    kept = project / "app/stages"
    assert (kept / "Double.jsonl").read_text().split() == ["0", "2", "4", "6", "8"]
    assert (kept / "Odd.jsonl").read_text().split() == ["1", "3", "7", "9"]
    assert (kept / "Nothing.jsonl").read_text() == ""
    failed = called(project, "run", "pipeline.py:bad", "Bad")
    assert "stage Bad gives something of type object, and only what JSON can hold" in failed.stderr
    assert sorted(p.name for p in kept.iterdir()) == ["Double.jsonl", "Nothing.jsonl", "Odd.jsonl"]


def test_an_installed_rvstate_stays_reachable(project: Path) -> None:
    """What comes along stands in front of it and hides none of its modules."""
    root = Path(assets.__file__).parent.parent
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import rvstate.stages, rvstate.errors; print(rvstate.stages.__file__)",
        ],
        cwd=project,
        env={"PYTHONPATH": f"{project / 'python'}:{root}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(project))
