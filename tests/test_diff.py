"""Every kind of resource against everything that may lie in its place."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest

from rvstate import diff, rcblock
from rvstate.model.layout import Account
from rvstate.model.observed import (
    Absent,
    Built,
    Entry,
    ObservedState,
    Original,
    Present,
    Space,
    Tree,
    Unreadable,
)
from rvstate.model.plan import Action, Plan
from rvstate.model.resources import (
    CacheLink,
    ConfigFile,
    DesiredState,
    Directory,
    EnvFile,
    Environments,
    Kept,
    Resource,
    ScriptSet,
    ShellBlock,
    Tool,
)
from rvstate.paths import RemotePath
from rvstate.size import human_bytes

ME, OTHER = 1000, 2000
HOME, SCRATCH = RemotePath("/home/u"), RemotePath("/scratch/u")
UV = CacheLink("uv", HOME / ".cache" / "uv", SCRATCH / ".cache" / "uv")
BLOCK = ShellBlock(HOME / ".bashrc", "export A=1\n")
ENV = EnvFile(SCRATCH / "user.env", "d" * 64, ("TOKEN",), "export TOKEN=hunter2\n")
SCRIPTS = ScriptSet(SCRATCH / "lib" / "x", "x", (("job.sh", "e" * 64, "text"),))
PRIVATE = Directory(SCRATCH / ".rv", 0o700)
ANY = Directory(SCRATCH / "any", links=True)
SITE = Directory(SCRATCH, create=False, owned=False)
UV_TOOL = Tool("uv", SCRATCH / "tools")


def seen(entries: dict[str, Entry] | None = None, **more: Any) -> ObservedState:
    found: dict[str, Any] = {
        "account": Account("u", ME, HOME, SCRATCH),
        "entries": entries or {},
        "digests": {},
        "texts": {},
        "trees": {},
        "spaces": {},
        "tools": {"rsync": "/usr/bin/rsync"},
    }
    return ObservedState(**(found | more))


def one(resource: Resource, observed: ObservedState, **more: Any) -> Any:
    (change,) = diff.plan(DesiredState((resource,)), observed, **more).all
    return change


def directory(mode: int = 0o755, uid: int = ME) -> Present:
    return Present("d", mode, uid, 4096)


def file(mode: int = 0o644, uid: int = ME) -> Present:
    return Present("f", mode, uid, 10)


def link(target: str, leads_to: str = "d") -> Present:
    return Present("l", 0o777, ME, 10, target, leads_to)


PIPE = Present("o", 0o644, ME, 0)
CLOSED = Unreadable("/home")
OURS = rcblock.replace("# mine\n", BLOCK.body)
TEXT = {"texts": {BLOCK.path: OURS}}
TREES = {"trees": {UV.path: Tree(1000, 5)}}
GOOD_ENV = {"digests": {ENV.path: ENV.digest}}

CASES: list[tuple[str, Resource, Entry, dict[str, Any], Action, str]] = [
    # directories
    ("absent", PRIVATE, Absent(), {}, Action.CREATE, "it is absent"),
    ("right", PRIVATE, directory(0o700), {}, Action.NO_OP, "it is there"),
    ("wrong mode", PRIVATE, directory(0o755), {}, Action.UPDATE, "its mode is 0755"),
    ("foreign", PRIVATE, directory(0o700, OTHER), {}, Action.REFUSE, "another user (uid 2000)"),
    ("file", PRIVATE, file(), {}, Action.REFUSE, "a file, mode 0644 is in the way"),
    ("link", PRIVATE, link("/else"), {}, Action.REFUSE, "a link to /else is in the way"),
    ("pipe", PRIVATE, PIPE, {}, Action.REFUSE, "a special file is in the way"),
    ("closed", PRIVATE, CLOSED, {}, Action.REFUSE, "/home may not be entered"),
    ("any mode", ANY, directory(0o711), {}, Action.NO_OP, "it is there"),
    ("own link", ANY, link("/else"), {}, Action.NO_OP, "it is a link to a directory"),
    ("dangling link", ANY, link("/else", "N"), {}, Action.REFUSE, "in the way"),
    ("site's, absent", SITE, Absent(), {}, Action.REFUSE, "a site makes it"),
    ("site's, root's", SITE, directory(0o755, 0), {}, Action.NO_OP, "it is there"),
    # cache links
    ("absent", UV, Absent(), {}, Action.CREATE, "it is absent"),
    ("right", UV, link(UV.target), {}, Action.NO_OP, "it leads there"),
    ("right, dangling", UV, link(UV.target, "N"), {}, Action.NO_OP, "it leads there"),
    ("right, with a slash", UV, link(UV.target + "/"), {}, Action.NO_OP, "it leads there"),
    (
        *("right, relative", UV, link("../../../scratch/u/.cache/uv"), {}),
        *(Action.NO_OP, "it leads there"),
    ),
    ("elsewhere", UV, link("/else"), {}, Action.REFUSE, "a link to /else, which rvstate did not"),
    ("directory", UV, directory(), TREES, Action.MIGRATE, "a real directory (5 entries, 1000 B)"),
    ("foreign directory", UV, directory(0o755, OTHER), TREES, Action.REFUSE, "another user"),
    (
        *("foreign entry", UV, directory(), {"trees": {UV.path: Tree(1, 1, "/home/u/x")}}),
        *(Action.REFUSE, "/home/u/x in it belongs to another user or may not be read"),
    ),
    ("no rsync", UV, directory(), TREES | {"tools": {}}, Action.REFUSE, "there is no rsync"),
    ("file", UV, file(), {}, Action.REFUSE, "a file, mode 0644 is in the way"),
    ("pipe", UV, PIPE, {}, Action.REFUSE, "a special file is in the way"),
    ("closed", UV, CLOSED, {}, Action.REFUSE, "/home may not be entered"),
    # start-up files
    ("absent", BLOCK, Absent(), {}, Action.CREATE, "it is absent"),
    ("right", BLOCK, file(), TEXT, Action.NO_OP, "our block is up to date"),
    ("right behind a link", BLOCK, link("x", "f"), TEXT, Action.NO_OP, "our block is up to date"),
    ("right, read-only", BLOCK, file(0o444), TEXT, Action.NO_OP, "our block is up to date"),
    ("no block", BLOCK, file(), {"texts": {BLOCK.path: "#"}}, Action.UPDATE, "it lacks our block"),
    (
        *("other block", BLOCK, file(), {"texts": {BLOCK.path: rcblock.replace("", "x\n")}}),
        *(Action.UPDATE, "our block differs"),
    ),
    (
        *("damaged", BLOCK, file(), {"texts": {BLOCK.path: rcblock.BEGIN + "\nx\n"}}),
        *(Action.REFUSE, "it begins and never ends"),
    ),
    (
        *("read-only", BLOCK, file(0o444), {"texts": {BLOCK.path: "#"}}),
        *(Action.REFUSE, "it is read-only"),
    ),
    (
        *("foreign", BLOCK, file(0o666, OTHER), {"strangers": frozenset({BLOCK.path})}),
        *(Action.REFUSE, "belongs to another user"),
    ),
    (
        *("foreign behind a link", BLOCK, link("/x", "f"), {"strangers": frozenset({BLOCK.path})}),
        *(Action.REFUSE, "a link to /x that belongs to another user"),
    ),
    ("too large", BLOCK, file(), {}, Action.REFUSE, "larger than 1 MiB or cannot be read"),
    ("unreadable", BLOCK, Unreadable(BLOCK.path), {}, Action.REFUSE, "may not be read"),
    ("closed", BLOCK, CLOSED, {}, Action.REFUSE, "/home may not be read"),
    ("directory", BLOCK, directory(), {}, Action.REFUSE, "a directory, mode 0755 is in the way"),
    ("dangling link", BLOCK, link("/x", "N"), {}, Action.REFUSE, "a link to /x is in the way"),
    ("pipe", BLOCK, PIPE, {}, Action.REFUSE, "a special file is in the way"),
    # the environment file
    ("absent", ENV, Absent(), {}, Action.CREATE, "it is absent"),
    ("right", ENV, file(0o600), GOOD_ENV, Action.NO_OP, "TOKEN"),
    ("readable by others", ENV, file(0o644), GOOD_ENV, Action.UPDATE, "its mode is 0644"),
    ("other", ENV, file(0o600), {"digests": {ENV.path: "0"}}, Action.UPDATE, "variables differ"),
    ("unreadable", ENV, file(0o000), {}, Action.UPDATE, "the variables differ"),
    ("foreign", ENV, file(0o600, OTHER), GOOD_ENV, Action.REFUSE, "is in the way"),
    ("link", ENV, link("/x", "f"), GOOD_ENV, Action.REFUSE, "a link to /x is in the way"),
    ("directory", ENV, directory(), {}, Action.REFUSE, "is in the way"),
    ("closed", ENV, CLOSED, {}, Action.REFUSE, "behind /home, which may not be entered"),
    # our scripts
    ("absent", SCRIPTS, Absent(), {}, Action.CREATE, "they are absent"),
    (
        *("right", SCRIPTS, Absent(), {"digests": {SCRIPTS.path / "job.sh": "e" * 64}}),
        *(Action.NO_OP, "they are whole"),
    ),
    (
        *("damaged", SCRIPTS, Absent(), {"digests": {SCRIPTS.path / "job.sh": "0"}}),
        *(Action.REPLACE, "some are damaged or gone"),
    ),
    # tools
    ("absent", UV_TOOL, Absent(), {"tools": {}}, Action.CREATE, "it is not installed"),
    ("found", UV_TOOL, Absent(), {"tools": {"uv": "/x/uv"}}, Action.NO_OP, "/x/uv"),
    # the config file here
    ("private", ConfigFile("/c", True), file(0o600), {}, Action.NO_OP, "it is private"),
    ("open", ConfigFile("/c", True), file(0o644), {}, Action.UPDATE, "others may read it"),
    ("no secret", ConfigFile("/c", False), file(0o644), {}, Action.NO_OP, "it holds no secret"),
    ("absent", ConfigFile("/c", True), Absent(), {}, Action.NO_OP, "it is private"),
]


@pytest.mark.parametrize(
    ("resource", "entry", "more", "action", "reason"),
    [case[1:] for case in CASES],
    ids=[f"{case[1].kind}: {case[0]}" for case in CASES],
)
def test_table(
    resource: Resource, entry: Entry, more: dict[str, Any], action: Action, reason: str
) -> None:
    """Each kind and what lies there: the action and its reason; a refusal has its ways out."""
    path = str(getattr(resource, "path", ""))
    change = one(resource, seen({} if isinstance(entry, Absent) else {path: entry}, **more))
    assert change.action is action
    assert reason in change.reason
    assert bool(change.ways_out) == (action is Action.REFUSE)


def test_no_secret_in_a_change() -> None:
    """Neither plan, diff nor a change's text for a log holds a variable's value."""
    for entry in (Absent(), file(0o600), file(0o644)):
        change = one(ENV, seen({ENV.path: entry}))
        shown = (repr(change), change.before, change.after, change.reason)
        assert "hunter2" not in "".join(shown)


def test_commands_in_ways_out_can_be_typed() -> None:
    """A way out that is a command is quoted for the shell."""
    odd = dataclasses.replace(UV, path=HOME / ".cache" / "a b;c")
    change = one(odd, seen({odd.path: file()}))
    assert "mv '/home/u/.cache/a b;c' '/home/u/.cache/a b;c.mine'" in change.ways_out[0]


def test_all_refusals_together() -> None:
    """One refusal does not hide another, and nothing may be applied then."""
    entries: dict[str, Entry] = {UV.path: file(), PRIVATE.path: file(), BLOCK.path: directory()}
    plan = diff.plan(DesiredState((UV, PRIVATE, BLOCK, ENV)), seen(entries))
    assert [c.resource for c in plan.refusals] == [UV, PRIVATE, BLOCK]
    assert [c.resource for c in plan.changes] == [ENV]
    assert not plan.may_be_applied


# ------------------------------------------------------------------------- ~/.cache a link
@pytest.mark.parametrize("text", ["/scratch/u/.cache", "../../scratch/u/.cache/"])
def test_cache_directory_is_a_link_to_scratch(text: str) -> None:
    """`~/.cache` as a whole on scratch is as good as each link."""
    change = one(UV, seen({UV.path.parent: link(text), UV.path: directory()}, **TREES))
    assert change.action is Action.NO_OP


def test_cache_directory_is_a_link_elsewhere() -> None:
    """`~/.cache` as a link to anywhere else is refused: its contents are not rvstate's to move."""
    change = one(UV, seen({UV.path.parent: link("/project/x"), UV.path: directory()}, **TREES))
    assert change.action is Action.REFUSE
    assert "/home/u/.cache itself is a link to /project/x" in change.reason


