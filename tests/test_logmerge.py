"""The logs of several nodes become one, in the order in which they were written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rvstate.logmerge import CLOCK, Merge

LOGS = ("out", "err", "node0.out", "node0.err", "node1.out", "node10.out")
WRITES = st.lists(
    st.tuples(st.sampled_from(LOGS), st.binary(max_size=5).map(lambda b: b.replace(b"\n", b"x"))),
    max_size=30,
)


def written(writes: list[tuple[str, bytes]]) -> tuple[dict[str, bytes], bytes]:
    """The logs and the clock of a job that notes every line."""
    logs: dict[str, bytes] = {}
    clock = b""
    for tick, (name, line) in enumerate(writes):
        logs[name] = logs.get(name, b"") + line + b"\n"
        clock += f"{tick} {len(logs[name])} {name}\n".encode()
    return logs, clock


@given(WRITES, st.integers(1, 12))
def test_lines_come_in_the_order_in_which_they_were_written(
    writes: list[tuple[str, bytes]], limit: int
) -> None:
    """Every line once, in order, however many readings it takes and where they cut."""
    logs, clock = written(writes)
    files = {**logs, CLOCK: clock}
    offsets = dict.fromkeys(files, 0)
    merge = Merge(limit)
    found = []
    while True:
        pieces = [
            (name, at, files[name][at : at + limit])
            for name, at in offsets.items()
            if at < len(files[name])
        ]
        if not pieces:
            break
        for name, at, text in pieces:
            offsets[name] = at + len(text)
        found += merge.feed(pieces)
    found += merge.rest()
    assert found == [(name, line + b"\n") for name, line in writes]


@given(WRITES, st.binary(max_size=60))
def test_without_a_true_clock_no_line_is_lost(
    writes: list[tuple[str, bytes]], clock: bytes
) -> None:
    """A clock that is cut, or holds anything, costs order and nothing else."""
    logs, _ = written(writes)
    merge = Merge(1 << 20)
    found = merge.feed([*((name, 0, text) for name, text in logs.items()), (CLOCK, 0, clock)])
    found += merge.rest()
    for name, text in logs.items():
        assert b"".join(line for log, line in found if log == name) == text


def test_a_line_that_has_not_ended_waits_for_its_end() -> None:
    """So that no prefix stands in the middle of a line; what never ends is shown last."""
    merge = Merge(1 << 20)
    assert merge.feed([("node0.out", 0, b"one\ntw")]) == [("node0.out", b"one\n")]
    assert merge.feed([("node1.out", 0, b"x\n")]) == [("node1.out", b"x\n")]
    assert merge.feed([("node0.out", 6, b"o\nthr")]) == [("node0.out", b"two\n")]
    assert merge.rest() == [("node0.out", b"thr")]
    assert merge.rest() == []


def test_a_job_that_began_anew_is_in_order_from_there_on() -> None:
    """A log that got shorter was begun again."""
    clock = b"1 40 node0.out\n1 2 node1.out\n2 2 node0.out\n3 4 node1.out\n"
    merge = Merge(1 << 20)
    found = merge.feed([("node0.out", 0, b"a\n"), ("node1.out", 0, b"b\nc\n"), (CLOCK, 0, clock)])
    assert [line for _, line in found] == [b"b\n", b"a\n", b"c\n"]
