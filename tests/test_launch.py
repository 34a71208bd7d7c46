"""What a job of several nodes starts where, and what is refused before it is submitted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate import launch, launchcheck, launcher
from rvstate.errors import ConfigError, RefusedError, RvstateError
from rvstate.model.launch import Launch
from rvstate.shape import Limits, Shape, shape

A100 = Limits("a100", per_node=8)
TWO = Shape(2, 4)
RANKED = "import os\nrank = os.environ['RANK']\n"


def started(
    *words: str,
    on: Shape = TWO,
    start: str | None = None,
    files: Mapping[str, str] | None = None,
) -> Launch:
    """What becomes of a command in a project with these files."""
    read = {"train.py": RANKED, **(files or {})}.get
    return launch.launch(launcher.find(words, read), on, start, read)


def refused(error: RvstateError) -> None:
    """A refusal says what to do."""
    assert error.remedy


@pytest.mark.parametrize(
    ("gpus", "nodes", "each"), [(1, 1, 1), (8, 1, 8), (16, 2, 8), (12, 2, 6), (9, 3, 3), (64, 8, 8)]
)
def test_gpus_become_nodes_by_the_sites_data(gpus: int, nodes: int, each: int) -> None:
    """One node where they fit, else the fewest that share them evenly."""
    assert shape(gpus, None, None, False, A100) == Shape(nodes, each)


@pytest.mark.parametrize("gpus", [11, 13, 17, 22])
def test_what_cannot_be_shared_evenly_is_refused(gpus: int) -> None:
    """Never rounded: neither up, which costs, nor down; the next counts are named."""
    with pytest.raises(RefusedError) as caught:
        shape(gpus, None, None, False, A100)
    assert str(gpus) in caught.value.message
    assert f"-g {gpus // 8 * 8}" in caught.value.remedy
    assert f"-g {(gpus // 8 + 1) * 8}" in caught.value.remedy


@given(
    st.integers(0, 200),
    st.none() | st.integers(1, 20),
    st.none() | st.integers(1, 20),
    st.booleans(),
    st.none() | st.integers(1, 16),
    st.none() | st.integers(1, 64),
)
def test_a_shape_is_exactly_what_was_asked(
    gpus: int,
    nodes: int | None,
    each: int | None,
    single: bool,
    per_node: int | None,
    most: int | None,
) -> None:
    """Whatever is asked of whichever site: that many GPUs, on nodes that exist, or a refusal."""
    try:
        found = shape(gpus, nodes, each, single, Limits("x", per_node, most))
    except RvstateError as error:
        refused(error)
        return
    assert found.nodes * found.gpus == gpus
    assert nodes is None or found.nodes == nodes
    assert each is None or found.gpus == each
    assert not single or found.nodes == 1
    assert per_node is None or found.gpus <= per_node
    assert most is None or gpus <= most


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((8, 2, None, False), Shape(2, 4)),
        ((8, None, 4, False), Shape(2, 4)),
        ((None, 2, 4, False), Shape(2, 4)),
        ((None, None, 4, False), Shape(1, 4)),
        ((8, None, None, True), Shape(1, 8)),
        ((0, 3, None, False), Shape(3, 0)),
    ],
)
def test_the_user_can_say_the_shape(
    options: tuple[int | None, int | None, int | None, bool], expected: Shape
) -> None:
    """--nodes, --gpus-per-node and --single-node go over the data."""
    assert shape(*options, A100) == expected


@pytest.mark.parametrize(
    "options",
    [
        (16, None, None, True),
        (7, 2, None, False),
        (8, 3, 4, False),
        (9, None, 2, False),
        (None, 2, 9, False),
        (8, 2, None, True),
    ],
)
def test_what_contradicts_itself_or_the_site_is_refused(
    options: tuple[int | None, int | None, int | None, bool],
) -> None:
    """With what could be asked for instead."""
    with pytest.raises(RvstateError) as caught:
        shape(*options, A100)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("words", "how", "ranks"),
    [
        (("torchrun", "--nproc_per_node=4", "train.py"), "node", 4),
        (("torchrun", "--nproc-per-node", "4", "train.py"), "node", 4),
        (("torchrun", "--nproc-per-node=gpu", "train.py"), "node", 4),
        (("python", "-m", "torch.distributed.run", "--nproc_per_node=4", "train.py"), "node", 4),
        (
            ("python3.11", "-u", "-m", "torch.distributed.launch", "--nproc_per_node=4", "t"),
            "node",
            4,
        ),
        (("OMP=1", "torchrun", "--nproc_per_node=4", "train.py"), "node", 4),
        (("uv", "run", "torchrun", "--nproc_per_node=4", "train.py"), "node", 4),
        (("cd x && torchrun --nproc_per_node=4 train.py",), "node", 4),
        (("bash -c 'cd x; torchrun --nproc_per_node=4 train.py'",), "node", 4),
        (("A=1 B='x y' torchrun \\\n --nproc_per_node 4 \\\n train.py",), "node", 4),
        (("(sleep 1; exec torchrun --nproc_per_node=4 train.py) | tee log",), "node", 4),
        (("accelerate", "launch", "--multi_gpu", "train.py"), "node", 4),
        (("accelerate", "launch", "--num_processes", "8", "train.py"), "node", 4),
        (("deepspeed", "--num_gpus=4", "train.py", "--deepspeed", "ds.json"), "node", 4),
        (("deepspeed", "train.py"), "node", 4),
        (("python", "train.py"), "rank", 4),
        (("train.py",), "rank", 4),
        (("python", "-m", "package.train"), "rank", 4),
        (("cd x && X=1 python train.py",), "rank", 4),
        (("srun", "--ntasks=8", "./mpi"), "once", 4),
        (("module load openmpi && mpirun ./mpi",), "once", 4),
        (("bash", "go.sh"), "node", 4),
        (("go.sh",), "node", 4),
        (("cd x && bash ./go.sh",), "node", 4),
    ],
)
def test_each_launcher_is_started_as_it_means_it(
    words: tuple[str, ...], how: str, ranks: int
) -> None:
    """Once a node, once a rank, or once in all, however it is written; the count is stated."""
    script = "#!/bin/bash\nset -e  # it's all\ntorchrun --nproc_per_node=4 train.py\n"
    names = ("go.sh", "./go.sh", "x/./go.sh")
    of_x = {"x/train.py": RANKED, "package/train.py": RANKED}
    found = started(*words, files={**dict.fromkeys(names, script), **of_x})
    assert (found.start, found.nodes, found.ranks) == (how, 2, ranks)
    assert "2 nodes of 4 GPUs" in found.notices[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("torchrun", "--nproc_per_node=8", "train.py"), "--nproc_per_node=4"),
        (("torchrun", "--nproc_per_node=2", "train.py"), "--nodes 4"),
        (("torchrun", "train.py"), "--nproc_per_node=4"),
        (("torchrun", "--nnodes=4", "--nproc_per_node=4", "train.py"), "--nodes 4"),
        (("cd x && torchrun --nnodes 3 --nproc-per-node 4 train.py",), "--nodes 3"),
        (("torchrun", "--standalone", "--nproc_per_node=4", "train.py"), "--standalone"),
        (("accelerate", "launch", "--num_processes=4", "train.py"), "--num_processes 8"),
        (("accelerate", "launch", "--num_machines", "3", "train.py"), "--nodes 3"),
        (("accelerate", "launch", "--num_processes=7", "train.py"), "--num_processes 8"),
        (("deepspeed", "--num_gpus", "8", "train.py"), "--num_gpus=4"),
        (("deepspeed", "--num_nodes", "3", "train.py"), "--nodes 3"),
        (("deepspeed", "--hostfile", "hosts", "train.py"), "Leave it out"),
        (("python", "-m", "accelerate.commands.launch", "train.py"), "accelerate launch"),
        (("python", "plain.py"), "torchrun --nproc_per_node=4 plain.py"),
        (("make", "train"), "--start node"),
        (("bash", "elsewhere.sh"), "--start node"),
        (("python", "chat.py"), "--start rank"),
        (("cd sub && X=1 python chat.py",), "GPUs of one node"),
        (("python plain.py && python train.py",), "plain.py"),
        (("python train.py && python plain.py",), "plain.py"),
        (("python", "-m", "somebody.elses"), "--start rank"),
        (("python", "-m", "package.plain"), "package/plain.py"),
        (("python", "/scratch/me/train.py"), "--start rank"),
        (("cd $X && python train.py",), "--start rank"),
        (("torchrun", "--nproc_per_node=4", "--node_rank=0", "train.py"), "--node_rank out"),
        (("torchrun", "--nproc_per_node=4", "--master-addr=localhost", "t.py"), "--master_addr"),
        (("torchrun", "--nproc_per_node=4", "--rdzv-backend=c10d", "t.py"), "--rdzv_backend out"),
        (
            ("torchrun --nproc_per_node=4 --rdzv_backend c10d --rdzv_endpoint localhost:0 t.py",),
            "--rdzv_endpoint",
        ),
        (("torchrun", "--nproc_per_node=cpu", "train.py"), "--nproc_per_node=4"),
        (("accelerate", "launch", "--machine_rank", "0", "train.py"), "--machine_rank out"),
        (("accelerate", "launch", "--cpu", "train.py"), "--multi_gpu"),
        (("accelerate", "launch", "--config_file", "no.yaml", "train.py"), "--multi_gpu"),
        (("deepspeed", "--include=localhost:0", "train.py"), "Leave it out"),
        (("srun", "torchrun", "--nproc_per_node=4", "train.py"), "Leave srun out"),
        (("srun bash -c 'torchrun --nproc_per_node=4 train.py'",), "Leave srun out"),
        (("srun", "--nodes=4", "-n", "16", "./mpi"), "--nodes 4"),
    ],
)
def test_what_would_start_the_wrong_number_is_refused(words: tuple[str, ...], says: str) -> None:
    """Before it is submitted, with the line to use."""
    files = {
        "plain.py": "print('hello')\n",
        "chat.py": "model = load(name, device_map='auto')\n",
        "sub/chat.py": "from vllm import LLM\n",
        "package/plain.py": "",
        "no.yaml": "distributed_type: 'NO'\nnum_machines: 2\n",
    }
    with pytest.raises((ConfigError, RefusedError)) as caught:
        started(*words, files=files)
    assert says in caught.value.remedy


def test_an_accelerate_config_of_the_project_counts() -> None:
    """What the file says is checked as if it stood on the command line."""
    files = {"acc.yaml": "compute_environment: X\nnum_machines: 2\nnum_processes: 4\n"}
    words = ("accelerate", "launch", "--config_file", "acc.yaml", "train.py")
    with pytest.raises(ConfigError, match="num_processes 4"):
        started(*words, files=files)
    files = {"acc.yaml": "num_machines: 2\nnum_processes: 8\n"}
    assert started(*words, files=files).ranks == 4


def test_the_scripts_own_options_are_not_the_launchers() -> None:
    """Behind the script's name everything is the script's."""
    for words in (
        ("torchrun", "--nproc_per_node=4", "train.py", "--nproc_per_node=2", "--nnodes=9"),
        ("accelerate", "launch", "--multi_gpu", "train.py", "--num_processes", "3"),
        ("torchrun", "--nproc_per_node=4", "-m", "package", "--nnodes", "9"),
    ):
        assert started(*words).ranks == 4


def test_on_one_node_nothing_is_special() -> None:
    """Only the counts are checked: missing devices are refused, and idle ones told or refused."""
    one = Shape(1, 4)
    assert started("python", "plain.py", on=one).start == ""
    assert started("torchrun", "--nproc_per_node=4", "train.py", on=one) == Launch(
        ranks=4, notices=("1 node of 4 GPUs: torchrun is started once, and starts 4 programs",)
    )
    assert started("python", "plain.py", on=one).notices == (
        "1 node of 4 GPUs: the command is started once",
    )
    with pytest.raises(ConfigError, match="nproc_per_node 8"):
        started("torchrun", "--nproc_per_node=8", "train.py", on=one)
    with pytest.raises(ConfigError) as caught:
        started("torchrun", "--nproc_per_node=2", "train.py", on=one)
    assert "--nodes 2" in caught.value.remedy
    meant = started("torchrun", "--nproc_per_node=2", "train.py", on=Shape(1, 4, given=True))
    assert "2 of them stay idle" in meant.notices[1]
    assert started("python", "train.py", on=one, start="rank").start == "rank"


@pytest.mark.parametrize(
    ("words", "ranks", "told"),
    [
        (("srun", "./mpi"), 4, "8 programs"),
        (("srun", "-n", "8", "./mpi"), 4, "8 programs"),
        (("srun", "-n6", "-N", "2", "./mpi", "-n", "9"), 3, "6 programs"),
        (("srun", "-l", "--ntasks=3", "--cpu-bind", "none", "./mpi"), 2, "3 programs"),
        (("srun", "--ntasks-per-node=1", "torchrun", "--nproc_per_node=4", "t.py"), 1, "2 pro"),
        (("X=1", "srun", "--mpi=pmix", "-n", "16", "python", "t.py", "-n", "3"), 8, "16 programs"),
        (("srun -n $N ./mpi",), 4, "what --ntasks says"),
        (("mpirun", "-np", "12", "./mpi"), 6, "12 programs"),
        (("mpirun", "python", "t.py", "-n", "3"), 4, "8 programs"),
    ],
)
def test_what_starts_programs_on_all_nodes_is_given_room_for_them(
    words: tuple[str, ...], ranks: int, told: str
) -> None:
    """As many on a node as the command says, and one for each GPU where it says nothing."""
    found = started(*words)
    assert (found.start, found.ranks) == ("once", ranks)
    assert told in found.notices[0]
    if "-N" not in words:
        alone = started(*words, on=Shape(1, 4))
        assert (alone.start, alone.nodes) == ("once", 1)


def test_what_nobody_can_count_is_not_counted() -> None:
    """A variable of the shell is the shell's to read; the words say so."""
    found = started("torchrun --nproc_per_node=$GPUS train.py")
    assert "starts what --nproc_per_node says" in found.notices[0]
    assert "4 programs there, 8 in all" in started("torchrun --nproc_per_node=gpu t.py").notices[0]