def test_cache_directory_is_a_link_to_what_will_be_made() -> None:
    """A link to scratch's cache directory is fine before that directory is there."""
    caches = Directory(HOME / ".cache", owned=False, links=True, leads_to=SCRATCH / ".cache")
    found = one(caches, seen({caches.path: link(SCRATCH / ".cache", "N")}))
    assert found.action is Action.NO_OP
    other = one(caches, seen({caches.path: link("/elsewhere", "N")}))
    assert other.action is Action.REFUSE


# ------------------------------------------------------------------- Hugging Face's sharing
def test_a_former_shared_link_is_turned_round() -> None:
    """A link that an earlier tool made to the group's directory is ours to turn round."""
    resource = dataclasses.replace(UV, formers=(RemotePath("/shared/hf"),))
    change = one(resource, seen({UV.path: link("/shared/hf/")}))
    assert change.action is Action.UPDATE
    assert change.detail == ("/shared/hf/",)
    assert "its former place; nothing there is touched" in change.reason


# ------------------------------------------------------------------------------------ loops
def test_a_target_that_links_back() -> None:
    """A target that is a link to the very directory is refused in the plan."""
    change = one(UV, seen({UV.path: directory(), UV.target: link(UV.path)}, **TREES))
    assert change.action is Action.REFUSE
    assert "is a link back to it" in change.reason


