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


def test_what_is_said_of_a_job_beside_its_resources() -> None:
    """Each option acts, goes over the settings, and an empty text takes those back."""
    defaults = Defaults(
        wckey="w", comment="c", begin="noon", deadline="teatime", constraint="f", exclusive=True
    )
    settings = Settings(defaults=defaults)
    found = request.options(Request(), settings, GENERIC)
    assert (found.wckey, found.comment, found.begin) == ("w", "c", "noon")
    assert (found.deadline, found.constraint, found.exclusive) == ("teatime", "f", True)
    own = Request(
        wckey="x", comment="", begin="now+1hour", deadline="", constraint="a|b", exclusive=False
    )
    found = request.options(own, settings, GENERIC)
    assert (found.wckey, found.comment, found.begin) == ("x", "", "now+1hour")
    assert (found.deadline, found.constraint, found.exclusive) == ("", "a|b", False)


def test_features_join_those_by_which_the_site_knows_a_type() -> None:
    """Both must hold, each once; what cannot be joined is refused, not dropped."""
    settings = Settings()
    found = request.options(Request(gpu_type="a100", constraint="ib&gpupod"), settings, UVA)
    assert found.constraint == "gpupod&a100_80gb&ib"
    for odd in ("a|b", "(a|b)", "[a*2]", "a&"):
        with pytest.raises(ConfigError, match="cannot be joined"):
            request.options(Request(gpu_type="a100", constraint=odd), settings, UVA)


@pytest.mark.parametrize("key", ["begin", "deadline"])
def test_a_moment_is_checked_and_nothing_starts_early(key: str) -> None:
    """What Slurm would not read is refused; where no job waits, every moment is."""
    with pytest.raises(ConfigError, match=f"--{key} 'soon'"):
        request.options(Request(**{key: "soon"}), Settings(), GENERIC)
    with pytest.raises(RefusedError, match=f"no --{key}"):
        request.options(Request(**{key: "tomorrow"}), Settings(), LOCAL)


EVERY = Preset(
    gpus=4, gpu_type="a40", nodes=2, exclusive=True, constraint="f", exclude="n1", time="1h",
    mem="8G", cpus=3, partition="p", account="a", wckey="w", comment="c", mail_type="END",
    mail_user="m", begin="noon", deadline="teatime", sbatch=("qos=long",),
)  # fmt: skip


def test_a_preset_says_all_that_options_say() -> None:
    """Each of its keys arrives; an option goes over it; the settings may name the usual one."""
    settings = Settings(presets={"big": EVERY}, defaults=Defaults(preset="big"))
    found = request.with_preset(Request(), None, settings)
    for key in Preset.__dataclass_fields__:
        if key not in ("sbatch", "mig", "gpu_mem", "gpus_per_node"):
            assert getattr(found, key) == getattr(EVERY, key), key
    assert found.raw == (("qos", "long"),)
    assert request.with_preset(Request(time="2h"), "big", settings).time == "2h"
    assert request.with_preset(Request(), "none", settings) == Request()
    assert request.with_preset(Request(), None, Settings(presets={"big": EVERY})) == Request()


@pytest.mark.parametrize(
    "own", [Request(gpus=2), Request(nodes=1), Request(gpus_per_node=1), Request(single_node=True)]
)
def test_a_shape_of_ones_own_is_not_mixed_with_a_presets(own: Request) -> None:
    """Who names nodes or GPUs gets just those, of the preset's type."""
    found = request.with_preset(own, "big", Settings(presets={"big": EVERY}))
    assert (found.gpus, found.nodes, found.gpus_per_node) == (
        own.gpus, own.nodes, own.gpus_per_node
    )  # fmt: skip
    assert (found.gpu_type, found.partition) == ("a40", "p")


@pytest.mark.parametrize("own", [Request(gpu_type="v100"), Request(mig=True), Request(gpus=0)])
def test_another_kind_of_gpu_is_not_looked_for_where_the_presets_is(own: Request) -> None:
    """Partition and features of one kind are not another's."""
    found = request.with_preset(own, "big", Settings(presets={"big": EVERY}))
    assert (found.partition, found.constraint) == (None, None)
    assert (found.gpu_type, found.mig) == (own.gpu_type, own.mig)
    assert found.time == "1h"
