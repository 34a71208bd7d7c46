"""What is assumed of Slurm, asked of a real one."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvstate import shell
from rvstate.slurm import jobid, nodelist, options, sacct, sinfo, squeue

pytestmark = pytest.mark.cluster

TEXTS = [
    "a#b",
    'x "q" \'s\' \\ \\\\ \\"',
    "$HOME `id` %j",
    "é ünï",
    "hetjob",
    ": colon",
    "  lead and trail  ",
    "tab\there",
    "back\\",
    "a|b\x1fc",
]


@pytest.fixture
def login(request: pytest.FixtureRequest) -> Any:
    """The mini-cluster of tests/cluster, where a conftest.py above offers it."""
    try:
        return request.getfixturevalue("cluster")
    except pytest.FixtureLookupError:
        pytest.skip("no cluster fixture here")


def ask(login: Any, *words: str, stdin: str = "") -> str:
    """Standard output of one command on the login node."""
    return str(login.ssh(shell.join(words), stdin=stdin).stdout)


def test_every_text_reaches_slurm_and_comes_back(login: Any) -> None:
    """sbatch_line writes it, sbatch reads it, squeue prints it, the parser finds it."""
    sent: dict[str, str] = {}
    for text in TEXTS:
        asked = options.SbatchOptions(
            name=f"n {text}", comment=text.replace("\x1f", ""), account="mygroup", time=60
        )
        script = "\n".join(["#!/bin/bash", *options.lines(asked), "true", ""])
        answer = ask(login, "sbatch", "--parsable", "--hold", stdin=script)
        sent[str(jobid.parse_submitted(answer))] = text

    rows = {str(job.job): job for job in squeue.parse(ask(login, *squeue.command(jobs=sent)))}

    for job, text in sent.items():
        assert (rows[job].name, rows[job].comment) == (f"n {text}", text.replace("\x1f", ""))


@pytest.mark.parametrize(
    "text",
    ["udc-an28-[1-2,05-07],login1", "a[1-2]b[3-4]", "n[8-11]", "n[098-101]", "b,a,b", "n[9-011]"],
)
def test_node_lists_expand_as_scontrol_does(login: Any, text: str) -> None:
    """The same names in the same order."""
    assert list(nodelist.expand(text)) == ask(login, "scontrol", "show", "hostnames", text).split()


def ranges(low: int, more: int, width: int) -> str:
    """A number, or a range of them."""
    first = str(low).zfill(width)
    return first if more == 0 else f"{first}-{str(low + more).zfill(width)}"


NUMBERS = st.builds(ranges, st.integers(0, 1005), st.integers(0, 12), st.integers(1, 4))
BRACKETS = st.lists(NUMBERS, min_size=1, max_size=4).map(lambda parts: f"[{','.join(parts)}]")
PREFIX = st.sampled_from(("n", "udc-an28-", "gpu1-", "a0", "x-y-"))
NAMES = st.one_of(
    PREFIX.map(lambda text: f"{text}7"),
    st.builds("{}{}".format, PREFIX, BRACKETS),
    st.builds("{}{}r{}".format, PREFIX, BRACKETS, BRACKETS),
)
LISTS = st.lists(NAMES, min_size=1, max_size=4).map(",".join)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(LISTS, min_size=15, max_size=40))
def test_any_node_list_expands_as_scontrol_does(login: Any, texts: list[str]) -> None:
    """Several prefixes, several brackets, zeros of every width: Slurm's own program is right."""
    loop = 'for list; do scontrol show hostnames "$list" | tr "\\n" " "; echo; done'
    answer = ask(login, "sh", "-c", loop, "sh", *texts)
    for text, line in zip(texts, answer.splitlines(), strict=True):
        assert list(nodelist.expand(text)) == line.split(), text


def test_tables_are_read(login: Any) -> None:
    """Each command is accepted, and its answer is the table that its parser knows."""
    sacct.parse(ask(login, *sacct.command(days=1, steps=True)))
    nodes = sinfo.parse_nodes(ask(login, *sinfo.NODES_COMMAND))
    partitions = sinfo.parse_partitions(ask(login, *sinfo.PARTITIONS_COMMAND))

    assert {name for node in nodes for name in node.partitions} <= {one.name for one in partitions}
    assert any(gres.name == "gpu" for node in nodes for gres in node.gres)
