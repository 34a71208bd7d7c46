"""squeue, sacct and sinfo, from captured and from newer-looking output."""

from pathlib import Path

import pytest

from rvstate.errors import ParseError
from rvstate.slurm import sacct, sinfo, squeue
from rvstate.slurm.rows import SEPARATOR
from rvstate.slurm.states import JobState, exit_status

DATA = Path(__file__).parent.parent / "data" / "slurm"


def captured(name: str) -> str:
    """Bytes as they came, line ends included."""
    return (DATA / name).read_bytes().decode()


def row(fields: tuple[str, ...], **values: str) -> str:
    """One row of newer output."""
    return "".join(values.get(f.replace("-", "_"), "") + SEPARATOR for f in fields) + "\n"


def test_squeue_captured() -> None:
    """Real 22.05 output, with names made to break a parser."""
    rows = {str(job.job): job for job in squeue.parse(captured("squeue-22.05.txt"))}

    assert list(rows) == ["4", "11", "8", "9", "10", "7", "3_[2-9%2]", "3_0", "3_1", "1", "2"]
    assert rows["1"].name == 'we|ird "na\'me" \n12345 % x'
    assert rows["1"].comment == "tok=abc | user text"
    assert (rows["1"].state, rows["1"].time_limit) == (JobState.RUNNING, 300)
    assert (rows["2"].name, rows["2"].comment) == ("sep\x1fname", "c\nd")
    assert (rows["3_1"].number, rows["3_1"].job.base) == (6, 3)
    assert (rows["4"].reason, rows["4"].start, rows["4"].nodes) == ("JobHeldUser", None, ())
    assert (rows["11"].gres, rows["11"].nodes) == ("gpu:a6000:2", ("udc-an25-1",))
    assert [rows[n].exit_code for n in ("8", "9", "10")] == ["3:0", "130:0", "0:9"]


def test_squeue_newer_spellings() -> None:
    """23.02 and later: gres/ prefix, longer states, limits not set."""
    text = row(
        squeue.FIELDS, JobArrayID="77+1", JobID="78", State="POWER_UP_NODE", Reason="None",
        Partition="a,b", TimeUsed="INVALID", TimeLimit="NOT_SET", SubmitTime="17", StartTime="N/A",
        EndTime="N/A", NumNodes="2-4", NodeList="n[1-2]", tres_per_node="gres/gpu:h200:4",
        tres_alloc="N/A", exit_code="1:0", RestartCnt="3", Comment="(null)", Name="x",
    )  # fmt: skip

    (job,) = squeue.parse(text)

    assert (job.job.het, job.state, job.reason) == (1, JobState.POWER_UP_NODE, "")
    assert (job.time_used, job.time_limit, job.node_count) == (None, None, 2)
    assert (job.gres, job.tres, job.exit_code, job.restarts) == ("gpu:h200:4", "", "1:0", 3)


def test_sacct_captured() -> None:
    """Real 22.05 output with steps; the database itself turns `"` in a name into a backquote."""
    rows = {str(one.job): one for one in sacct.parse(captured("sacct-22.05.txt"))}

    assert rows["1"].name == "we|ird `na'me` \n12345 % x"
    assert rows["2"].name == "sep\x1fname"
    assert (rows["8"].state, rows["8"].exit_code) == (JobState.FAILED, "3:0")
    assert (rows["3_0"].raw, rows["3_0.batch"].raw) == ("5", "5.batch")
    assert (rows["1"].time_limit, rows["1.batch"].time_limit, rows["1"].end) == (300, None, None)


def test_sacct_other_spellings() -> None:
    """Cancelled by somebody, never started, without limit."""
    text = row(
        sacct.FIELDS, JobID="9_[4-7]", JobIDRaw="9", State="CANCELLED by 1001", ExitCode="0:0",
        ElapsedRaw="0", TimelimitRaw="Partition_Limit", Submit="17", Start="None", End="18",
        NNodes="1", NodeList="None assigned", Reason="QOSMaxGRESPerUser", Comment="t", JobName="n",
    ) + row(
        sacct.FIELDS, JobID="10", JobIDRaw="10", State="OUT_OF_MEMORY", ExitCode="0:125",
        TimelimitRaw="UNLIMITED", Submit="17", Start="Unknown", End="Unknown",
        NodeList="n[1-2]", Reason="None", JobName="m",
    )  # fmt: skip

    cancelled, killed = sacct.parse(text)

    assert (cancelled.state, cancelled.cancelled_by) == (JobState.CANCELLED, 1001)
    assert (cancelled.start, cancelled.nodes, cancelled.time_limit) == (None, (), None)
    assert cancelled.reason == "QOSMaxGRESPerUser"
    assert (killed.state, killed.nodes) == (JobState.OUT_OF_MEMORY, ("n1", "n2"))


@pytest.mark.parametrize("parse", [squeue.parse, sacct.parse])
def test_tables_refuse_other_text(parse: object) -> None:
    """An error message on standard output is not a queue."""
    with pytest.raises(ParseError):
        parse("slurm_load_jobs error: Unable to contact slurm controller\n")  # type: ignore[operator]


def test_commands_are_argument_lists() -> None:
    """Times are asked for as epochs; a user's own squeue defaults cannot filter ours."""
    words = squeue.command(jobs=("1", "2_3"), user="abc1de", finished=True)

    assert "SLURM_TIME_FORMAT=%s" in words
    assert words[-3:] == ("--jobs=1,2_3", "--user=abc1de", "--states=all")
    assert "SQUEUE_STATES" in words
    assert sacct.command(jobs=("1",), days=7)[-3:] == (
        "--allocations",
        "--jobs=1",
        "--starttime=now-7days",
    )


