import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import envfile
from rvstate.errors import ConfigError, ParseError

SHELLS = [name for name in ("dash", "bash", "sh") if shutil.which(name)]
NAME = st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,6}\Z").map(lambda name: f"T_{name}")
VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10) | (
    st.lists(st.sampled_from(["'", '"', "\\", "$HOME", "`", "#", " ", "\n", "\r\n", "é", "="]),
             max_size=6).map("".join)
)  # fmt: skip
MAPPING = st.dictionaries(NAME, VALUE, max_size=4)


@given(MAPPING)
def test_rendered_files_read_back(variables: dict[str, str]) -> None:
    """Nothing is lost, and the same variables always give the same text."""
    text = envfile.render(variables)

    assert envfile.parse(text) == variables
    assert text == envfile.render(dict(reversed(variables.items())))


@pytest.mark.parametrize("name", SHELLS)
@settings(max_examples=20, deadline=None)
@given(variables=MAPPING)
def test_a_real_shell_reads_them(name: str, variables: dict[str, str]) -> None:
    """Sourced under `set -eu`, each exported value arrives in a child byte for byte."""
    words = " ".join(f'"${key}"' for key in sorted(variables))
    script = f"set -eu\n{envfile.render(variables)}printf '%s\\0' {words} end\n"
    script += "env -0 | grep -zc '^T_' >&2"
    done = subprocess.run([name], input=script.encode(), capture_output=True, check=False)

    assert done.stdout.decode().split("\0")[:-2] == [variables[key] for key in sorted(variables)]
    assert int(done.stderr) == len(variables)


@pytest.mark.parametrize(
    "text", ["A=1\n", "export A=$(id)\n", "export A=1", "export B=1\nexport A=1\n", "export A='1\n",
             "export A=1; id\n", "# x\n", "export A=1\n\n", "export 1A=1\n"]
)  # fmt: skip
def test_other_files_are_not_ours(text: str) -> None:
    """A file that was edited is noticed, not half understood."""
    with pytest.raises(ParseError):
        envfile.parse(text)


@pytest.mark.parametrize("variables", [{"A-B": "x"}, {"UID": "1"}, {"A": "x\0"}])
def test_what_no_shell_can_hold_is_refused(variables: dict[str, str]) -> None:
    """The message never shows the value."""
    with pytest.raises(ConfigError) as caught:
        envfile.render(variables)

    assert next(iter(variables.values())) not in caught.value.message.split()


def test_dotenv() -> None:
    """Every documented form, as an editor on Windows might save it."""
    text = "\ufeff" + "\r\n".join(
        [
            "# comment",
            "",
            "A=plain value # comment",
            "export B = 'single # \\n $x'",
            'C="line 1\\nline 2 \\"q\\" \\\\ \\$x \\t #y" # comment',
            "D=a#b",
            "E=",
            "F= # comment",
            "G='two",
            "lines'",
            "H=https://u:p@h/?a=b#c",
            'I=""',
            "J=it's",
            "A=last",
            "  K=x  ",
        ]
    )

    assert envfile.parse_dotenv(text) == {
        "A": "last",
        "B": "single # \\n $x",
        "C": 'line 1\nline 2 "q" \\ $x \\t #y',
        "D": "a#b",
        "E": "",
        "F": "",
        "G": "two\nlines",
        "H": "https://u:p@h/?a=b#c",
        "I": "",
        "J": "it's",
        "K": "x",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nsecretvalue\n", 2),
        ("1A=secretvalue", 1),
        ("A='x\ny'\nB='secretvalue\n\n", 3),
        ('A="secretvalue" tail', 1),
        ('A="secretvalue"#x', 1),
        ("A=secretvalue\0", 1),
        ("=secretvalue", 1),
        ("\n\nexport secretvalue", 3),
    ],
)
def test_dotenv_errors_name_the_line_and_never_the_value(text: str, line: int) -> None:
    """A message may be pasted into an issue."""
    with pytest.raises(ConfigError) as caught:
        envfile.parse_dotenv(text)

    assert f"Line {line} " in caught.value.message
    assert caught.value.remedy
    assert "secretvalue" not in caught.value.message + caught.value.remedy


@given(st.text(max_size=30))
def test_dotenv_never_fails_otherwise(text: str) -> None:
    """Any text is variables or a ConfigError."""
    try:
        envfile.render(envfile.parse_dotenv(text))
    except ConfigError:
        return


@given(MAPPING)
def test_dotenv_reads_double_quoted_values(variables: dict[str, str]) -> None:
    """Escaping the four characters is enough for any value."""
    table = str.maketrans({'"': '\\"', "\\": "\\\\", "$": "\\$", "\n": "\\n"})
    text = "".join(f'{key}="{value.translate(table)}"\n' for key, value in variables.items())

    assert envfile.parse_dotenv(text) == variables


@given(st.text(min_size=1), st.text(min_size=1))
def test_masked_tells_nothing(one: str, other: str) -> None:
    """All values look the same."""
    assert envfile.masked(one) == envfile.masked(other) != envfile.masked("")


def test_file_on_disk_is_sourced(tmp_path: Path) -> None:
    """The dot command itself, not only standard input."""
    file = tmp_path / "a b.env"
    file.write_text(envfile.render({"T_A": "it's\n$x"}), encoding="utf-8")
    done = subprocess.run(
        ["sh", "-c", '. "$1" && printf %s "$T_A"', "-", file], capture_output=True
    )

    assert done.stdout == b"it's\n$x"
