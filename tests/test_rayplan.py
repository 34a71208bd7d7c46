"""What Ray is told of stages: from the same values as everywhere, in Ray's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import rayplan, stages
from rvstate.errors import ConfigError
from rvstate.model.runtime_env import RuntimeEnv, runtime_env
from rvstate.model.stage import Pipeline, declared, pipeline
from rvstate.staging import Verdict


def environment(table: dict[str, Any], **files: str) -> RuntimeEnv:
    """A stage's environment as it is declared."""
    found = runtime_env(table, "a test", {f"{k}.txt": v for k, v in files.items()}.get)
    assert found is not None
    return found


def made(tables: dict[str, Any], backend: Any = "ray-data") -> Pipeline:
    """A pipeline of these tables."""
    return pipeline("p", declared(tables, "rvstate.toml", lambda _: None), backend)


def test_the_keys_are_rays_own() -> None:
    """pip and uv with their packages and options, and the variables; nothing for nothing."""
    pip = environment({"pip": {"packages": ["B == 1", "a"], "options": ["--pre"]}})
    assert rayplan.runtime_env(pip) == {
        "pip": {
            "packages": ["a", "b==1"],
            "pip_install_options": ["--disable-pip-version-check", "--pre"],
        },
        "config": {"setup_timeout_seconds": 1800},
    }
    uv = environment({"uv": ["a"], "env_vars": {"X": "1"}})
    assert rayplan.runtime_env(uv)["uv"] == {"packages": ["a"], "uv_pip_install_options": []}
    assert rayplan.runtime_env(uv)["env_vars"] == {"X": "1"}
    assert rayplan.runtime_env(environment({"env_vars": {"X": "1"}})) == {"env_vars": {"X": "1"}}
    assert rayplan.runtime_env(None) == rayplan.runtime_env(RuntimeEnv()) == {}


@given(st.permutations(["packaging==24.0", "numpy>=2", "torch==2.5"]))
def test_order_and_spelling_make_no_second_environment(packages: list[str]) -> None:
    """Ray's own key goes by the text of the list, so the text is always the same."""
    one = environment({"uv": packages})
    other = environment({"uv": ["Torch == 2.5", "packaging==24.0", "NumPy >=2"]})
    assert rayplan.runtime_env(one) == rayplan.runtime_env(other)


def test_of_a_requirements_file_the_contents_count() -> None:
    """Ray takes a file that was edited for the one that it was."""
    one = rayplan.runtime_env(environment({"uv": "more.txt"}, more="packaging==24.0\n"))
    assert one["uv"]["packages"] == ["packaging==24.0"]
    two = rayplan.runtime_env(environment({"uv": "more.txt"}, more="packaging==23.2\n"))
    assert one != two


def test_copies_are_counted_by_what_differs() -> None:
    """Variables alone need no copy of the environment, and equal packages share one."""
    tables = {
        "a": {"command": "x", "runtime_env": {"uv": ["p==1", "q==1"]}},
        "b": {"command": "x", "runtime_env": {"uv": ["q==1", "p==1"]}},
        "c": {"command": "x", "runtime_env": {"env_vars": {"A": "1"}}},
        "d": {"command": "x", "runtime_env": {"pip": ["p==1"]}},
        "e": {"command": "x"},
    }
    assert rayplan.copies(made(tables).stages) == 2
    assert rayplan.copies(made({"e": tables["e"]}).stages) == 0


class Step(stages.Stage):
    """A stage of Python."""

    def process(self, batch: list[Any]) -> list[Any]:
        """Give back what comes in."""
        return batch


def test_python_stages_in_a_row_are_a_chain() -> None:
    """A command stands between two chains; the second one reads what the first has left."""
    parts = [Step("a"), Step("b", num_workers=2), stages.Stage("c", command="x"), Step("d")]
    tables = stages.describe(stages.Pipeline("p", parts), "p.py", streams=True)["stages"]
    found = json.loads(rayplan.plan(made(tables), "abcd", 2, ["ray"]))
    assert [[s["name"] for s in chain["stages"]] for chain in found["chains"]] == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]
    assert [chain["reads"] for chain in found["chains"]] == ["", "", "stages/b.jsonl"]
    assert (found["nodes"], found["pins"], found["backend"]) == (2, ["ray"], "ray-data")
    second = found["chains"][0]["stages"][1]
    assert (second["cpus"], second["gpus"], second["num_workers"], second["batch_size"]) == (
        *(1, 0, 2, 1),
    )


def test_only_what_runs_is_in_the_plan() -> None:
    """What is left out is followed by nobody: it is done."""
    tables = {"a": {"command": "x"}, "b": {"command": "x", "after": ["a"]}}
    found = json.loads(rayplan.plan(made(tables), ["b"], 1, []))
    assert [chain["stages"][0]["after"] for chain in found["chains"]] == [[]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("time", "1h"), ("nodes", 2), ("mig", True), ("constraint", "a"), ("exclusive", True)),
        *(("exclude", "n1"), ("preset", "p"), ("sbatch", ["qos=x"]), ("gpu_type", "a100")),
    ],
)
def test_what_only_a_job_can_ask_for_is_refused_of_a_stage(key: str, value: Any) -> None:
    """A worker has its nodes and its time from the job; nothing is left out without a word."""
    tables = {"a": {"command": "x", "resources": {key: value}}}
    with pytest.raises(ConfigError, match=f"Stage a asks for {key}"):
        rayplan.plan(made(tables), ["a"], 1, [])


def test_a_chain_runs_as_a_whole_or_not_at_all() -> None:
    """What passes between its stages is kept nowhere; the others stay as they were decided."""
    parts = [Step("a"), Step("b"), stages.Stage("c", command="x")]
    tables = stages.describe(stages.Pipeline("p", parts), "p.py", streams=True)["stages"]
    found = made(tables)
    skip = Verdict("a", "skip", "same"), Verdict("b", "skip", "same"), Verdict("c", "skip", "same")
    assert rayplan.together(found, skip) == skip
    changed = (skip[0], Verdict("b", "run", "its code has changed"), skip[2])
    decided = rayplan.together(found, changed)
    assert decided == (
        Verdict("a", "run", "it is in one chain with b, which runs"),
        changed[1],
        skip[2],
    )
    last = rayplan.together(found, (skip[0], skip[1], Verdict("c", "run", "it has not run yet")))
    assert [verdict.action for verdict in last] == ["skip", "skip", "run"]
