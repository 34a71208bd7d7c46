"""What a stage adds to the base: how it is read, compared, replaced and merged."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.model.environment.requirement import plain, requirement, split_requirements
from rvstate.model.runtime_env import RuntimeEnv, runtime_env, stage_env

FILES = {
    "req.txt": "# of stage one\nPackaging == 24.0\n-r more/b.txt\n",
    "more/b.txt": "six>=1,\\\n  <2  # both\n--extra-index-url https://index.example/simple\n",
    "loop.txt": "-r loop.txt\nsix\n",
}
read = FILES.get
names = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,6}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda n: not n.endswith((".whl", ".zip", ".tar.gz"))
)
versions = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True)
clauses = st.lists(st.tuples(st.sampled_from(["==", ">=", "<", "~=", "!="]), versions), max_size=3)
blanks = st.text(" \t", max_size=2)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """The same requirement, written twice in different ways."""
    name = draw(names)
    extras = draw(st.lists(names, max_size=2))
    wanted = draw(clauses)
    marker = draw(st.sampled_from(["", "python_version < '3.13'", 'extra == "x"']))

    def write(other: bool) -> str:
        b = [draw(blanks) for _ in range(4)]
        cs = [f"{op}{b[0]}{v}" for op, v in wanted]
        es = list(extras)
        shown = name
        if other:
            cs.reverse()
            es.reverse()
            shown = name.swapcase().replace("_", "-")
        listed = f"[{(b[1] + ',' + b[2]).join(es)}]" if es else ""
        said = f";{b[0]}{marker.replace(' ', '  ')}" if marker else ""
        return f"{b[3]}{shown}{listed}{b[1]} {','.join(cs)}{b[2]}{said}"

    return write(False), write(True)


def env(**table: object) -> RuntimeEnv:
    found = runtime_env(table, "runtime_env of stage s", read)
    assert found is not None
    return found


@given(spellings())
def test_two_spellings_of_a_requirement_are_one(pair: tuple[str, str]) -> None:
    """Case, order and white space do not tell requirements apart, and what is written is stable."""
    first, second = (requirement(text, "x") for text in pair)
    assert first == second
    assert requirement(first, "x") == first


@given(st.lists(spellings(), min_size=1, max_size=5), st.randoms())
def test_the_key_does_not_depend_on_order_or_spelling(
    pairs: list[tuple[str, str]], chance: random.Random
) -> None:
    """A layer has one name however its packages are written."""
    shuffled = [second for _, second in pairs]
    chance.shuffle(shuffled)
    one = env(uv=[first for first, _ in pairs])
    assert one.key("base") == env(uv=shuffled).key("base")
    assert one.key("base") != one.key("other")
    assert one.key("base") != env(pip=shuffled).key("base")


@given(st.lists(st.tuples(names, clauses), min_size=1, max_size=4))
def test_a_command_lines_list_is_the_tables_list(
    parts: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    """What is separated by commas comes apart where it was put together."""
    given_ = [n + ",".join(f"{op}{v}" for op, v in cs) for n, cs in parts]
    assert split_requirements(",".join(given_)) == tuple(given_)
    stage, found = stage_env(f"train:uv={','.join(given_)},zzz[a,b]==1", read)
    assert (stage, found) == ("train", env(uv=[*given_, "zzz[b,a]==1"]))


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading(text: str) -> None:
    """A requirement is read, or refused in words; what was read is one line."""
    try:
        found = requirement(text, "x")
    except ConfigError:
        return
    assert "\n" not in found
    assert requirement(found, "x") == found


def test_names_compare_as_tools_compare_them() -> None:
    """PEP 503."""
    assert plain("Foo__Bar.-baz") == "foo-bar-baz"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Torch", "torch"),
        ("a (>=1, <2)", "a<2,>=1"),
        ("a==1.*", "a==1.*"),
        (
            "a @ https://h.example/a.whl ; os_name=='posix'",
            'a @ https://h.example/a.whl ; os_name == "posix"',
        ),
        ("a@git+https://${TOKEN}@h.example/a@v1", "a @ git+https://${TOKEN}@h.example/a@v1"),
        ("a@git+ssh://git@h.example/a", "a @ git+ssh://git@h.example/a"),
    ],
)
def test_one_way_to_write_each(text: str, wanted: str) -> None:
    """Brackets, addresses and markers."""
    assert requirement(text, "x") == wanted


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("./libs/a", "is a path"),
        ("a.whl", "is a path"),
        ("-e .", "is an option"),
        ("a b", "is not a requirement"),
        ("a=1", "is not a requirement"),
        ("", "is not a requirement"),
        ("a @ /etc/passwd", "is not a requirement"),
        ("a; os_name == $(x)", "is not a requirement"),
        ("a @ https://me:secret@h.example/a", "holds a password"),
        ("a @ https://ghp_0123456789abcdefghij@h.example/a", "holds a password"),
    ],
)
def test_what_is_no_requirement_is_refused(text: str, part: str) -> None:
    """The message says what it is instead, and never shows a password."""
    with pytest.raises(ConfigError, match=part) as caught:
        requirement(text, "uv of stage x")
    assert "secret" not in caught.value.message
    assert "ghp_" not in caught.value.message


def test_a_file_is_its_contents() -> None:
    """Includes stand in their places; a changed file is another layer, a comment is not."""
    found = env(uv="./req.txt")
    assert found.requirements == "req.txt"
    assert found.contents == (
        "packaging==24.0\nsix<2,>=1\n--extra-index-url https://index.example/simple\n"
    )
    changed = {**FILES, "more/b.txt": "six\n"}
    other = runtime_env({"uv": "req.txt"}, "x", changed.get)
    commented = runtime_env(
        {"uv": "req.txt"}, "x", {**FILES, "req.txt": FILES["req.txt"] + "# x\n"}.get
    )
    assert other is not None
    assert commented is not None
    assert other.key("b") != found.key("b") == commented.key("b")
    assert env(uv="loop.txt").contents == "six\n"


def test_a_file_and_a_list_of_the_same_packages_are_one_layer() -> None:
    """What is installed decides, not where it is written."""
    listed = env(uv=["six", "packaging"])
    filed = runtime_env({"uv": "f.txt"}, "x", {"f.txt": "Packaging\nsix\n"}.get)
    assert filed is not None
    assert listed.key("b") == filed.key("b")


def test_what_adds_no_package_needs_no_layer() -> None:
    """Nothing, an empty list, and variables alone: the base itself."""
    for table in ({}, {"uv": []}, {"pip": {"packages": []}}, {"env_vars": {"A": "1"}}):
        found = env(**table)
        assert not found.layered
        assert found.key("base") == ""
    assert env().empty
    assert not env(env_vars={"A": "1"}).empty
    assert runtime_env(None, "x", read) is None


def test_none_keeps_empty_clears_and_a_value_replaces() -> None:
    """As the original has it; lists are never merged unless that is asked for."""
    declared = env(uv=["six"], env_vars={"A": "1"})
    assert declared.replaced_by(None) is declared
    assert declared.replaced_by(env()) == RuntimeEnv()
    assert declared.replaced_by(env(pip=["attrs"])) == env(pip=["attrs"])


def test_merging_is_asked_for() -> None:
    """Variables by name, packages one after the other, of one package the later requirement."""
    declared = env(
        uv={"packages": ["six==1.15", "attrs"], "options": ["--pre"]}, env_vars={"A": "1", "B": "1"}
    )
    given_ = env(
        uv={"packages": ["Six==1.16"], "uv_pip_install_options": ["--no-index"]},
        env_vars={"B": "2"},
        merge=True,
    )
    assert declared.replaced_by(given_) == RuntimeEnv(
        "uv", ("attrs", "six==1.16"), "", "", ("--pre", "--no-index"), (("A", "1"), ("B", "2"))
    )
    only = declared.replaced_by(env(env_vars={"C": "3"}, merge=True))
    assert (only.packages, only.installer) == (declared.packages, "uv")
    assert declared.merged_with(env(uv="req.txt")).lines == (
        "--extra-index-url https://index.example/simple",
        *("attrs", "packaging==24.0", "six<2,>=1"),
    )
    with pytest.raises(ConfigError, match="cannot be merged"):
        declared.replaced_by(env(pip=["six"], merge=True))


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"uv": ["a"], "pip": ["a"]}, "both uv and pip"),
        ({"uvv": ["a"]}, "uvv in .* is not a key"),
        ({"uv": {"package": ["a"]}}, "package in uv of .* is not a key"),
        ({"uv": {"packages": ["a"], "options": ["--target", "/x"]}}, "--target .* not an option"),
        ({"uv": {"packages": ["a"], "options": ["x"]}}, "belongs to none"),
        ({"uv": {"packages": ["a"], "options": ["--find-links", "./w"]}}, "names a path"),
        ({"uv": {"packages": ["a"], "options": ["--index-url=https://u:p@h.example"]}}, "password"),
        ({"uv": 3}, "should be a list"),
        ({"uv": [3]}, "should be a list"),
        ({"uv": "nowhere.txt"}, "no such file"),
        ({"uv": "../x.txt"}, "not a path in the project"),
        ({"uv": "/x.txt"}, "not a path in the project"),
        ({"env_vars": {"A-B": "1"}}, "not a variable's name"),
        ({"env_vars": {"A": 1}}, "should be a text"),
        ({"env_vars": {"HF_TOKEN": "x"}}, "HF_TOKEN in env_vars of .* sounds like a secret"),
        ({"env_vars": {"wandb_api_key": "x"}}, "sounds like a secret"),
        ({"merge": "yes"}, "true or false"),
        ("six", "should be a table"),
    ],
)
def test_what_is_wrong_is_said(table: object, part: str) -> None:
    """With a remedy, each."""
    with pytest.raises(ConfigError, match=part) as caught:
        runtime_env(table, "runtime_env of stage s", read)
    assert caught.value.remedy


def test_short_options_of_requirements_files() -> None:
    """-i and -f are what pip calls them."""
    found = runtime_env(
        {"pip": "r.txt"},
        "x",
        {"r.txt": "-i https://i.example\n-f=https://f.example\nsix --hash=sha256:ab\n"}.get,
    )
    assert found is not None
    assert found.lines == (
        "--index-url https://i.example",
        "--find-links https://f.example",
        "six --hash=sha256:ab",
    )
    with pytest.raises(ConfigError, match=r"-e in r\.txt"):
        runtime_env({"pip": "r.txt"}, "x", {"r.txt": "-e .\n"}.get)


@pytest.mark.parametrize(
    "text", ["train", "train:", "train:conda=x", ":none", "train:none=1", "t:uv="]
)
def test_a_wrong_stage_env_is_refused(text: str) -> None:
    """It says how it is written."""
    with pytest.raises(ConfigError, match="--stage-env"):
        stage_env(text, read)


def test_stage_env_none_and_files() -> None:
    """`none` is the base, which empties what was declared; a file is read."""
    assert stage_env("train:none", read) == ("train", RuntimeEnv())
    assert stage_env("a.b:uv=req.txt", read)[1] == env(uv="req.txt")
    assert stage_env("t:pip=Six == 1", read)[1].packages == ("six==1",)
