"""Arrays and sweeps: what is asked for, what each element is given, how it is written."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import sweep
from rvstate.errors import ConfigError
from rvstate.model.job import Array
from rvstate.sweep import Given


@pytest.mark.parametrize(
    ("text", "indices", "at_once"),
    [
        ("0-3", (0, 1, 2, 3), None),
        ("0-9:4%2", (0, 4, 8), 2),
        ("7,1,1-2", (1, 2, 7), None),
        ("%3", (), 3),
    ],
)
def test_lists_are_read_as_sbatch_reads_them(
    text: str, indices: tuple[int, ...], at_once: int | None
) -> None:
    """Ranges, steps, single ones, and how many at once."""
    assert sweep.parse_array(text) == Given(indices, at_once)


@pytest.mark.parametrize("text", ["", "3-1", "a", "1-", "1,,2", "0-3%0", "-1", "0-3%", "1-9:0"])
def test_what_is_no_list_is_refused(text: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match="no list"):
        sweep.parse_array(text)


def test_too_many_elements_are_a_mistake() -> None:
    """Each would be a job, and none of them is made in memory first."""
    with pytest.raises(ConfigError, match="more than"):
        sweep.parse_array("0-999999999")
    many = tuple((name, tuple(map(str, range(100)))) for name in "abc")
    with pytest.raises(ConfigError, match="1000000 elements"):
        sweep.array("", many, None)


@pytest.mark.parametrize(
    "texts", [["lr"], ["=1"], ["lr=1,,2"], ["1x=2"], ["lr=1", "lr=2"], ["a-b=1", "a_b=2"],
              ["lr=1,1"], ["index=1"], ["lr="]],
)  # fmt: skip
def test_what_is_no_parameter_is_refused(texts: list[str]) -> None:
    """A name, an equals sign, values that differ; each name and variable once."""
    with pytest.raises(ConfigError):
        sweep.parse_sweep(texts)


def made(*texts: str, listed: str = "", most: int | None = None) -> Array:
    found = sweep.array(listed, sweep.parse_sweep(texts), most)
    assert found is not None
    return found


def test_a_sweep_is_the_product_with_the_last_fastest() -> None:
    """Each combination once, in an order that can be told from the command line."""
    found = made("lr=1e-3,1e-4", "seed=0,1,2")
    assert found.indices == (0, 1, 2, 3, 4, 5)
    assert [sweep.values(found, i) for i in (0, 1, 5)] == [
        (("lr", "1e-3"), ("seed", "0")),
        (("lr", "1e-3"), ("seed", "1")),
        (("lr", "1e-4"), ("seed", "2")),
    ]
    assert len({sweep.values(found, i) for i in found.indices}) == 6


def test_some_elements_of_a_sweep_keep_their_indices() -> None:
    """So that what failed is run again with the same values and checkpoints."""
    found = made("lr=1,2", "seed=0,1", listed="1,3%1")
    assert (found.indices, found.parts) == ((1, 3), ((0, "1,3%1"),))
    with pytest.raises(ConfigError, match="elements 0 to 3"):
        made("lr=1,2", "seed=0,1", listed="4")
    with pytest.raises(ConfigError, match="not which"):
        made(listed="%4")


def test_long_arrays_take_several_jobs() -> None:
    """No index reaches the site's limit, and none is lost."""
    assert made(listed="0-7%2", most=3).parts == ((0, "0-2%2"), (3, "0-2%2"), (6, "0-1%2"))
    assert made(listed="5,1000,1001").parts == ((0, "5,1000"), (1001, "0"))


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 1001))
def test_parts_hold_every_element_once(indices: set[int], most: int) -> None:
    """Whatever was asked for, and each within the limit."""
    found = made(listed=",".join(map(str, indices)), most=most)
    back = [o + i for o, text in found.parts for i in sweep.parse_array(text).indices]
    assert back == sorted(indices)
    assert all(max(sweep.parse_array(text).indices) < most for _, text in found.parts)


def test_values_go_where_they_are_placed_or_behind() -> None:
    """`{lr}` where it stands, else an option; a line of shell must say where."""
    found = made("lr=1,2", "seed=0,1")
    words = sweep.command(("python", "train.py", "--out=x-{seed}-{index}"), found)
    assert words == ("python", "train.py", "--out=x-{seed}-{index}", "--lr", "{lr}")
    named = sweep.command(("python", "-c", "print($RV_SWEEP_LR, $RV_SWEEP_SEED)"), found)
    assert named == ("python", "-c", "print($RV_SWEEP_LR, $RV_SWEEP_SEED)")
    line = sweep.command(("bash", "-c", 'a "{lr}" && b {seed} {other} ${x}'), found)
    assert line[2] == 'a "${RV_SWEEP_LR}" && b ${RV_SWEEP_SEED} {other} ${x}'
    with pytest.raises(ConfigError, match="where seed belongs"):
        sweep.command(("bash", "-c", "a {lr}"), found)
    with pytest.raises(ConfigError, match="more than a plain word"):
        sweep.command(("bash", "-c", "a {lr}"), made("lr=$(id),2"))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
       st.text("a b'\"$*\\;\n", max_size=6))  # fmt: skip
def test_a_word_means_what_it_says_to_bash(text: str, value: str) -> None:
    """Any text around a value, any value: one argument, nothing expanded."""
    found = made("lr=1,2")
    written = sweep.word(f"{text}{{lr}}{text}", found)
    done = subprocess.run(
        ["bash", "-c", f"printf '%s' {written}"], env={"RV_SWEEP_LR": value}, capture_output=True
    )
    assert done.stdout == f"{text}{value}{text}".encode()
