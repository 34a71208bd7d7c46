"""Arguments of `dvc exp run`: read as argparse and Hydra read them, and made an array of."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rvstate import overrides, sweep
from rvstate.errors import ConfigError

# What Hydra 1.3 makes of these, by `dvc.utils.hydra.get_hydra_sweeps` of DVC 3.67.
KNOWN = {
    "1,2": ("1", "2"),
    "range(1,3)": ("1", "2"),
    "range(3)": ("0", "1", "2"),
    "range(1,10,step=4)": ("1", "5", "9"),
    "range(10,1,-3)": ("10", "7", "4"),
    "range(start=1,stop=3)": ("1", "2"),
    "range(0,1,0.25)": ("0.0", "0.25", "0.5", "0.75"),
    "range(1.0,3)": ("1.0", "2.0"),
    "choice(1,[2,3])": ("1", "[2,3]"),
    "{b:1,c:2},{b:2}": ("{b:1,c:2}", "{b:2}"),
    "x\\,y,z": ("x\\,y", "z"),
    "'a,b',\"c,d\"": ("'a,b'", '"c,d"'),
    "1, 2": ("1", "2"),
    "null,true": ("null", "true"),
}
ONE = ("", "1", "[1,2]", "{a:1,b:2}", "'1,2'", '"1,2"', "f(1,2)", "'1,2", "(1,2", "1,", "a\\,b")


@pytest.mark.parametrize("text", KNOWN)
def test_several_values_are_those_that_dvc_sees(text: str) -> None:
    """In every way to write them that is enumerated here."""
    assert overrides.sweep(("-S", f"model.lr={text}")) == (("model.lr", KNOWN[text]),)


@pytest.mark.parametrize("text", ONE)
def test_one_value_is_left_to_dvc(text: str) -> None:
    """Also what it refuses: its own words say it best."""
    assert overrides.sweep(("-S", f"a={text}")) == ()


@pytest.mark.parametrize(
    "words",
    [
        ("-S", "a=shuffle(1,2)"),
        ("-S", "a=glob(*)"),
        ("-S", "a=interval(0,1)"),
        ("-S", "a=range(1)(2)"),
        ("-S", "a=range(x,3)"),
        ("-S", "a=range(3,1)"),
        ("-S", "a=range(0,1,0)"),
        ("-S", "a=range(0,1e9)"),
        ("-S", "a=1,2", "-S", "a=3,4"),
        ("-S", "a=1,1"),
        ("-S", "index=1,2"),
        ("-S", "a{b}=1,2"),
        ("-S", "=1,2"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_with_a_way_out(words: tuple[str, ...]) -> None:
    """Before anything is submitted."""
    with pytest.raises(ConfigError) as caught:
        overrides.sweep(words)
    assert caught.value.remedy


SPELLED = (
    ("-S", "a=1,2"),
    ("-Sa=1,2",),
    ("-fSa=1,2",),
    ("-f", "-kS", "a=1,2"),
    ("--set-param", "a=1,2"),
    ("--set-param=a=1,2",),
    ("--set-p=a=1,2",),
)


@pytest.mark.parametrize("words", SPELLED)
def test_an_option_is_found_in_every_spelling(words: tuple[str, ...]) -> None:
    """As argparse reads it: letters together, values attached, names cut short."""
    assert overrides.sweep(words) == (("a", ("1", "2")),)
    assert overrides.command(words, "x")[-1].endswith("a={a}")


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "-S", "a=1,2"),
        ("--message", "-Sa=1,2"),
        ("--", "-S", "a=1,2"),
        ("train", "a=1,2"),
        ("-S",),
        ("--s", "a=1,2"),
    ],
)
def test_what_only_looks_like_an_override_is_none(words: tuple[str, ...]) -> None:
    """A message, a target, what stands behind `--`, what is not unmistakable."""
    assert overrides.sweep(words) == ()


def test_each_element_has_an_experiment_of_its_own() -> None:
    """Named by the user, with the element's number; or by the run."""
    assert overrides.command(("-S", "a=1,2"), "r") == ("-n", "r-{index}", "-S", "a={a}")
    assert overrides.command(("-n", "x", "-S", "a=1,2"), "r")[:2] == ("-n", "x-{index}")
    assert overrides.command(("--name=x", "-Sa=1,2"), "r") == ("--name=x-{index}", "-Sa={a}")
    assert overrides.command(("-n", "x{index}y", "train"), "r")[1] == "x{index}y"


NAME = st.text(string.ascii_letters + "._:/+@", min_size=1, max_size=8).filter(
    lambda name: name != "index" and name[0] not in "-"
)
VALUE = st.text(string.ascii_letters + string.digits + "._$`*?~ -é", min_size=1, max_size=6).filter(
    lambda value: value == value.strip()
)
OTHER = st.text(st.characters(exclude_characters="\0{}", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=150, deadline=None)
@given(NAME, st.lists(VALUE, min_size=2, max_size=4, unique=True), st.lists(OTHER, max_size=3))
@example("model.lr", ["0.1", "0.2"], ["$(id)", "'", "-x"])
def test_every_element_gets_its_value_and_every_other_word_stays(
    name: str, values: list[str], others: list[str]
) -> None:
    """Byte for byte, whatever the other words are."""
    words = ("-S", f"{name}={','.join(values)}", "--", *others)
    pairs = overrides.sweep(words)
    array = sweep.array("", pairs, None)
    assert array is not None
    template = overrides.command(words, "x")
    for index, value in enumerate(values):
        assert dict(sweep.values(array, index)) == {name: value}
        filled = [w.replace(f"{{{name}}}", value).replace("{index}", str(index)) for w in template]
        assert filled == ["-n", f"x-{index}", "-S", f"{name}={value}", "--", *others]


OURS = frozenset({"--time", "--dry-run", "--pull", "-g", "-p", "-A", "--queue-it"})


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("-S", "a=1", "--dry-run"), "--dry-run"),
        (("-S", "a=1", "--time=2h"), "--time"),
        (("train", "-g2"), "-g"),
        (("-S", "a=1", "-p", "--pull"), ""),
        (("-m", "--dry-run"), ""),
        (("-S", "--time=1"), ""),
        (("train", "--", "--dry-run"), ""),
        (("--unknown", "-z"), ""),
    ],
)
def test_an_option_of_ours_behind_dvcs_is_found(words: tuple[str, ...], wrong: str) -> None:
    """DVC would not know it; what DVC has, too, or what is a value, is left alone."""
    assert overrides.misplaced(words, OURS) == wrong


def test_parameters_that_are_alike_to_the_job_are_refused() -> None:
    """Both would be one variable."""
    with pytest.raises(ConfigError):
        sweep.array("", overrides.sweep(("-S", "a.b=1,2", "-S", "a_b=1,2")), None)
