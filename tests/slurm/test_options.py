import pytest

from rvstate.errors import ConfigError
from rvstate.slurm import options
from rvstate.slurm.options import SbatchOptions


def test_nothing_asked_nothing_written() -> None:
    """Site defaults stay the site's."""
    assert options.lines(SbatchOptions()) == ()


def test_lines_in_fixed_order() -> None:
    """The same options always give the same lines, whatever the order of the settings."""
    asked = SbatchOptions(
        raw=(("nice", "100"), ("contiguous", None)),
        requeue=False,
        exclusive=True,
        comment='tok=1 "x" #y',
        output="/scratch/a b/%j.out",
        gpus=("1g.10gb", 1),
        gres=("tmpfs:10",),
        mem=16384,
        nodes=2,
        time=10800,
        partition="gpu",
        name="my run",
        mail_type=("END", "FAIL"),
    )

    assert options.lines(asked) == (
        '#SBATCH --job-name="my run"',
        "#SBATCH --partition=gpu",
        "#SBATCH --time=03:00:00",
        "#SBATCH --nodes=2",
        "#SBATCH --mem=16G",
        "#SBATCH --gres=gpu:1g.10gb:1,tmpfs:10",
        '#SBATCH --output="/scratch/a b/%j.out"',
        '#SBATCH --comment="tok=1 \\"x\\" #y"',
        "#SBATCH --mail-type=END,FAIL",
        "#SBATCH --exclusive",
        "#SBATCH --no-requeue",
        "#SBATCH --nice=100",
        "#SBATCH --contiguous",
    )


def test_all_memory_of_a_node_is_written() -> None:
    """Zero is a value here, not "nothing asked"."""
    assert options.lines(SbatchOptions(mem=0)) == ("#SBATCH --mem=0",)


def test_gpus_always_carry_a_count() -> None:
    """22.05 refuses a type without one."""
    assert options.gpu_gres(None, 2) == "gpu:2"
    assert options.gpu_gres("a100", 1) == "gpu:a100:1"


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": 0},
        {"nodes": 0},
        {"mem": -1},
        {"mem": 1, "mem_per_cpu": 1},
        {"gpus": ("a100", 0)},
        {"gpus": ("a100:2,x", 1)},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, int]) -> None:
    """A limit of zero (none) and contradictions never reach sbatch."""
    with pytest.raises(ConfigError):
        SbatchOptions(**wrong)  # type: ignore[arg-type]


def test_raw_options() -> None:
    """Known names pass; a site's plugins may add theirs."""
    options.check_raw("nice", "100")
    options.check_raw("nice", None)
    options.check_raw("contiguous", None)
    for key, value in (
        ("qos", "long"),
        ("exclusive", "user"),
        ("no-requeue", None),
        ("spread-job", None),
    ):
        options.check_raw(key, value)
    options.check_raw("uenv", "pytorch", site_options={"uenv"})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("licences", "x", "licenses"),
        ("--reservation", "x", "reservation"),
        ("mem_per_gpu", "1G", "mem-per-gpu"),
        ("xyzzy", None, "man sbatch"),
        ("time", "1:00:00", "--time"),
        ("ntasks", "8", "srun -n"),
        ("exclusive", None, "--exclusive"),
        ("begin", "16:00", "--begin"),
        ("comment", "x", "--comment"),
        ("mail-user", "a@b.c", "--mail-user"),
        ("output", "x", "Remove"),
        ("wrap", "x", "Remove"),
        ("reservation", None, "man sbatch"),
        ("contiguous", "x", "alone"),
    ],
)
def test_raw_options_refused(key: str, value: str | None, words: str) -> None:
    """Unknown names are answered with the nearest one, owned ones with the setting to use."""
    with pytest.raises(ConfigError) as caught:
        options.check_raw(key, value)

    assert words in caught.value.remedy


def test_every_option_written_is_one_sbatch_knows() -> None:
    """The typed options and the table of names cannot drift apart."""
    full = SbatchOptions(
        *("x",) * 4, *(1,) * 6, gpus=(None, 1), constraint="x", exclude="x", exclusive=True,
        output="x", error="x", open_mode="append", comment="x", mail_type=("END",), mail_user="x",
        begin="x", deadline="x", dependency="x", array="1", signal="x", requeue=True, wckey="x",
        export="NONE",
    )  # fmt: skip
    names = {line.split("--")[1].split("=")[0] for line in options.lines(full)}

    assert names <= options.known_options()
    assert len(names) == 29


def test_literal_path() -> None:
    """A percent sign in a directory name is not a pattern."""
    assert options.literal_path("/a/100%/x") == "/a/100%%/x"
    with pytest.raises(ConfigError):
        options.literal_path("/a\\b")
