"""The receipt of a run, by any of its three names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rvstate.script import Script
from tests.runkit import run, write

RUNS = {
    "20260102-030405-00000001": ("7", "rv-train"),
    "20260102-030406-00000002": ("17", 'odd "name" \udce9'),
    "20260102-030407-00000003": ("8", "rv-train"),
    "20260102-030408-00000004": (None, "rv-train2"),
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("7", 0),
        ("17", 1),
        ("20260102-030405-00000001", 0),
        ("rv-train", 2),
        ("rv-train2", 3),
        ('odd "name" \udce9', 1),
        ("1", None),
        ("rv-trai", None),
        ("20260102", None),
        ("../runs/20260102-030405-00000001", None),
        (".", None),
        ("--help", None),
        ("", None),
    ],
)
def test_one_is_found_by_its_whole_name_only(
    tmp_path: Path, wanted: str, found: int | None
) -> None:
    """A job id, a run id, or a name, whose newest run it is; a part of one names nothing."""
    for run_id, (job, name) in RUNS.items():
        told = {"run_id": run_id, "name": name, "command": ["--x", f'"name": "{wanted}"']}
        write(tmp_path / "runs" / run_id, {"receipt.json": json.dumps(told)})
        if job:
            write(tmp_path / "runs" / run_id, {"job": f"{job}\n", "package/job": f"{wanted}\n"})
    name = f'"name": {json.dumps(wanted)}'
    args = (str(tmp_path), "", str(tmp_path / "runs"), wanted, name)
    answer = run(Script("find_receipt", args)).answer
    assert answer is not None
    assert answer.status == 0
    if found is None:
        assert answer.first("receipt") == b""
    else:
        assert json.loads(answer.first("receipt"))["run_id"] == [*RUNS][found]
        assert answer.first("job").decode().strip() == ([*RUNS.values()][found][0] or "")


def test_an_account_without_runs_has_none(tmp_path: Path) -> None:
    """No directory of runs is no error."""
    args = (str(tmp_path), "", str(tmp_path / "runs"), "7", '"name": "7"')
    answer = run(Script("find_receipt", args)).answer
    assert answer is not None
    assert (answer.status, answer.first("receipt")) == (0, b"")