def test_a_target_inside_the_cache() -> None:
    """A target that lies in the directory that should move is refused in the plan."""
    inside = dataclasses.replace(UV, target=UV.path / "scratch" / "uv")
    change = one(inside, seen({UV.path: directory()}, **TREES))
    assert change.action is Action.REFUSE
    assert "lies in it" in change.reason


# ------------------------------------------------------------------------------------- room
GIB = 1 << 30


def room(
    free: int = 10 * GIB,
    inodes: int | None = 10**6,
    size: int = GIB,
    entries: int = 10,
    **more: Any,
) -> Any:
    spaces = {UV.target.parent: Space("/scratch", free, inodes)}
    trees = {UV.path: Tree(size, entries)}
    return one(UV, seen({UV.path: directory()}, spaces=spaces, trees=trees, **more))


def test_enough_room() -> None:
    """With room in bytes and inodes, or where inodes are not counted, a migration is planned."""
    assert room().action is Action.MIGRATE
    assert room(inodes=None).action is Action.MIGRATE


def test_too_few_bytes() -> None:
    """A migration that does not fit in bytes is refused with both figures."""
    change = room(free=GIB)
    assert change.action is Action.REFUSE
    assert change.reason == "it needs 1.0 GiB on /scratch, where 1.0 GiB are free"


