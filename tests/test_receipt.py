"""What a receipt says of a job is enough to make it again."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.model.environment.spec import EnvironmentSpec
from rvstate.model.job import JobSpec
from rvstate.model.project import PastTree
from rvstate.paths import RemotePath
from rvstate.slurm.options import SbatchOptions
from rvstate.workflows.run.receipt import _values, environment_in, spec_in, told

PLACE = RemotePath("/scratch/me/.rv")
WORDS = st.lists(st.text(max_size=8), max_size=3).map(tuple)
PATHS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=8).map(PLACE.__truediv__)
SPECS = st.builds(
    JobSpec,
    run_id=st.text(max_size=8),
    options=st.builds(
        SbatchOptions,
        name=st.text(max_size=8),
        time=st.none() | st.integers(1, 9),
        gpus=st.none() | st.tuples(st.none() | st.just("a100"), st.integers(1, 4)),
        mail_type=WORDS,
        raw=st.lists(st.tuples(st.text(max_size=4), st.none() | st.text(max_size=4))).map(tuple),
        exclusive=st.booleans(),
        requeue=st.none() | st.booleans(),
    ),
    rv=PATHS,
    run_directory=PATHS,
    library=PATHS,
    command=WORDS,
    variables=st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4))).map(tuple),
    variables_file=st.none() | PATHS,
    environment=st.none() | PATHS,
    activated=WORDS,
    snapshot=st.none() | PATHS,
    read_only=st.booleans(),
    keep=WORDS,
    ranks=st.integers(1, 4),
)


def receipt(spec: JobSpec, environment: EnvironmentSpec | None = None) -> dict[str, object]:
    found = {
        "run_id": "x",
        "spec": told(spec),
        "recipe": _values(environment) if environment else None,
    }
    read: dict[str, object] = json.loads(json.dumps(found))
    return read


@given(SPECS)
def test_a_job_is_the_same_behind_its_receipt(spec: JobSpec) -> None:
    """Every field, paths as paths and lists as tuples."""
    found = spec_in(receipt(spec))
    assert found == spec
    for field in fields(spec):
        assert type(getattr(found, field.name)) is type(getattr(spec, field.name))


@given(st.builds(EnvironmentSpec, kind=st.just("uv"), recipe=st.just((("a", "b"),)), inputs=WORDS))
def test_an_environment_is_the_same_behind_its_receipt(environment: EnvironmentSpec) -> None:
    """What it is built from, to the letter."""
    spec = JobSpec("x", SbatchOptions(), PLACE, PLACE, PLACE, ("true",))
    assert environment_in(receipt(spec, environment)) == environment
    assert environment_in(receipt(spec)) is None


@pytest.mark.parametrize("damage", ["none", "no spec", "more", "less"])
def test_a_receipt_of_another_version_is_refused(damage: str) -> None:
    """One that says nothing of the job, too little, or what is not known here."""
    found = receipt(JobSpec("x", SbatchOptions(), PLACE, PLACE, PLACE, ("true",)))
    spec = found["spec"]
    assert isinstance(spec, dict)
    match damage:
        case "none":
            assert spec_in(found).run_id == "x"
            return
        case "no spec":
            del found["spec"]
        case "more":
            spec["unheard_of"] = 1
        case "less":
            del spec["options"]
    with pytest.raises(ConfigError, match="another version"):
        spec_in(found)


def test_a_tree_of_the_past_says_its_state() -> None:
    """Its files are not known, its state is."""
    assert PastTree("abc").state == "abc"
