"""What a submission that had to be made twice says, and why one failed; see test_submission.py."""

from __future__ import annotations

from rvstate.infra import drive, runs  # isort: skip - gevent first, see there

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import operation

from rvstate.errors import Interrupted
from rvstate.model.layout import Account, Layout
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change, Plan
from rvstate.model.resources import Tool
from rvstate.paths import RemotePath
from rvstate.script import Answer
from rvstate.transport import Local
from rvstate.workflows.run import submit
from rvstate.workflows.run.prepare import Prepared

WHO = Account("me", 1, RemotePath("/home/me"), RemotePath("/scratch/me"))


def test_what_was_kept_is_said_though_all_was_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt put files aside; the second one, which got the job, does not know."""
    attempts = [(None, False, ("aside /w/aside-1", "stale")), ("41", True, ("submitted 41",))]
    monkeypatch.setattr(submit, "_attempt", lambda *_args, **_more: attempts.pop(0))
    monkeypatch.setattr(submit, "replace", lambda prepared, **_changes: prepared)
    prepared = cast("Prepared", SimpleNamespace(known=None))
    job, new, said = submit._twice(cast("Any", None), prepared, lambda _: None, False)
    assert (job, new) == ("41", True)
    assert submit.told(said, prepared) == (
        "files in the workspace that were not sent from here are kept in /w/aside-1",
    )


@pytest.mark.parametrize(
    ("body", "errors", "said"),
    [
        (b"failed 0 rvstate: no Python with pip\n", "", "uv: no Python with pip"),
        (b"", "rvstate: another rvstate is changing this account\n", "uv: another rvstate is"),
        (b"", "", "uv: the script ended early"),
    ],
)
def test_a_resource_that_cannot_be_made_so_gives_its_reason(
    monkeypatch: pytest.MonkeyPatch, body: bytes, errors: str, said: str
) -> None:
    """In the script's own words, named after the resource."""
    report = drive.Report(True, False, Answer(1, (("", body),)), errors)
    monkeypatch.setattr(drive, "run", lambda *_: (report,))
    change = Change(Tool("uv", RemotePath("/scratch/me/.rv/tools"), None), Action.CREATE, "absent")
    observed = ObservedState(WHO, {}, {}, {}, {}, {}, {})
    with pytest.raises(runs.ConvergeError, match="Making tool as declared failed:") as caught:
        runs.run(
            cast("Any", None),
            Layout(WHO),
            Plan((change,)),
            observed,
            runs.Scripts(None, None, None),
            lambda _: None,
        )
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("steps", "unknown"),
    [((), False), (("sending the code",), False), (("sending the code", runs.SUBMITTING), True)],
)
def test_ctrl_c_never_leads_to_a_second_job(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...], unknown: bool
) -> None:
    """Before the submission nothing is left to take up; from then on only `--resume` may go on."""
    kept: dict[str, Any] = {}

    def interrupted(_session: object, _prepared: object, tell: Any, _repeated: bool) -> None:
        for step in steps:
            tell(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "_twice", interrupted)
    monkeypatch.setattr(submit, "receipt", lambda *_: {"run_id": "r"})
    state = SimpleNamespace(keep_receipt=lambda run_id, value: kept.update({run_id: value}))
    session, prepared = SimpleNamespace(state=state), SimpleNamespace(run_id="r")
    with pytest.raises(KeyboardInterrupt) as caught:
        submit.submit(cast("Any", session), cast("Any", prepared), lambda _: None)
    assert isinstance(caught.value, Interrupted) is unknown
    assert ("failed" in kept["r"]) is not unknown
    assert not unknown or "--resume" in cast("Any", caught.value).remedy


class _Last:
    """Something whose finaliser is running when Ctrl-C comes: Python drops the exception."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_operation_begins_after_a_ctrl_c_that_was_dropped(tmp_path: Path) -> None:
    """The step that is under way ends, the next one never begins; the old handler is back."""
    before = signal.getsignal(signal.SIGINT)
    begun: list[str] = []

    def tell(name: str) -> None:
        begun.append(name)
        if name == "first":
            _Last()

    @operation(is_idempotent=False)  # type: ignore[untyped-decorator] # pyinfra is untyped here
    def write(file: str) -> Iterator[str]:
        yield f"echo >{tmp_path / file}"

    steps = tuple(drive.Step(n, write, {"file": n}) for n in ("first", "second"))
    with pytest.raises(KeyboardInterrupt):
        drive.run(Local(), steps, tell)
    assert begun == ["first"]
    assert not (tmp_path / "second").exists()
    assert signal.getsignal(signal.SIGINT) is before
