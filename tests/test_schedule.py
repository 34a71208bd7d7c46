"""Which schedule is taken, and what must change until it is so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rvstate import cron, diff, probe, rcblock, schedule
from rvstate.model.layout import Account
from rvstate.model.observed import ObservedState
from rvstate.model.plan import Action, Change
from rvstate.model.resources import DesiredState, Schedule
from rvstate.model.settings import SCHEDULES, ScratchKeepalive
from rvstate.model.site import Purge, Scheduling, Site
from rvstate.paths import RemotePath
from rvstate.schedule import HERE, Plain
from rvstate.script import Script

WHO = Account("me", 1, RemotePath("/home/me"), RemotePath("/scratch/me"), node="login1")
DIR = "/scratch/me/.rv/schedule"
PLAIN = Plain(
    "me@there",
    ("/usr/bin/python3", "-m", "rvstate"),
    {},
    "/home/laptop/log",
    Script("keepalive", ("touch",)),
    ("--account=lab",),
    "04:17",
)
FOREIGN = "# mine\n0 0 1 1 * true\n"
ANEW = ["remove", "install"]
ALL = Site("s", "S", scheduling=Scheduling("allowed", "allowed", "allowed"))


def wanted(how: str = "remote-cron", refusal: str = "") -> Schedule:
    return schedule.resource(how, refusal, PLAIN, DIR, (how,))


def said(how: str, text: str = "", end: str = "0\n", record: str = "") -> dict[str, str]:
    found = {how: text, f"{how}-end": end}
    return found | ({"record": record} if record else {})


def change(resource: Schedule, *looks: dict[str, str], whole: bool = True) -> Change:
    """The change for a look at the cluster, or at this machine."""
    merged: dict[str, str] = {}
    for look in looks:
        merged |= look
    digest = schedule._digest(resource.program) if whole else "other"
    schedules: tuple[dict[str, str], dict[str, str]] = ({}, {})
    schedules[resource.here].update(merged)
    observed = ObservedState(WHO, {}, {f"{DIR}/run": digest}, {}, {}, {}, {}, schedules=schedules)
    plan = diff.plan(DesiredState((resource,)), observed)
    if not plan.all:
        return Change(resource, Action.NO_OP, "nothing to count")
    (found,) = plan.all
    return found


def installed(how: str) -> str:
    """A table with our entry in it."""
    return cron.put(FOREIGN, wanted(how).owner, wanted(how).lines)


@pytest.mark.parametrize("how", ["remote-cron", "scrontab", "local-cron"])
def test_a_table_in_every_state(how: str) -> None:
    """Put there, left as it is, brought up to date, taken out; other lines stay."""
    node = "laptop" if how == "local-cron" else "login1"
    record = f"{how} {node} 04:17"
    there = installed(how)
    made = change(wanted(how), said(how, FOREIGN))
    assert (made.action, made.detail[0], made.detail[3]) == (Action.CREATE, "install", there)
    assert "mine" not in made.before + made.after
    assert change(wanted(how), said(how, there, record=record)).action is Action.NO_OP
    gone = change(wanted(how), said(how, FOREIGN, record=record))
    assert (gone.action, gone.detail[3]) == (Action.UPDATE, there)
    late = replace(PLAIN, time="05:00")
    other = schedule.resource(how, "", late, DIR, (how,))
    moved = change(other, said(how, there, record=record))
    assert (moved.action, "0 5 * * *" in moved.detail[3]) == (Action.UPDATE, True)
    none = Schedule(here=how in HERE, account=wanted(how).account, path=DIR)
    removed = change(none, said(how, there, record=record))
    assert (removed.action, removed.detail[0]) == (Action.REMOVE, "remove")
    assert removed.detail[3] == FOREIGN
    # a removal that was killed behind the table
    again = change(none, said(how, FOREIGN, record=record))
    assert (again.action, again.detail[3]) == (Action.REMOVE, FOREIGN)
    assert change(none).action is Action.NO_OP


@pytest.mark.parametrize("how", ["remote-cron", "scrontab", "local-cron"])
@pytest.mark.parametrize("text", ["", FOREIGN])
def test_a_table_that_nobody_can_read_is_refused(how: str, text: str) -> None:
    """Installed or not, wanted or not: nothing is written where `crontab -l` failed."""
    broken = said(how, text, "1\ncrontab: Permission denied")
    for look in (broken, broken | {"record": f"{how} login1 04:17"}):
        found = change(wanted(how), look)
        assert found.action is Action.REFUSE
        assert "Permission denied" in found.reason
        assert found.ways_out
    none = Schedule(here=how in HERE, account=wanted(how).account, path=DIR)
    assert change(none, broken | {"record": f"{how} login1 04:17"}).action is Action.REFUSE
    nobody = said(how, "no crontab for me\n", "1\n")
    assert change(wanted(how), nobody).action is Action.CREATE


def test_a_damaged_block_and_another_program() -> None:
    """Half a block is refused; a program that differs is written again."""
    found = change(wanted(), said("remote-cron", f"{FOREIGN}{rcblock.BEGIN}\n"))
    assert found.action is Action.REFUSE
    record = "remote-cron login1 04:17"
    there = said("remote-cron", installed("remote-cron"), record=record)
    assert change(wanted(), there, whole=False).action is Action.UPDATE


def test_the_crontab_of_another_node() -> None:
    """What was put on one login node is not put on the next one, and not taken for gone."""
    elsewhere = said("remote-cron", FOREIGN, record="remote-cron login2 04:17")
    found = change(wanted(), elsewhere)
    assert (found.action, "login2" in found.reason) == (Action.NO_OP, True)
    late = schedule.resource("remote-cron", "", replace(PLAIN, time="05:00"), DIR, ())
    assert change(late, elsewhere).action is Action.REFUSE
    removed = change(Schedule(path=DIR), elsewhere)
    assert (removed.action, "login2" in removed.ways_out[0]) == (Action.REFUSE, True)


@pytest.mark.parametrize(
    ("jobs", "record", "action", "verbs"),
    [
        ("", "", Action.CREATE, ["install"]),
        ("7 PENDING 1\n", "sbatch-chain login1 04:17", Action.NO_OP, []),
        ("", "sbatch-chain login1 04:17", Action.UPDATE, ["install"]),
        ("7 PENDING 1\n8 PENDING 1\n", "sbatch-chain login1 04:17", Action.UPDATE, ANEW),
        ("7 PENDING 1\n", "sbatch-chain login1 05:00", Action.UPDATE, ANEW),
    ],
)
def test_a_chain_in_every_state(jobs: str, record: str, action: Action, verbs: list[str]) -> None:
    """Started, left alone, started again when it died, and never two."""
    found = change(wanted("sbatch-chain"), said("sbatch-chain", jobs, record=record))
    assert found.action is action, found.reason
    assert list(found.detail[::4]) == verbs
    silent = said("sbatch-chain", "", "1\nslurm_load_jobs error", record)
    assert change(wanted("sbatch-chain"), silent).action is Action.REFUSE


def test_an_entry_that_slurm_disabled_is_put_again() -> None:
    """A cancelled job of scrontab leaves its lines commented out: that is said, and mended."""
    disabled = installed("scrontab").replace("17 4", "#DISABLED: 17 4")
    disabled = disabled.replace("#SCRON", "#DISABLED: #SCRON")
    found = change(wanted("scrontab"), said("scrontab", disabled, record="scrontab login1 04:17"))
    assert (found.action, "cancelled" in found.reason) == (Action.UPDATE, True)
    assert found.detail[3] == installed("scrontab")


def test_one_kind_takes_anothers_place() -> None:
    """The former one goes first, in the same change."""
    found = change(
        wanted("scrontab"),
        said("remote-cron", installed("remote-cron"), record="remote-cron login1 04:17"),
        said("scrontab", "no crontab for me\n", "1\n"),
    )
    assert found.action is Action.UPDATE
    assert [found.detail[0], found.detail[1]] == ["remove", "remote-cron"]
    assert found.detail[3] == FOREIGN
    assert [found.detail[4], found.detail[5]] == ["install", "scrontab"]


def test_what_each_kind_is_made_of() -> None:
    """Who pays and what is run is in the lines, and in the program that the cluster runs."""
    assert "#SCRON --account=lab\n17 4 * * * sh " in wanted("scrontab").lines
    assert "--begin=04:17" in wanted("sbatch-chain").program
    assert "--account=lab" in wanted("sbatch-chain").program
    assert wanted("first-command").time == wanted("first-command").lines == ""
    for how in SCHEDULES:
        assert wanted(how).here is (how in HERE)
        assert bool(wanted(how).program) is (how not in HERE)
        usual = schedule.usual_time(how, "me@there")
        assert ("10:00" <= usual < "16:00") if how in HERE else ("01:00" <= usual < "06:00")


def test_automatic_takes_the_first_that_may_and_can() -> None:
    """In the order of the settings; what the site does not know it does not take."""
    found = schedule.options(ALL, alone=False)
    lacks: dict[str, str] = {}
    taken = []
    for _ in SCHEDULES:
        how, refusal = schedule.choose("auto", schedule.lacking(found, lacks))
        assert not refusal
        taken.append(how)
        lacks[how] = "it is not there"
    assert tuple(taken) == SCHEDULES
    unknown = schedule.options(Site("s", "S"), alone=True)
    assert schedule.choose("auto", unknown) == ("first-command", "")


@pytest.mark.parametrize(
    ("wanted", "purge", "how"),
    [
        ({}, {}, "first-command"),
        ({"schedule": "none"}, {}, ""),
        ({"schedule": "auto"}, {}, "auto"),
        ({"enabled": False}, {}, ""),
        ({"mode": "heal"}, {}, ""),
        ({"mode": "heal", "schedule": "scrontab"}, {}, "scrontab"),
        ({}, {"mode": "heal"}, ""),
        ({}, {"touch_policy": "forbidden"}, ""),
        ({"permission": "ticket 1"}, {"touch_policy": "forbidden"}, "first-command"),
        ({}, {"touch_policy": "ineffective"}, ""),
        ({}, {"days": None}, ""),
        ({}, {"clock": "data"}, ""),
    ],
)
def test_the_usual_schedule(wanted: dict[str, Any], purge: dict[str, Any], how: str) -> None:
    """Where files are touched and may be, the first command of a day does it; nowhere else."""
    usual = Purge(90, "atime", "silent", mode="touch")
    assert ScratchKeepalive(**wanted).scheduled(replace(usual, **purge)) == how


def test_the_usual_one_needs_no_look() -> None:
    """Put in place it is as declared, by its record alone."""
    usual = Schedule("first-command", here=True)
    assert change(usual, {"record": "first-command laptop -"}).action is Action.NO_OP


def test_one_that_is_named_is_taken_or_refused() -> None:
    """Unknown to the profile it is taken, forbidden or impossible it is not."""
    unknown = schedule.options(Site("s", "S"), alone=False)
    assert schedule.choose("scrontab", unknown) == ("scrontab", "")
    lacking = schedule.lacking(unknown, {"scrontab": "there is no scrontab"})
    assert schedule.choose("scrontab", lacking) == ("scrontab", "there is no scrontab")
    strict = schedule.options(Site("s", "S", scheduling=Scheduling("forbidden")), alone=True)
    assert "does not allow" in schedule.choose("remote-cron", strict)[1]
    assert schedule.choose("local-cron", strict)[1]
    assert schedule.choose("", strict) == ("", "")
    assert change(wanted("remote-cron", "the site does not allow it")).action is Action.REFUSE


def test_the_look_asks_only_what_is_needed() -> None:
    """Without a schedule one word; with one also the digest of what runs."""
    none = Schedule(path=DIR)
    assert probe.questions(DesiredState((none,))) == (("schedule", ""),)
    asked = probe.questions(DesiredState((wanted(), Schedule(here=True))))
    assert asked == (("schedule", "remote-cron"), ("digest", f"{DIR}/run"))
