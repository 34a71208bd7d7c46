from dataclasses import replace

import pytest

from rvstate import config, request
from rvstate.errors import ConfigError, RefusedError, RvstateError
from rvstate.model.settings import Defaults, Preset, Settings
from rvstate.request import Request
from rvstate.shape import Shape

UVA = config.load_site("uva")
LOCAL = config.load_site("local")
GENERIC = config.load_site("generic")
PLAIN = Settings(defaults=Defaults(time="2:59:00"))


def test_a_type_brings_its_partition_its_name_and_its_feature() -> None:
    """`-t a100` asks for the gres, partition and constraint that the site's data give it."""
    found = request.options(Request(gpu_type="a100"), PLAIN, UVA)
    assert (found.gpus, found.partition) == (("a100", 1), "gpu-a100-80")
    assert found.constraint == "gpupod&a100_80gb"


def test_a_slice_is_given_only_when_named() -> None:
    """No request without --mig ends on a slice of a GPU."""
    assert request.options(Request(mig=True), PLAIN, UVA).gpus == ("1g.10gb", 1)
    for name, gpu in (UVA.gpus or {}).items():
        if not gpu.mig:
            got = request.options(Request(gpu_type=name), PLAIN, UVA).gpus
            assert got == (gpu.gres, 1), name
    with pytest.raises(ConfigError, match="Which type"):
        request.options(Request(gpus=1), PLAIN, UVA)


def test_defaults_of_the_settings_act_and_options_win() -> None:
    """Each key of [defaults] decides where no option was given, and only there."""
    defaults = Defaults(account="mygroup", gpu_type="a6000", time="1:00:00", mem="16G", cpus=3)
    settings = Settings(defaults=defaults)
    plain = request.options(Request(), settings, UVA)
    assert (plain.account, plain.time, plain.mem, plain.cpus_per_task) == (
        "mygroup",
        3600,
        16384,
        3,
    )
    assert (plain.partition, plain.gpus) == ("gpu-a6000", ("a6000", 1))
    own = Request(gpus=2, gpu_type="a40", time="2h", mem="1G", cpus=5, account="other")
    given = request.options(own, settings, UVA)
    assert (given.account, given.time, given.mem, given.cpus_per_task) == ("other", 7200, 1024, 5)
    assert (given.partition, given.gpus) == ("gpu-a40", ("a40", 2))


@pytest.mark.parametrize(
    ("wanted", "nodes", "each"),
    [
        (Request(gpu_type="a6000", gpus=8), None, 8),
        (Request(gpu_type="a6000", gpus=8, nodes=2), 2, 4),
        (Request(gpu_type="a6000", gpus=8, gpus_per_node=2), 4, 2),
        (Request(gpu_type="a6000", nodes=2), 2, 1),
        (Request(gpu_type="a6000", nodes=2, gpus_per_node=3), 2, 3),
        (Request(gpu_type="a6000", gpus=8, single_node=True), None, 8),
    ],
)
def test_gpus_are_asked_for_node_by_node(wanted: Request, nodes: int | None, each: int) -> None:
    """sbatch counts GPUs on each node, people count all of them."""
    found = request.options(wanted, PLAIN, UVA)
    assert (found.nodes, found.gpus) == (nodes, ("a6000", each))
    given = bool(wanted.nodes or wanted.gpus_per_node or wanted.single_node)
    assert request.shape_of(wanted, found) == Shape(nodes or 1, each, given)


def test_nodes_without_a_gpu_and_nodes_not_to_use() -> None:
    """`--nodes` alone is CPUs; `--exclude` is Slurm's own list."""
    found = request.options(Request(nodes=3, cpus=8, exclude="udc-[1-2]"), PLAIN, UVA)
    assert (found.nodes, found.gpus, found.cpus_per_task) == (3, None, 8)
    assert found.exclude == "udc-[1-2]"


def test_what_one_job_may_have_counts_over_all_nodes() -> None:
    """Sixteen fit two nodes, and the site gives a job eight."""
    with pytest.raises(RefusedError, match="more than a job is given"):
        request.options(Request(gpu_type="a6000", gpus=16), PLAIN, UVA)


def test_this_machine_is_one_node() -> None:
    """Nothing pretends to be a cluster."""
    with pytest.raises(RefusedError, match="one node"):
        request.options(Request(nodes=2), PLAIN, LOCAL)


def test_the_users_shape_is_not_mixed_with_a_presets_count() -> None:
    """`--nodes 2 --preset big` is not the preset's number of GPUs on two nodes by chance."""
    settings = Settings(presets={"big": Preset(gpus=3, gpu_type="a6000")})
    found = request.with_preset(Request(nodes=2, gpus_per_node=4), "big", settings)
    assert (found.gpus, found.nodes, found.gpus_per_node) == (None, 2, 4)


def test_no_gpu_can_be_asked_for_over_a_default() -> None:
    """`-g 0` is a job without a GPU, whatever [defaults] says."""
    settings = Settings(defaults=Defaults(gpu_type="a6000"))
    found = request.options(Request(gpus=0), settings, UVA)
    assert (found.gpus, found.partition) == (None, "")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Request(gpu_type="b200"), "a6000"),
        (Request(gpu_type="a6000", gpus=9), "8"),
        (Request(gpu_type="h200", gpus=5), "4"),
        (Request(gpu_type="mig", gpus=2), "1"),
        (Request(partition="standard", time="8d"), "7-00:00:00"),
        (Request(raw=(("nice-try", "1"),)), "nice"),
        (Request(time="soon"), "soon"),
    ],
)
def test_what_no_partition_can_fulfil_is_refused_with_what_is_offered(
    wanted: Request, says: str
) -> None:
    """The message names the input or the limit, and what to ask for instead."""
    with pytest.raises(RvstateError) as caught:
        request.options(wanted, PLAIN, UVA)
    assert says in caught.value.message + caught.value.remedy
    assert caught.value.remedy


@pytest.mark.parametrize("wanted", [Request(gpus=1), Request(gpu_type="a100"), Request(mig=True)])
def test_this_machine_refuses_gpus_by_name(wanted: Request) -> None:
    """A job for a GPU never runs on a machine that gives it none."""
    with pytest.raises(RefusedError, match="GPU"):
        request.options(wanted, PLAIN, LOCAL)


def test_a_site_without_data_leaves_types_to_slurm() -> None:
    """Where nobody described the GPUs, what was typed is what Slurm is asked for."""
    assert request.options(Request(gpus=2), PLAIN, GENERIC).gpus == (None, 2)
    assert request.options(Request(gpu_type="l40s"), PLAIN, GENERIC).gpus == ("l40s", 1)
    assert request.options(Request(), PLAIN, GENERIC).gpus is None


def test_an_option_for_a_partition_wins_over_the_types_own() -> None:
    """`-p` is believed: a site's data may be older than the site."""
    found = request.options(Request(gpu_type="a6000", partition="gpu-new"), PLAIN, UVA)
    assert found.partition == "gpu-new"
    assert replace(found, partition="") != found


def test_the_default_partition_has_a_limit_too() -> None:
    """Where no partition is named, Slurm takes the default one, so its limit counts."""
    with pytest.raises(RefusedError, match="more than partition standard allows"):
        request.options(Request(time="8d"), PLAIN, UVA)
    assert request.options(Request(time="7d"), PLAIN, UVA).time == 7 * 86400
    with pytest.raises(RefusedError, match="partition interactive allows"):
        request.options(Request(time="13h", partition="interactive"), PLAIN, UVA)