def test_sinfo_nodes_captured() -> None:
    """A node in four partitions is one node, and what jobs hold of it is not free."""
    nodes = {node.name: node for node in sinfo.parse_nodes(captured("sinfo-nodes-22.05.txt"))}

    assert len(nodes) == 7
    gpu = nodes["udc-an25-1"]
    assert gpu.partitions == ("interactive", "gpu", "gpu-a6000", "preempt")
    assert (gpu.cpus, gpu.cpus_idle, gpu.memory_idle) == (48, 44, 257000 - 8192)
    assert gpu.free_gres() == (sinfo.Gres("gpu", "a6000", 6),)
    assert nodes["udc-an37-1"].gres == (sinfo.Gres("gpu", "1g.10gb", 14),)
    assert nodes["udc-aj37-1"].gres == ()


def test_sinfo_partitions_captured() -> None:
    """Also partitions without nodes, which have no default time."""
    found = {
        one.name: one for one in sinfo.parse_partitions(captured("sinfo-partitions-22.05.txt"))
    }

    assert [one.name for one in found.values() if one.default] == ["standard"]
    assert (found["gpu"].time_limit, found["gpu"].node_count) == (259200, 5)
    assert (found["gpu-a40"].nodes, found["gpu-a40"].default_time) == ((), None)


@pytest.mark.parametrize(
    ("state", "in_service", "can_start"),
    [
        ("idle", True, True),
        ("mixed-", True, True),
        ("idle~", True, True),
        ("allocated", True, False),
        ("down*", False, False),
        ("drained", False, False),
        ("draining@", False, False),
        ("idle*", False, False),
        ("maint", False, False),
        ("idle$", False, False),
        ("inval", False, False),
        ("something_new", False, False),
    ],
)
def test_only_known_good_states_count_as_free(
    state: str, in_service: bool, can_start: bool
) -> None:
    """A state that is not known here never counts as free."""
    text = row(
        sinfo.NODE_FIELDS, NodeList="n1", Partition="p*", StateLong=state, CPUsState="0/8/0/8",
        Memory="1000+", AllocMem="0", Gres="gpu:2", GresUsed="gpu:0", Features="(null)",
    )  # fmt: skip

    (node,) = sinfo.parse_nodes(text)

    assert (node.in_service, node.can_start) == (in_service, can_start)
    assert node.cpus_idle == (8 if can_start else 0)
    assert node.free_gres() == (sinfo.Gres("gpu", "", 2 if can_start else 0),)


@pytest.mark.parametrize(
    ("text", "gres"),
    [
        ("(null)", ()),
        ("gpu:a100:8(S:0-1)", (("gpu", "a100", 8),)),
        ("gpu:a100:4(S:0),gpu:a100:4(S:1)", (("gpu", "a100", 8),)),
        ("gpu:a100:2(IDX:0-1,3),lscratch:1K", (("gpu", "a100", 2), ("lscratch", "", 1024))),
        ("gpu:1g.10gb:7", (("gpu", "1g.10gb", 7),)),
        ("craynetwork", (("craynetwork", "", 1),)),
    ],
)
def test_gres(text: str, gres: tuple[tuple[str, str, int], ...]) -> None:
    """Every spelling of generic resources, per socket and with indices."""
    assert sinfo.parse_gres(text) == tuple(sinfo.Gres(*one) for one in gres)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "higher priority"),
        ("(Resources)", "free resources"),
        ("Dependency", "another job"),
        ("DependencyNeverSatisfied", "cancel"),
        ("QOSMaxGRESPerUser", "GPUs"),
        ("AssocGrpGRES", "account"),
        ("AssocGrpBillingMinutes", "budget"),
        ("AssocGrpCPURunMinutesLimit", "running jobs"),
        ("QOSMinGRES", "fewer"),
        ("MaxGRESPerAccount", "account"),
        ("ReqNodeNotAvail, UnavailableNodes:udc-an28-1", "udc-an28-1"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs", "drained"),
        ("launch failed requeued held", "release"),
        ("Priority,Resources", "free resources"),
        ("BeginTime", "start time"),
        ("JobArrayTaskLimit", "array"),
        ("PartitionDown", "closed"),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    """People are told what the job waits for."""
    assert words in squeue.reason_in_words(reason)


def test_unknown_reasons_are_shown_as_they_are() -> None:
    """A reason of a newer Slurm is not hidden."""
    assert squeue.reason_in_words("SomethingNew") == "SomethingNew"


def test_sacct_captured_endings() -> None:
    """Cancelled, failed, killed and heterogeneous jobs of a real 22.05, each with its exit code."""
    rows = {str(one.job): one for one in sacct.parse(captured("sacct-ended-22.05.txt"))}

    assert {"37+0", "37+1", "36_2"} <= set(rows)
    assert (rows["34"].state, rows["34"].cancelled_by) == (JobState.CANCELLED, 20001)
    ended = [exit_status(rows[n].state, rows[n].exit_code) for n in ("1", "8", "10", "34")]
    assert ended == [0, 3, 137, 143]
    # This sacct took 128 off the program's 130, see exit_status.
    assert exit_status(rows["9"].state, rows["9"].exit_code) == 2
