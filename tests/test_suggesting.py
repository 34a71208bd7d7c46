"""Presets that fit what a cluster reports."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rvstate import config, request, suggesting
from rvstate.model.settings import Preset, Settings
from rvstate.request import Request
from rvstate.slurm.sinfo import Gres, Node, Partition

UVA = config.load_site("uva")
GENERIC = config.load_site("generic")
PLAIN = Node("c1", ("batch",), "idle", "", 40, 40, 384000, 384000, (), (), ())
BIG = replace(PLAIN, name="c2", cpus=96, memory=768000)
HELD = (Gres("gpu", "A100", 4),)
GPU = replace(PLAIN, name="g1", partitions=("all", "gpu"), cpus=64, memory=512000, gres=HELD)
KINDS = st.builds(Gres, st.just("gpu"), st.sampled_from(["a/b", "x", ""]), st.integers(0, 99))
BATCH = Partition("batch", True, True, 3600, None, 2, ("c1", "c2"))
ALL = Partition("all", False, True, 3600, None, 3, ("c1", "c2", "g1"))
ONLY = Partition("gpu", False, True, 3600, None, 1, ("g1",))


def test_shares_and_whole_nodes_by_what_there_is() -> None:
    """What each node can give; the partition that has nothing else."""
    plain = replace(PLAIN, partitions=("batch", "all"))
    assert suggesting.suggested((BATCH, ALL, ONLY), (plain, BIG, GPU), GENERIC) == {
        "cpu": Preset(cpus=4, mem="31G"),
        "node": Preset(nodes=1, exclusive=True, cpus=40, mem="0"),
        "a100": Preset(gpus=1, gpu_type="A100", cpus=16, mem="125G", partition="gpu"),
        "a100-node": Preset(
            gpus=4, gpu_type="A100", nodes=1, exclusive=True, cpus=64, mem="0", partition="gpu"
        ),
    }


def test_a_site_that_knows_a_type_says_where_it_is() -> None:
    """Its own name, no partition of ours, and never more than a job may have."""
    kinds = (Gres("gpu", "a6000", 8), Gres("gpu", "rtx3090", 4), Gres("gpu", "1g.10gb", 14))
    found = suggesting.suggested((ALL,), [replace(GPU, gres=(gres,)) for gres in kinds], UVA)
    assert list(found) == ["mig", "a6000", "a6000-node", "rtx3090"]
    assert found["mig"] == Preset(mig=True)
    assert found["a6000"].partition is None


def test_nothing_is_suggested_where_nothing_is_known() -> None:
    """A controller that is down, a closed partition, a GPU without a type."""
    assert suggesting.suggested((), (), GENERIC) == {}
    closed = replace(BATCH, available=False)
    assert suggesting.suggested((closed,), (PLAIN,), GENERIC) == {}
    found = suggesting.suggested((ONLY,), (replace(GPU, gres=(Gres("gpu", "", 4),)),), GENERIC)
    assert found["gpu"] == Preset(gpus=1, cpus=16, mem="125G", partition="gpu")


@given(
    st.lists(
        st.builds(
            Node,
            st.just("n"), st.just(("batch", "gpu")), st.just("idle"), st.just(""),
            st.integers(1, 256), st.just(0), st.integers(1, 4_000_000), st.just(0),
            st.lists(KINDS, max_size=3).map(tuple),
            st.just(()), st.just(()),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_is_reported_makes_presets_that_can_be_asked_for(nodes: list[Node]) -> None:
    """Each becomes options of sbatch, with at least one CPU."""
    found = suggesting.suggested((BATCH, ONLY), nodes, GENERIC)
    for name, preset in found.items():
        assert name.isprintable(), name
        settings = Settings(presets={name: preset})
        if preset.gpu_type != "a/b":
            asked = request.options(
                request.with_preset(Request(), name, settings), settings, GENERIC
            )
            assert asked.cpus_per_task is None or asked.cpus_per_task >= 1
        assert suggesting.in_words(preset) or preset == Preset()