def test_a_program_may_leave_ranks_to_a_file_that_it_imports() -> None:
    """Of the project, beside it, at the root or in src; no other file counts."""
    for name in ("lib/ranks.py", "x/lib/ranks.py", "src/lib/ranks.py"):
        files = {"x/go.py": "import os\nfrom lib.ranks import setup\n", name: RANKED}
        assert started("cd x && python go.py", files=files).start == "rank"
    with pytest.raises(RefusedError):
        started("python", "x/go.py", files={"x/go.py": "import lib\n", "other.py": RANKED})


def test_launchers_that_read_no_variables_have_a_program_in_front() -> None:
    """deepspeed on one node too, for its port; torchrun reads what it needs."""
    one = Shape(1, 4)
    assert started("deepspeed", "--num_gpus=4", "t.py", on=one).fronted
    assert not started("torchrun", "--nproc_per_node=4", "t.py", on=one).fronted
    assert not started("accelerate", "launch", "t.py", on=one).fronted
    assert started("deepspeed", "--num_gpus=4", "t.py").fronted
    assert started("cd x && accelerate launch t.py").fronted
    assert not started("deepspeed", "t.py", start="once").fronted


def test_a_user_who_says_how_is_believed() -> None:
    """--start goes over what the command looks like."""
    for how in launch.STARTS:
        made = started("make", "train", start=how)
        assert made.start == how
        assert "starts" not in made.notices[0]
        assert started("python", "plain.py", start=how, files={"plain.py": ""}).start == how


def test_what_runs_beside_a_launcher_is_told() -> None:
    """The whole line runs on each node, so its other programs do as well."""
    found = started("python prepare.py && torchrun --nproc_per_node=4 train.py")
    assert any("prepare.py" in notice for notice in found.notices[1:])


@pytest.mark.parametrize(
    ("text", "inference"),
    [
        ("m = X.from_pretrained(n, device_map='auto')", True),
        ("from vllm import LLM", True),
        ("pipe = pipeline('text')", True),
        ("m = X(device_map='auto')\nloss.backward()", False),
        ("m = X(device_map='auto')\nTrainer(m).train()", False),
        ("print(1)", False),
    ],
)
def test_inference_is_recognised(text: str, inference: bool) -> None:
    """A model that is spread over GPUs and not trained."""
    assert launchcheck.is_inference(text) is inference


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_command_breaks_the_look_at_it(line: str, script: str) -> None:
    """Quotes that do not close, odd letters, anything: there is an answer or a refusal."""
    for words in ((line,), ("torchrun", line), ("bash", "x.sh"), ("python", line)):
        if not words[0]:
            continue
        try:
            started(*words, files={"x.sh": script, line: script})
        except RvstateError as error:
            refused(error)
