import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rvstate import shell
from rvstate.errors import ConfigError

SHELLS = [name for name in ("dash", "bash", "sh") if shutil.which(name)]
# Every text that can be a file name or an argument: also bytes that are no UTF-8.
BYTES = st.binary(max_size=12).map(
    lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape")
)
SPECIAL = ("'", '"', "\\", "$HOME", "`id`", "~", "#", "%", " ", "\n", "\t", "!", "=", "a")
NASTY = st.lists(st.sampled_from(SPECIAL), max_size=6).map("".join)
TEXT = BYTES | NASTY
LINE = TEXT.filter(lambda text: not set(text) & {"\n", "\r"})
few = settings(max_examples=25, deadline=None)


def run(name: str, script: str) -> list[str]:
    """What the shell printed, split at NUL."""
    done = subprocess.run(
        [shutil.which(name) or name],
        input=script.encode(errors="surrogateescape"),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode(errors="surrogateescape").split("\0")[:-1]


@pytest.mark.parametrize("name", SHELLS)
@few
@given(words=st.lists(TEXT, min_size=1, max_size=5))
def test_join_means_exactly_the_words(name: str, words: list[str]) -> None:
    """A real shell sees the words that were given, whatever is in them."""
    assert run(name, shell.join(["printf", r"%s\0", *words])) == words


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize("first", ["A=1", "A+=1", "if", "time", "~", "!", "a b", "-n", "{"])
def test_the_first_word_is_a_command(name: str, first: str) -> None:
    """Neither an assignment nor a reserved word: the shell looks for a command of that name."""
    script = shell.join([first, "x"]) + " 2>/dev/null; printf '%s\\0' $?"

    assert run(name, script) == ["127"]


@pytest.mark.parametrize("name", SHELLS)
@few
@given(value=TEXT)
def test_assignment_is_lossless(name: str, value: str) -> None:
    """A variable holds every byte of its value, and children see it."""
    script = shell.assignment("A_1", value, export=True) + '\nsh -c \'printf "%s\\0" "$A_1"\''

    assert run(name, script) == [value]


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A\n", "É", "A=1"])
def test_assignment_refuses_other_names(name: str) -> None:
    """A name cannot carry a command."""
    with pytest.raises(ConfigError):
        shell.assignment(name, "x")


def test_nul_is_refused() -> None:
    """What no shell can pass on is an error, not a cut value."""
    with pytest.raises(ConfigError):
        shell.quote("a\0b")


def sbatch_words(line: str) -> list[str]:
    """A second implementation of how sbatch 22.05 splits a line (opt.c, get_argument)."""
    words: list[str] = []
    word: list[str] | None = None
    quote, escaped = "", False
    for character in line.removeprefix("#SBATCH"):
        if escaped:
            word, escaped = [*(word or []), character], False
        elif character == "\\":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = [*(word or []), character]
        elif character in "\"'":
            quote, word = character, word or []
        elif character == "#":
            break
        elif character in " \t\v\f":
            if word is not None:
                words.append("".join(word))
                word = None
        else:
            word = [*(word or []), character]
    assert not quote
    return words if word is None else [*words, "".join(word)]


@given(value=LINE)
@example("a#b")
@example("\\")
@example('"')
@example("hetjob")
def test_sbatch_line_reads_back(value: str) -> None:
    """sbatch sees one option with exactly this value."""
    assert sbatch_words(shell.sbatch_line("comment", value)) == [f"--comment={value}"]


def test_sbatch_line_without_value() -> None:
    """Flags are written as flags."""
    assert shell.sbatch_line("exclusive") == "#SBATCH --exclusive"


@pytest.mark.parametrize("option", ["", "-x", "a b", "a\n#SBATCH --wrap=x", "a=b", "A"])
def test_sbatch_line_refuses_other_options(option: str) -> None:
    """An option name cannot carry a second line or option."""
    with pytest.raises(ConfigError):
        shell.sbatch_line(option, "x")


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_sbatch_line_refuses_line_breaks(value: str) -> None:
    """A value cannot begin a new line of the script."""
    with pytest.raises(ConfigError):
        shell.sbatch_line("comment", value)


def cron_debian(line: str) -> str:
    """What Debian's cron hands to sh: backslashes before `%` and a backslash are taken off."""
    out: list[str] = []
    escaped = False
    for character in line:
        if escaped:
            if character in "%\\":
                out.pop()
            out.append(character)
            escaped = False
        elif character == "%":
            break
        else:
            out.append(character)
            escaped = character == "\\"
    return "".join(out)


def cron_plain(line: str) -> str:
    """The oldest cron only looks whether `%` is escaped, and takes nothing off."""
    escaped = False
    for position, character in enumerate(line):
        if not escaped and character == "%":
            return line[:position]
        escaped = not escaped and character == "\\"
    return line


@pytest.mark.parametrize("cron", [cron_debian, cron_plain])
@few
@given(words=st.lists(LINE, min_size=1, max_size=4))
@example(["a\\%b", "100%", "\\\\", "\\", "%", "x\\\\%"])
def test_cron_command_survives_every_cron(cron: object, words: list[str]) -> None:
    """The shell that cron starts sees exactly the words."""
    line = shell.cron_command(["printf", r"%s\0", *words])

    assert "\n" not in line
    assert run("sh", cron(line)) == words  # type: ignore[operator]


def test_cron_command_refuses_line_breaks() -> None:
    """A word cannot begin a new crontab line."""
    with pytest.raises(ConfigError):
        shell.cron_command(["echo", "a\nb"])


@pytest.mark.parametrize("name", SHELLS)
@few
@given(data=st.binary(max_size=20))
def test_printf_b_is_any_bytes_in_ascii(name: str, data: bytes) -> None:
    """Bytes of any kind come out of a real shell's printf unchanged."""
    text = shell.printf_b(data)
    done = subprocess.run(
        [name], input=f"printf %b {shell.quote(text)}".encode(), capture_output=True, check=True
    )

    assert text.isascii()
    assert done.stdout == data
