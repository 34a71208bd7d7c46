"""Tables as dataclasses: types, unknown keys, and that no message shows a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from rvstate import schema
from rvstate.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Inner:
    """A table in a table."""

    name: str
    size: float | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    """One key of each type."""

    text: str | None = None
    flag: bool = False
    count: int | None = None
    names: tuple[str, ...] = ()
    inner: Inner | None = None
    rows: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None
    word: Literal["a", "b"] = "a"
    anything: Any = None


def test_every_type_is_built() -> None:
    """Lists become tuples, tables dataclasses, whole numbers fit where numbers do."""
    table = {
        "text": "x",
        "flag": True,
        "count": 3,
        "names": ["p", "q"],
        "inner": {"name": "n", "size": 1},
        "rows": [{"name": "r"}],
        "named": {"k": {"name": "v", "size": 2.5}},
        "word": "b",
        "anything": [1, {"two": 2}],
    }
    assert schema.build(Outer, table, "f") == Outer(
        "x",
        True,
        3,
        ("p", "q"),
        Inner("n", 1.0),
        (Inner("r"),),
        {"k": Inner("v", 2.5)},
        "b",
        [1, {"two": 2}],
    )


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"text": 12345}, "text in f is wrong: it should be a text, not a number"),
    ({"text": True}, "text in f is wrong: it should be a text, not true or false"),
    ({"flag": 1}, "flag in f is wrong: it should be true or false, not a number"),
    ({"flag": "true"}, "flag in f is wrong: it should be true or false, not a text"),
    ({"count": "7"}, "count in f is wrong: it should be a whole number, not a text"),
    ({"count": 7.5}, "count in f is wrong: it should be a whole number, not a number"),
    ({"count": True}, "count in f is wrong: it should be a whole number, not true or false"),
    ({"names": "p"}, "names in f is wrong: it should be a list, not a text"),
    ({"names": ["p", 5]}, r"names\.1 in f is wrong: it should be a text, not a number"),
    ({"inner": "x"}, "inner in f is wrong: it should be a table, not a text"),
    ({"inner": {}}, r"inner\.name is missing in f"),
    ({"rows": [{"name": "r"}, {"nam": "s"}]}, r"rows\.1\.nam in f is not a key"),
    ({"named": {"k": {"name": 1}}}, r"named\.k\.name in f is wrong: it should be a text"),
    ({"word": "c"}, "word in f is wrong: it should be one of a, b"),
    ({"txt": "x"}, "txt in f is not a key that rvstate knows"),
)


@pytest.mark.parametrize(("table", "message"), WRONG, ids=[w[1][:30] for w in WRONG])
def test_what_is_wrong_is_named_with_its_place(table: dict[str, Any], message: str) -> None:
    """The message has the key's path, where it was read, and what it should be."""
    with pytest.raises(ConfigError, match=message):
        schema.build(Outer, table, "f")


def test_an_unknown_key_gets_its_nearest() -> None:
    """A slip of the pen is answered with the key that was meant."""
    with pytest.raises(ConfigError) as caught:
        schema.build(Outer, {"cuont": 3}, "f")
    assert caught.value.remedy == "Did you mean count?"


def test_a_number_for_a_text_is_told_to_be_quoted() -> None:
    """An account that is all digits is the usual case."""
    with pytest.raises(ConfigError) as caught:
        schema.build(Outer, {"text": 12345}, "f")
    assert "quotes" in caught.value.remedy


def test_no_message_shows_a_value() -> None:
    """A value of the wrong type may still be a secret."""
    for table in ({"flag": "hunter2"}, {"count": "hunter2"}, {"inner": "hunter2"}):
        with pytest.raises(ConfigError) as caught:
            schema.build(Outer, table, "f")
        assert "hunter2" not in caught.value.message + caught.value.remedy


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("text", "12", "12"),
        ("flag", "true", True),
        ("flag", "no", False),
        ("count", "12", 12),
        ("names", "a, b,,c", ["a", "b", "c"]),
        ("names", "", []),
        ("word", "b", "b"),
    ],
)
def test_texts_are_read_as_the_key_wants(key: str, text: str, value: object) -> None:
    """A variable or an argument is only text; the key's type says what it means."""
    assert schema.read_text(schema.keys(Outer)[key], text, key) == value


@pytest.mark.parametrize(("key", "text"), [("flag", "maybe"), ("count", "two"), ("word", "z")])
def test_texts_that_cannot_be_read_are_refused(key: str, text: str) -> None:
    """What is no such value is an error that does not show it."""
    with pytest.raises(ConfigError, match="should be") as caught:
        schema.read_text(schema.keys(Outer)[key], text, key)
    assert text not in caught.value.message
