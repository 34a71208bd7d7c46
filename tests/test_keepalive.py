"""Which policy follows from settings and profile, and the answers read back."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from rvstate import keepalive
from rvstate.errors import ProbeError, RefusedError
from rvstate.keepalive import Last, Place
from rvstate.model.settings import ScratchKeepalive, Settings
from rvstate.model.site import Purge, Site
from rvstate.script import Answer

URL = "https://example.org/purge"
SILENT = Purge(90, "atime", "silent", URL, "touch")


def policy(purge: Purge, **wanted: object) -> keepalive.Policy:
    settings = Settings(scratch_keepalive=ScratchKeepalive(**wanted))  # type: ignore[arg-type]
    return keepalive.policy(settings, Site("s", "S", purge=purge))


@pytest.mark.parametrize(
    ("purge", "wanted", "mode", "refused"),
    [
        (SILENT, {}, "touch", False),
        (SILENT, {"enabled": False}, "off", False),
        (SILENT, {"mode": "off"}, "off", False),
        (SILENT, {"mode": "report"}, "report", False),
        (replace(SILENT, mode="heal"), {}, "heal", False),
        (replace(SILENT, mode="heal"), {"mode": "touch"}, "touch", False),
        (replace(SILENT, touch_policy="allowed"), {"mode": "touch"}, "touch", False),
        (replace(SILENT, touch_policy="forbidden"), {"mode": "touch"}, "touch", True),
        (replace(SILENT, touch_policy="forbidden", mode="heal"), {}, "heal", False),
        (
            replace(SILENT, touch_policy="forbidden"),
            {"mode": "touch", "permission": "T1"},
            "touch",
            False,
        ),
        (replace(SILENT, touch_policy="unknown"), {"mode": "touch"}, "touch", True),
        (
            replace(SILENT, touch_policy="ineffective"),
            {"mode": "touch", "permission": "T1"},
            "touch",
            True,
        ),
        (replace(SILENT, clock="data"), {"mode": "touch", "permission": "T1"}, "touch", True),
        (replace(SILENT, clock="unknown"), {"mode": "touch"}, "touch", True),
        (replace(SILENT, days=None), {"mode": "touch"}, "touch", True),
        (Purge(clock="none"), {"mode": "touch"}, "off", False),
        (Purge(), {}, "heal", False),
    ],
)
def test_policy(purge: Purge, wanted: dict[str, object], mode: str, refused: bool) -> None:
    """What the user wants is done only where the site's policy lets it."""
    found = policy(purge, **wanted)
    assert (found.mode, bool(found.refusal)) == (mode, refused)
    if refused:
        with pytest.raises(RefusedError) as error:
            found.allowed()
        assert "heal" in error.value.remedy
        assert URL in error.value.message


def test_the_page_to_read_and_the_permission_are_named() -> None:
    """Silence is told with its page, an override with its permission."""
    assert "silent" in policy(SILENT).note
    assert URL in policy(SILENT).note
    forbidden = replace(SILENT, touch_policy="forbidden")
    assert "ticket 17" in policy(forbidden, mode="touch", permission="ticket 17").note


@pytest.mark.parametrize(
    ("checked", "said"),
    [("2025-01-01", "last checked"), ("2026-01-01", ""), (None, ""), ("soon", "no date")],
)
def test_old_profiles_are_told(checked: str | None, said: str) -> None:
    """A profile that nobody compared with the site's pages for a year."""
    found = keepalive.outdated(Site("s", "S", checked=checked), date(2026, 11, 21))
    assert said in found
    assert bool(found) is bool(said)


def test_a_run_is_read() -> None:
    """Counts, the first troubles, and who is at work already."""
    text = b"now 5\nfound 12\ntrouble find: x\nfailed 2\ntroubles 3\n"
    found = keepalive.ran(Answer(0, (("", text),)))
    assert (found.touched, found.trouble_count, found.troubles) == (10, 3, ("find: x",))
    assert keepalive.ran(Answer(0, (("", b"now 5\nbusy node 17\n"),))).busy == "process 17 on node"
    with pytest.raises(ProbeError, match="interrupted"):
        keepalive.ran(Answer(0, (("", b"now 5\n"),)))
    with pytest.raises(ProbeError, match="no room"):
        keepalive.ran(Answer(1, (("", b"now 5\n"),), "noise\nrvstate: no room\n"))


def test_a_report_is_read() -> None:
    """Days left are counted by the cluster's own clock; names keep their blanks."""
    now = 1_000_000_000
    text = (
        f"now {now}\nplace 3 100 1 {now - 80 * 86400} 2 my cache\nplace 0 0 0 0 0 pip\n"
        f"failed 0\ntroubles 0\nvictims 4\nsuccess {now - 5}\n"
        "last ended 7\nlast action touch\nlast troubles 1\nlast trouble find: x\n"
    )
    found = keepalive.report(Answer(0, (("", text.encode()),)), policy(SILENT))
    assert found.places == (Place("my cache", 3, 100, 1, 10, 2), Place("pip", 0, 0, 0, None, 0))
    assert (found.success, found.victims) == (now - 5, 4)
    assert found.last == Last(7, "touch", 1, "find: x")


def test_this_machines_clock_decides_about_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days left, and how long ago, are counted between dates that the cluster told."""
    monkeypatch.setattr("time.time", lambda: 1e6)
    text = "now 2000000000\nplace 3 10 1 1996544000 0 uv\nsuccess 1999913600\ntroubles 0\n"
    found = keepalive.report(Answer(0, (("", text.encode()),)), policy(SILENT))
    (place,) = found.places
    assert place.days_left == (SILENT.days or 0) - 40
    assert found.success is not None
    assert found.now - found.success == 86400
