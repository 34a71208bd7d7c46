import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import command
from rvstate.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ("train.py --lr 1", ("python", "train.py", "--lr", "1")),
        ("python train.py", ("python", "train.py")),
        ("python -m pkg.train", ("python", "-m", "pkg.train")),
        ("torchrun --nproc_per_node 2 train.py", ("torchrun", "--nproc_per_node", "2", "train.py")),
        ("accelerate launch train.py", ("accelerate", "launch", "train.py")),
        ("deepspeed train.py", ("deepspeed", "train.py")),
        ("A=1 B=2 python train.py", ("env", "A=1", "B=2", "python", "train.py")),
        ("bash run.sh", ("bash", "run.sh")),
        ("run.sh -x", ("bash", "run.sh", "-x")),
        ("'make data && python train.py'", ("bash", "-c", "make data && python train.py")),
        ("'python train.py'", ("bash", "-c", "python train.py")),
        ("hostname", ("hostname",)),
    ],
)
def test_each_form_of_a_command_means_what_it_says(typed: str, runs: tuple[str, ...]) -> None:
    """A script is run by its interpreter, one quoted string by bash, everything else as typed."""
    assert command.resolve(tuple(shlex.split(typed))) == runs


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("train.py --lr 1", "rv-train"),
        ("python -u scripts/Train_SFT.py", "rv-train-sft"),
        ("python -m pkg.train", "rv-pkg"),
        ("torchrun --nproc_per_node 4 train.py", "rv-train"),
        ("torchrun --nproc_per_node=4 train.py", "rv-train"),
        ("accelerate launch train.py", "rv-train"),
        ("A=1 python train.py", "rv-train"),
        ("'make data && python x.py'", "rv-make"),
        ("bash", "rv-job"),
        ("données.py", "rv-donn-es"),
        ("python -c 'import os; print(os.environ)'", "rv-python"),
        ("A=1 python3.11 -c 'x = 1'", "rv-python"),
    ],
)
def test_a_job_is_named_after_its_script(typed: str, name: str) -> None:
    """The name says what runs; launchers, flags and variables are passed over."""
    assert command.job_name(tuple(shlex.split(typed))) == name


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda t: "\0" not in t), min_size=1, max_size=4))
def test_every_name_is_a_plain_word(words: list[str]) -> None:
    """Whatever was typed, the name fits a file name, a log line and Slurm."""
    name = command.job_name(tuple(words))
    assert name.startswith("rv-")
    assert len(name) <= 43
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in name)


@pytest.mark.parametrize(
    ("typed", "script"),
    [
        ("train.py --lr 1 other.py", "train.py"),
        ("python -u -W ignore train.py", "train.py"),
        ("python3.11 sub/train.py", "sub/train.py"),
        ("A=1 uv run --with numpy train.py", "train.py"),
        ("torchrun --nproc_per_node 4 train.py gen.py", "train.py"),
        ("accelerate launch --config_file c.yaml train.py", "train.py"),
        ("srun -n 2 bash run.sh", "run.sh"),
        ("'python train.py --out x'", "train.py"),
        ("'cd sub && python train.py'", None),
        ("'python $SCRIPT train.py'", None),
        ("python -m pytest tests/test_x.py", None),
        ("python -c 'print(1)' x.py", None),
        ("python -u tool gen.py", None),
        ("mytool gen.py", None),
        ("uv run mytool gen.py", None),
        ("'python \"unfinished'", None),
        ("hostname", None),
    ],
)
def test_a_script_counts_only_where_it_is_certain(typed: str, script: str | None) -> None:
    """What a launcher runs must be there; another program's argument may be yet to be written."""
    assert command.certain_script(tuple(shlex.split(typed))) == script


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("/usr/bin/python3", "a.py"), True),
        (("A=1", "/home/me/.local/bin/python3.12", "a.py"), True),
        (("/usr/bin/python3 a.py && true",), True),
        (("python", "a.py"), False),
        (("bash", "/usr/bin/python3"), False),
    ],
)
def test_another_python_is_pointed_out(words: tuple[str, ...], warned: bool) -> None:
    """A path of an interpreter goes past the environment."""
    assert (
        any("not the environment's" in said for said in command.warnings(words, "/project"))
        is warned
    )


def test_a_name_by_the_settings_template() -> None:
    """Command, project and branch stand where the template says."""
    words = ("train.py",)
    assert command.named("{name}", words, "p", "b") == "rv-train"
    experiment = command.named(command.EXPERIMENT_NAME, ("dvc", "exp", "run"), "p", "b")
    assert experiment == "rv-dvc:p:b"
    template = "exp-{name}:{project}:{branch}"
    assert command.named(template, words, "p", "feature--x") == "exp-rv-train:p:feature--x"


def test_long_names_stay_apart() -> None:
    """A log's name must fit a directory, and two branches must not share checkpoints."""
    names = {
        command.named("{name}:{project}:{branch}", ("a.py",), "p" * 80, f"{'b' * 70}{n}")
        for n in (1, 2)
    }
    assert len(names) == 2
    assert max(map(len, names)) == 120


@pytest.mark.parametrize(
    "template", ["", "{name", "{x}", "a/{name}", "-{name}", ".{name}", "a b", "{{name}}", "%j", "é"]
)
def test_a_template_that_makes_no_names_is_refused(template: str) -> None:
    """Names become parts of paths, of commands and of sbatch's patterns."""
    with pytest.raises(ConfigError):
        command.check_template(template)
