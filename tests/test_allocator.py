"""Which type of GPU a request gets that names none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import allocator, config, request
from rvstate.allocator import Choice, Estimate
from rvstate.errors import ConfigError, RefusedError
from rvstate.model.settings import Defaults, Settings
from rvstate.request import Request
from rvstate.slurm.options import SbatchOptions
from rvstate.slurm.sinfo import Gres, Node

UVA = config.load_site("uva")
GENERIC = config.load_site("generic")
PLAIN = Settings(defaults=Defaults(time="2:00:00"))
NOW = 1795277496


def kinds(wanted: Request, settings: Settings = PLAIN) -> list[str]:
    return [c.kind for c in allocator.choices(wanted, settings, UVA).found]


def test_every_whole_gpu_that_is_enough_may_serve() -> None:
    """By the site's data, and a slice never unless it is named."""
    found = allocator.choices(Request(gpus=1), PLAIN, UVA)
    assert [c.kind for c in found.found] == [n for n in UVA.gpu_names() if n != "mig"]
    assert {c.kind: c.units for c in found.found}["a6000"] == pytest.approx(2 * 142.73)
    assert kinds(Request(gpus=1, gpu_mem="48G")) == ["a6000", "a40", "a100_80", "h200"]
    assert kinds(Request(gpu_mem="80G")) == ["a100_80", "h200"]


def test_the_walltime_is_what_was_asked_for() -> None:
    """No choice is sooner because it is shorter, and Slurm may not make it so."""
    for wanted in (Request(gpus=1, time="9h"), Request(gpus=1, gpu_mem="40G")):
        for found in allocator.choices(wanted, PLAIN, UVA).found:
            assert found.options.time == (9 * 3600 if wanted.time else 7200)
            assert found.options.raw == ()
            assert not any("time" in word for word in found.words)


def test_what_does_not_fit_says_why() -> None:
    """Memory, count, time and partition are checked before the scheduler is asked."""
    left = dict(allocator.choices(Request(gpus=3, gpu_mem="32G"), PLAIN, UVA).left_out)
    assert left["rtx3090"] == "it has 24 GiB"
    left = dict(allocator.choices(Request(gpus=5), PLAIN, UVA).left_out)
    assert set(left) == {"rtx3090", "v100", "h200"}
    assert kinds(Request(gpus=1, partition="gpu-a40,gpu-a6000")) == ["a6000", "a40"]
    # one that nobody described is believed, for the data may be older than the site
    everywhere = allocator.choices(Request(gpus=1, partition="gpu-new"), PLAIN, UVA).found
    assert {c.options.partition for c in everywhere} == {"gpu-new"}
    assert len({c.options.gpus for c in everywhere}) == 7
    with pytest.raises(RefusedError, match="a100_80: it has 80 GiB"):
        allocator.choices(Request(gpus=1, gpu_mem="200G"), PLAIN, UVA)


def test_all_choices_have_one_shape() -> None:
    """A command is right for one number of nodes: four on each of two are not eight on one."""
    site = replace(
        UVA,
        gpus={
            "one": replace((UVA.gpus or {})["a40"], per_node=8),
            "two": replace((UVA.gpus or {})["v100"], per_node=4, per_job=8),
        },
    )
    found = allocator.choices(Request(gpus=8), PLAIN, site)
    assert [c.kind for c in found.found] == ["one"]
    assert found.left_out == (("two", "it would take 2 nodes, where others take 1"),)


def test_names_leave_only_their_choice() -> None:
    """One name is that type; several, or `any` over a default, leave a choice."""
    default = Settings(defaults=Defaults(gpu_type="a40", time="1h"))
    cases = [
        (Request(gpus=1, gpu_type="a40"), PLAIN, False),
        (Request(gpus=1), default, False),
        (Request(gpus=1, gpu_type="any"), default, True),
        (Request(gpu_type="a40,A100"), PLAIN, True),
        (Request(gpus=1), PLAIN, True),
        (Request(gpus=0), PLAIN, False),
        (Request(), PLAIN, False),
        (Request(mig=True), PLAIN, False),
    ]
    for wanted, settings, leaves in cases:
        assert request.leaves_choice(wanted, settings, UVA) is leaves, wanted
        if leaves:
            assert len(allocator.choices(wanted, settings, UVA).found) > 1
    assert kinds(Request(gpu_type="a40,A100")) == ["a40", "a100_80"]
    with pytest.raises(ConfigError, match="b200"):
        kinds(Request(gpu_type="a40,b200"))


def test_a_named_type_with_too_little_memory_is_refused() -> None:
    """Two words of the user contradict each other; nothing is taken in its place."""
    with pytest.raises(RefusedError, match="it has 48 GiB"):
        allocator.choices(Request(gpu_type="a40", gpu_mem="80G"), PLAIN, UVA)
    with pytest.raises(RefusedError, match="it has 10 GiB"):
        allocator.choices(Request(mig=True, gpu_mem="20G"), PLAIN, UVA)
    found = allocator.choices(Request(gpu_type="a100", gpu_mem="80G"), PLAIN, UVA)
    assert found.found[0].options.gpus == ("a100", 1)


