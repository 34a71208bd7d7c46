"""Several questions at once: each answer is its own, whatever the others do."""

from __future__ import annotations

from harness import Account

from rvstate.script import Script, read_any


def test_each_answer_is_told_apart_with_its_status(account: Account) -> None:
    """Failing, silent, odd and slow ones; names and output with blanks and line breaks."""
    questions = {
        "slow one": "sleep 0.3; printf 'a\\n\\nb'",
        "fails": "printf 'half\\n'; echo why >&2; exit 3",
        "silent": ":",
        "home": 'printf "%s" "$rv_home"',
        "reads": "cat; echo end",
    }
    words = [word for pair in questions.items() for word in pair]
    answer = account.run("ask", account.scratch, "", *words)
    found = {name: body for name, body in answer.sections if name}
    assert found == {
        "slow one 0": b"a\n\nb",
        "fails 3": b"half\n",
        "fails errors": b"why\n",
        "silent 0": b"",
        "home 0": str(account.home).encode(),
        "reads 0": b"end\n",
    }


def test_a_whole_script_answers_inside_an_answer(account: Account) -> None:
    """It brings its own frame, and what it sets does not reach the next one."""
    inner = Script("ask", (str(account.scratch), "", "q", "echo inner; exit 4"))
    words = ("first", inner.text, "second", 'echo "$rv_nonce"')
    answer = account.run("ask", account.scratch, "", *words)
    nested = read_any(answer.first("first 0")) or read_any(answer.first("first 4"))
    assert nested is not None
    assert nested.first("q 4") == b"inner\n"
    assert answer.first("second 0").decode().strip() not in ("", inner.nonce)


def test_nothing_is_left_behind(account: Account) -> None:
    """Its directory is gone, also where the temporary place is full or missing."""
    place = account.scratch / "tmp"
    place.mkdir()
    words = ("ask", account.scratch, "", "q", "echo yes")
    assert account.run(*words, TMPDIR=str(place)).first("q 0") == b"yes\n"
    assert list(place.iterdir()) == []
    place.rmdir()
    assert account.run(*words, TMPDIR=str(place)).first("q 0") == b"yes\n"
