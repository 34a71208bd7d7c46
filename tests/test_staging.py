"""Which stages run and which are skipped: by content, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import staging
from rvstate.errors import ConfigError, ParseError, RefusedError
from rvstate.model.project import File, Tree
from rvstate.model.runtime_env import RuntimeEnv
from rvstate.model.stage import Resources, Stage, pipeline
from rvstate.script import Answer
from rvstate.staging import Known, Record, Verdict

MAKE = Stage("make", ("make.py",), inputs=("raw",), outputs=("data/a",))
USE = Stage("use", ("use.py",), inputs=("data/a",), outputs=("data/b",))
TELL = Stage("tell", ("tell.py",), after=("use",))
LINE = pipeline("line", (MAKE, USE, TELL))
READS = {"make": ("raw",), "use": ("data/a",), "tell": ()}
KEY = (("code", "c"), ("command", "m"), ("environment", "e"), ("variables", "v"))
KEYS = dict.fromkeys(LINE.names, KEY)
DIGESTS = {"raw": "1", "data/a": "2", "data/b": "3"}


def done(number: int, after: Mapping[str, str], inputs: str, outputs: str) -> Record:
    found = {path: DIGESTS[path] for path in (*inputs.split(), *outputs.split())}
    return Record(
        f"run{number}",
        dict(KEY),
        after,
        {path: found[path] for path in inputs.split()},
        {path: found[path] for path in outputs.split()},
    )


MADE = Known(
    {
        "make": done(1, {}, "raw", "data/a"),
        "use": done(2, {"make": "run1"}, "data/a", "data/b"),
        "tell": done(3, {"use": "run2"}, "", ""),
    },
    DIGESTS,
)


def decide(known: Known, **more: object) -> dict[str, Verdict]:
    asked: dict[str, object] = {
        "chosen": LINE.names,
        "keys": KEYS,
        "reads": READS,
        "known": known,
        "forced": {},
        **more,
    }
    return {v.stage: v for v in staging.decide(LINE, **asked)}  # type: ignore[arg-type]


def ran(found: dict[str, Verdict]) -> list[str]:
    return [name for name, verdict in found.items() if verdict.runs]


def test_what_is_as_it_was_made_is_skipped() -> None:
    """And says since when."""
    found = decide(MADE)
    assert ran(found) == []
    assert found["use"].reason == "nothing has changed since run run2"


@pytest.mark.parametrize(
    ("change", "runs", "stage", "reason"),
    [
        ({"raw": "9"}, ["make", "use", "tell"], "make", "its input raw has changed"),
        ({"data/a": None}, ["make", "use", "tell"], "make", "its output data/a is gone"),
        ({"data/a": "9"}, ["make", "use", "tell"], "make", "data/a was changed since it was made"),
        ({"data/b": "9"}, ["use", "tell"], "use", "data/b was changed since it was made"),
        ({"data/b": None}, ["use", "tell"], "tell", "use runs, which it follows"),
    ],
)
def test_what_a_file_holds_decides(
    change: dict[str, str | None], runs: list[str], stage: str, reason: str
) -> None:
    """Inputs as they were when it began, outputs as they were when it ended."""
    found = decide(replace(MADE, digests={**DIGESTS, **change}))
    assert ran(found) == runs
    assert reason in found[stage].reason


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("code", "the code has changed"),
        ("command", "its command has changed"),
        ("environment", "its environment has changed"),
        ("variables", "its variables have changed"),
    ],
)
def test_what_a_stage_is_decides(word: str, reason: str) -> None:
    """Each part of its key by itself."""
    keys = {**KEYS, "use": tuple((k, "new" if k == word else v) for k, v in KEY)}
    found = decide(MADE, keys=keys)
    assert ran(found) == ["use", "tell"]
    assert found["use"].reason == reason


def test_a_stage_that_never_succeeded_runs() -> None:
    """Whether it never began, or did and was killed."""
    begun = decide(Known({**MADE.records, "use": None}, DIGESTS))
    assert begun["use"].reason == "it has not succeeded since it last began"
    assert ran(begun) == ["use", "tell"]
    never = decide(Known({}, {}))
    assert {v.reason for v in never.values()} == {"it has not run yet"}


def test_a_stage_that_ran_alone_makes_those_run_that_only_follow_it() -> None:
    """Where no file is handed over, a newer success of the one before is all there is to see."""
    newer = replace(MADE.records["use"], run_id="run9")  # type: ignore[type-var]
    found = decide(Known({**MADE.records, "use": newer}, DIGESTS))
    assert ran(found) == ["tell"]
    assert found["tell"].reason == "use has run since, which it follows"
    # a file that came out the same is the same
    newer = replace(MADE.records["make"], run_id="run9")  # type: ignore[type-var]
    assert ran(decide(Known({**MADE.records, "make": newer}, DIGESTS))) == []


def test_only_what_others_make_now_can_make_it_run() -> None:
    """Then its job looks whether that came out as it was; not where there is any other reason."""
    changed = replace(MADE, digests={**DIGESTS, "raw": "9"})
    found = decide(changed)
    # `tell` reads nothing of `use`, so there is nothing that it could compare
    assert [(name, v.unless_same) for name, v in found.items()] == [
        ("make", False),
        ("use", True),
        ("tell", False),
    ]
    keys = {**KEYS, "use": tuple((k, "new" if k == "code" else v) for k, v in KEY)}
    assert not decide(changed, keys=keys)["use"].unless_same
    assert not decide(changed, forced={"use": "--force was given"})["use"].unless_same
    assert not decide(changed, reads={**READS, "use": ("data/a", "raw")})["use"].unless_same
    begun = replace(changed, records={**MADE.records, "use": None})
    assert not decide(begun)["use"].unless_same
    # a stage that it only follows, and that has run since
    both = pipeline("both", (MAKE, replace(USE, after=("tell",)), replace(TELL, after=())))
    found = {v.stage: v for v in staging.decide(both, both.names, KEYS, READS, changed, {})}
    assert (found["use"].runs, found["use"].unless_same) == (True, False)


def test_other_declarations_of_files_count() -> None:
    """A stage that declares one file more has not made it."""
    assert decide(MADE, reads={**READS, "use": ("data/a", "raw")})["use"].runs
    more = replace(USE, outputs=("data/b", "data/c"))
    line = pipeline("line", (MAKE, more, TELL))
    found = staging.decide(line, line.names, KEYS, READS, MADE, {})
    assert found[1].reason == "its outputs are declared otherwise"


def test_what_is_not_selected_is_left_with_its_reason() -> None:
    """It is said that it would have run; what depends on it is judged by the files that are."""
    found = decide(replace(MADE, digests={**DIGESTS, "raw": "9"}), chosen=("use", "tell"))
    assert ran(found) == []
    assert found["make"] == Verdict(
        "make", "leave", "it is not selected, though its input raw has changed"
    )


def test_force_gives_its_own_reason() -> None:
    """From a stage on, or all."""
    found = decide(MADE, forced={"use": "--force was given"})
    assert [(v.action, v.reason) for v in found.values()][1:] == [
        ("run", "--force was given"),
        ("run", "use runs, which it follows"),
    ]


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ((), ("make", "use", "tell")),
        (("use",), ("use",)),
        (("make..use",), ("make", "use")),
        (("use..",), ("use", "tell")),
        (("..make",), ("make",)),
        (("tell", "make"), ("make", "tell")),
    ],
)
def test_stages_are_selected(texts: tuple[str, ...], names: tuple[str, ...]) -> None:
    """One, a range along the plan, several; always in the order of the plan."""
    assert staging.select(LINE, texts) == names


@pytest.mark.parametrize("text", ["..", "mak", "make..usee", "use..make", ""])
def test_a_selection_that_means_nothing_is_refused(text: str) -> None:
    """With the nearest name, or the range the other way round."""
    with pytest.raises(ConfigError) as error:
        staging.select(LINE, (text,))
    assert error.value.remedy


@given(st.text())
def test_a_selection_names_stages_or_is_refused(text: str) -> None:
    """Whatever is typed."""
    try:
        found = staging.select(LINE, (text,))
    except ConfigError:
        return
    assert found
    assert set(found) <= {*LINE.names}


def tree(**files: str) -> Tree:
    return Tree(
        tuple(
            File(name.replace("__", "/").replace("_toml", ".toml"), "f", digest, 1)
            for name, digest in sorted(files.items())
        )
    )


def test_only_the_code_of_a_stage_counts() -> None:
    """All of it, or what is named; a declaration of stages is none."""

    def digest(stage: Stage, **files: str) -> str:
        texts = {"pyproject.toml": files.pop("text", "")}
        return staging.code_digest(stage, tree(**files), texts.get)

    named = Stage("x", code=("lib", "a"))
    assert digest(named, a="1", lib__b="1", c="1") == digest(named, a="1", lib__b="1", c="2")
    assert digest(named, a="1", lib__b="1") != digest(named, a="1", lib__b="2")
    assert digest(named, a="1", ab="1") == digest(named, a="1", ab="2")
    every = Stage("x")
    assert digest(every, a="1", c="1") != digest(every, a="1", c="2")
    assert digest(every, a="1", rvstate_toml="1") == digest(every, a="1", rvstate_toml="2")
    one = "[project]\nname = 'x'\n"
    two = one + "[tool.rvstate.stages.a]\ncommand = 'b'\n"
    three = one + "version = '1'\n"
    found = [digest(every, pyproject_toml=str(n), text=t) for n, t in enumerate((one, two, three))]
    assert found[0] == found[1] != found[2]
    # what cannot be read counts as it is
    assert digest(every, pyproject_toml="1", text="[") != digest(
        every, pyproject_toml="2", text="["
    )


def test_an_input_that_is_sent_is_code() -> None:
    """It is in the snapshot, so its digest is known here."""
    sent = tree(conf__a="1", b="1")
    stage = Stage("x", inputs=("conf", "raw"), code=("b",))
    assert staging.code_inputs(stage, sent) == ("conf",)
    assert staging.data_inputs(stage, sent) == ("raw",)

    def none(_: str) -> None:
        return None

    changed = staging.code_digest(stage, tree(conf__a="2", b="1"), none)
    assert changed != staging.code_digest(stage, sent, none)


def test_code_and_data_do_not_mix() -> None:
    """A name at the top is one of them."""
    stage = Stage("x", inputs=("raw/a", "/abs"), outputs=("data/sub/b", "c.txt"))
    assert staging.links(stage, tree(src="1")) == ("raw", "data", "c.txt")
    with pytest.raises(ConfigError, match="data/keep is sent"):
        staging.links(stage, tree(data__keep="1"))


def test_resources_are_no_part_of_the_key() -> None:
    """More memory makes nothing run; a variable does."""
    sent = tree(a="1")

    def key(stage: Stage) -> staging.Key:
        return staging.key(stage, sent, lambda _: None, ("a",), "e")

    plain = Stage("x")
    assert key(plain) == key(replace(plain, resources=Resources(mem="64G", gpus=1)))
    assert key(plain) == key(replace(plain, runtime_env=RuntimeEnv()))
    assert key(plain) != key(replace(plain, runtime_env=RuntimeEnv(env_vars=(("A", "1"),))))


def test_an_input_that_nobody_makes_is_refused() -> None:
    """Before anything is submitted, with the path; and who would make it."""
    nothing = Known({}, {"raw": None, "data/a": None, "data/b": None})
    verdicts = tuple(decide(nothing).values())
    with pytest.raises(RefusedError, match="nothing at /data/raw"):
        staging.check_inputs(LINE, verdicts, READS, nothing, "/data")
    verdicts = tuple(decide(nothing, chosen=("use",)).values())
    with pytest.raises(RefusedError) as error:
        staging.check_inputs(LINE, verdicts, READS, nothing, "/data")
    assert error.value.remedy == "Run stage make too, which makes it."
    there = Known({}, {"raw": "1", "data/a": None, "data/b": None})
    staging.check_inputs(LINE, tuple(decide(there).values()), READS, there, "/data")


def test_what_a_failed_stage_has_left_is_read_by_none() -> None:
    """Half of a file looks like a file; but who copied one there knows what it is."""
    begun = replace(MADE, records={**MADE.records, "make": None})
    verdicts = tuple(decide(begun, chosen=("use",), forced={"use": "--force"}).values())
    with pytest.raises(RefusedError, match="make has not succeeded since it last began") as error:
        staging.check_inputs(LINE, verdicts, READS, begun, "/data")
    assert "Run stage make too" in error.value.remedy
    staging.check_inputs(LINE, tuple(decide(begun).values()), READS, begun, "/data")
    copied = Known({}, DIGESTS)
    verdicts = tuple(decide(copied, chosen=("use",)).values())
    staging.check_inputs(LINE, verdicts, READS, copied, "/data")


def answer(**sections: str) -> Answer:
    return Answer(0, tuple((k.replace("_", " "), v.encode()) for k, v in sections.items()))


def test_what_the_cluster_says_is_read() -> None:
    """Records, digests, and which stages wait or run; a record that was cut is none."""
    whole = "run r1\ncode c\nafter r0 make\ninput 1 a b\noutput 2 c\n//\n"
    found = staging.read(
        answer(
            stages="active use r2 17\n",
            record_make=whole,
            record_use=whole.removesuffix("//\n"),
            record_tell="begun\n",
            digests="1 a b\n- c\n",
        )
    )
    made = Record("r1", {"code": "c"}, {"make": "r0"}, {"a b": "1"}, {"c": "2"})
    assert found == Known(
        {"make": made, "use": None, "tell": None},
        {"a b": "1", "c": None},
        (("use", "r2", "17"),),
    )
    with pytest.raises(ParseError):
        staging.read(answer(stages="what\n"))