def test_too_few_inodes() -> None:
    """A migration that does not fit in inodes is refused with both figures."""
    change = room(inodes=20, entries=100)
    assert change.action is Action.REFUSE
    assert change.reason == "it needs 100 inodes on /scratch, where 20 are free"


def test_what_was_copied_needs_no_room_again() -> None:
    """An interrupted migration may go on although not all of it would fit once more."""
    assert room(free=GIB // 2, copied={UV.target: GIB * 3 // 4}).action is Action.MIGRATE


def test_two_migrations_share_the_room() -> None:
    """The second of two that fit alone but not together is refused."""
    pip = CacheLink("pip", HOME / ".cache" / "pip", SCRATCH / ".cache" / "pip")
    observed = seen(
        {UV.path: directory(), pip.path: directory()},
        spaces={UV.target.parent: Space("/scratch", 3 * GIB, None)},
        trees={UV.path: Tree(2 * GIB, 1), pip.path: Tree(2 * GIB, 1)},
    )
    plan = diff.plan(DesiredState((UV, pip)), observed)
    assert [c.action for c in plan.all] == [Action.MIGRATE, Action.REFUSE]


# -------------------------------------------------------------------------------- originals
ASIDE = Original("/r/1", f"{UV.path}.rvstate-original-1-2", UV.target, 5000, 7, 1)
MOVING = dataclasses.replace(ASIDE, moving=True)


def test_originals_are_no_change() -> None:
    """What a migration kept is no change, until it is asked to go."""
    observed = seen({UV.path: link(UV.target)}, originals=(ASIDE,))
    assert diff.plan(DesiredState((UV,)), observed).empty
    plan = diff.plan(DesiredState((UV,)), observed, remove_originals=True)
    (change,) = plan.changes
    assert (change.kind, change.action) == ("cache", Action.REMOVE)
    assert change.resource == Kept(RemotePath(ASIDE.path), UV.target, "/r/1")
    assert "7 entries, 4.9 KiB" in change.reason


def test_originals_stay_when_caches_are_left_out() -> None:
    """`--skip cache` leaves originals alone as well."""
    plan = diff.plan(DesiredState((ENV,)), seen(originals=(ASIDE,)), remove_originals=True)
    assert [c.kind for c in plan.changes] == ["env"]


@pytest.mark.parametrize("entries", [{}, {UV.path: link(UV.target)}])
def test_an_interrupted_move_is_planned(entries: dict[str, Entry]) -> None:
    """A move that was killed between its steps is finished by the next converge."""
    change = one(UV, seen(entries, originals=(MOVING,)))
    assert change.action is Action.MIGRATE
    assert "was interrupted" in change.reason


def test_another_cache_s_interrupted_move_is_not_ours() -> None:
    """A record of another cache with a longer name changes nothing here."""
    other = dataclasses.replace(MOVING, path=f"{UV.path}2.rvstate-original-1-2")
    assert one(UV, seen({UV.path: link(UV.target)}, originals=(other,))).action is Action.NO_OP


# -------------------------------------------------------------------------------- full home
def full_home(free: int, inodes: int | None, *resources: Resource, **more: Any) -> Plan:
    removing = more.pop("remove_originals", False)
    spaces = {HOME: Space("/home", free, inodes), HOME / ".cache": Space("/home", free, inodes)}
    observed = seen(spaces=spaces, **more)
    plan = diff.plan(DesiredState(resources), observed, remove_originals=removing)
    return diff.for_full_home(plan, observed, remove_originals=removing)


def test_a_home_without_room_is_said_before_anything_is_written() -> None:
    """A block that does not fit into a full home, or a link without inode, is refused."""
    plan = full_home(1000, None, UV, BLOCK)
    assert [c.action for c in plan.all] == [Action.CREATE, Action.REFUSE]
    assert plan.refusals[0].reason == "/home has 1000 B free"
    plan = full_home(GIB, 0, UV, BLOCK)
    assert [c.action for c in plan.all] == [Action.REFUSE, Action.REFUSE]
    assert plan.refusals[0].reason == "/home has no inode left for a new file"


def test_a_full_home_names_what_would_free_it() -> None:
    """The first way out is the flag that frees space safely, with how much it frees."""
    plan = full_home(0, 0, BLOCK, originals=(ASIDE,))
    assert (
        plan.refusals[0]
        .ways_out[0]
        .startswith("rvstate converge --remove-originals, which frees 4.9 KiB")
    )


def test_a_full_home_is_helped() -> None:
    """With originals removed, caches come first and make room for the rest: nothing is refused."""
    plan = full_home(0, 0, UV, BLOCK, originals=(ASIDE,), remove_originals=True)
    assert [c.action for c in plan.all] == [Action.CREATE, Action.CREATE, Action.REMOVE]
    assert [kind for kind, _ in plan.by_kind()] == ["cache", "shell"]


def test_what_makes_room_comes_first() -> None:
    """Among caches: a group's parts, then removals, then migrations, then new links."""
    part = CacheLink("huggingface/hub", SCRATCH / "hf" / "hub", RemotePath("/g/hub"), shared=True)
    new = CacheLink("pip", HOME / ".cache" / "pip", SCRATCH / ".cache" / "pip")
    observed = seen({UV.path: directory()}, originals=(ASIDE,), **TREES)
    plan = diff.plan(DesiredState((new, UV, part)), observed, remove_originals=True)
    ((kind, changes),) = plan.by_kind()
    assert kind == "cache"
    assert [c.resource.name for c in changes] == [
        *("huggingface/hub", "uv.rvstate-original-1-2", "uv", "pip"),
    ]


def test_a_home_with_room() -> None:
    """A home with room, or one that counts no inodes, refuses nothing."""
    for inodes in (1, None):
        assert full_home(GIB, inodes, UV, BLOCK).refusals == ()


def test_block_detail_is_what_the_look_saw() -> None:
    """The write is bound to the very text that the plan was made from."""
    digest = hashlib.sha256(b"#").hexdigest()
    observed = seen({BLOCK.path: file()}, texts={BLOCK.path: "#"}, digests={BLOCK.path: digest})
    change = one(BLOCK, observed)
    assert change.detail == (digest, change.after)
    assert change.before == "#"
    assert BLOCK.body in change.after


def test_human_bytes() -> None:
    """Sizes as people read them."""
    assert [human_bytes(n) for n in (0, 1023, 1536, 5 << 30, 3 << 50)] == [
        *("0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3072.0 TiB"),
    ]


@pytest.mark.parametrize(
    ("found", "action"),
    [
        (Built("d1", runs=True), Action.NO_OP),
        (Built("d1", runs=True, walked=5), Action.NO_OP),
        (Built("d1", runs=True, walked=5, damaged=True), Action.REMOVE),
        (Built("", runs=True), Action.REMOVE),
        (Built("d1", runs=False), Action.REMOVE),
        (Built("", runs=False), Action.REMOVE),
        (Built("d1", runs=False, recipe=True), Action.REPLACE),
        (Built("d1", runs=True, recipe=True), Action.NO_OP),
    ],
)
def test_each_environment_is_a_resource_of_its_own(found: Built, action: Action) -> None:
    """The look finds them; one that is known to be damaged is not left in use."""
    envs = SCRATCH / ".rv/envs"
    wanted = DesiredState((Environments(envs),))
    plan = diff.plan(wanted, seen(environments={envs / "app/main": found}))
    assert [(c.resource.name, c.action) for c in plan.all] == [("app/main", action)]
    assert diff.plan(wanted, seen()).all == ()