def test_where_nobody_described_the_site_slurm_is_asked_for_any() -> None:
    """Memory cannot be promised there."""
    found = allocator.choices(Request(gpu_type="any"), PLAIN, GENERIC)
    assert found.found[0].options.gpus == (None, 1)
    with pytest.raises(RefusedError, match="nobody wrote down"):
        allocator.choices(Request(gpus=1, gpu_mem="20G"), PLAIN, GENERIC)


def choice(kind: str, units: float | None = None, **more: str) -> Choice:
    asked = SbatchOptions(partition=f"gpu-{kind}", gpus=(kind, 2), time=7200, **more)  # type: ignore[arg-type]
    return Choice(kind, asked, units)


@pytest.mark.parametrize(
    ("said", "start"),
    [
        (
            "sbatch: Job 1 to start at 1795277500 using 1 processors on nodes a in partition b",
            NOW + 4,
        ),
        # a Slurm that gives only a clock face: the cluster's own, wherever this machine is
        ("sbatch: Job 1 to start at 2026-11-21T22:11:36 using 1 processors on nodes a", NOW + 3600),
        ("sbatch: Job 1 to start at N/A using 1 processors", None),
        ("", None),
    ],
)
def test_an_estimate_is_read_in_the_clusters_own_time(said: str, start: int | None) -> None:
    """The clusters' clock stands beside it, so no zone has to be known."""
    clock = (NOW, "2026-11-21T21:11:36")
    found = allocator.read_estimate(choice("a40"), 0, said, clock)
    assert (found.start, found.refusal) == (start, "")


def test_a_refusal_is_told_in_slurms_words() -> None:
    """And such a type is never asked for."""
    said = "allocation failure: More processors requested than permitted\n"
    found = allocator.read_estimate(choice("a40"), 1, said, (NOW, ""))
    assert found.refusal == "More processors requested than permitted"
    assert allocator.ranked([found], NOW) == ()


def test_what_nobody_waits_for_is_ranked_by_cost_and_the_rest_by_time() -> None:
    """Cheap within five minutes; then early; then unknown."""
    estimates = [
        Estimate(choice("unknown", 1.0)),
        Estimate(choice("late", 1.0), NOW + 90000),
        Estimate(choice("early", 900.0), NOW + 4000),
        Estimate(choice("dear", 500.0), NOW),
        Estimate(choice("cheap", 20.0), NOW + allocator.SOON),
        Estimate(choice("unpriced"), NOW),
    ]
    best = allocator.ranked(estimates, NOW)
    assert [e.choice.kind for e in best] == [
        "cheap", "dear", "unpriced", "early", "late", "unknown",
    ]  # fmt: skip
    assert [c.kind for c in allocator.chosen(best, NOW)] == ["cheap"]
    assert [c.kind for c in allocator.chosen(best[3:], NOW)] == ["early", "late", "unknown"]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-9, 10**6)), st.one_of(st.none(), st.floats(0, 1e6))
        ),
        min_size=1,
        max_size=9,
    )
)
def test_ranking_loses_nothing_and_chooses_few(rows: list[tuple[int | None, float | None]]) -> None:
    """Whatever the scheduler says: all are ranked, and from one to three are asked for."""
    estimates = [
        Estimate(choice(f"t{n}", units), None if wait is None else NOW + wait)
        for n, (wait, units) in enumerate(rows)
    ]
    best = allocator.ranked(estimates, NOW)
    assert sorted(e.choice.kind for e in best) == sorted(e.choice.kind for e in estimates)
    assert 1 <= len(allocator.chosen(best, NOW)) <= 3


def node(name: str, partitions: tuple[str, ...], *types: str) -> Node:
    gres = tuple(Gres("gpu", kind, 8) for kind in types)
    return Node(name, partitions, "idle", "", 1, 1, 1, 1, gres, gres, ())


def test_one_job_for_several_partitions_where_slurm_can_say_so() -> None:
    """Only where each GPU there is of a type that was picked, and no feature tells them apart."""
    picked = (choice("a40", 2.0), choice("a6000", 1.0))
    nodes = [node("n1", ("gpu-a40", "gpu"), "a40"), node("n2", ("gpu-a6000",), "a6000")]
    (one,) = allocator.merged(picked, [*nodes, node("n3", ("standard",), "v100")])
    assert (one.options.partition, one.options.gpus) == ("gpu-a40,gpu-a6000", (None, 2))
    assert (one.kind, one.units) == ("a40,a6000", 2.0)
    assert allocator.merged(picked, [*nodes, node("n3", ("gpu-a40",), "v100")]) == picked
    assert allocator.merged(picked, nodes[:1]) == picked
    assert allocator.merged(picked, []) == picked
    apart = (picked[0], choice("a6000", 1.0, constraint="big"))
    assert allocator.merged(apart, nodes) == apart
    assert allocator.merged(picked[:1], nodes) == picked[:1]


def test_the_words_of_a_choice() -> None:
    """What sbatch is told over the script, which says none of it."""
    found = choice("a100", constraint="gpupod&a100_80gb")
    assert found.words == (
        "--partition=gpu-a100",
        "--gres=gpu:a100:2",
        "--constraint=gpupod&a100_80gb",
    )
