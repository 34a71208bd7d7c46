"""What sites' own programs print, read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate.sitetools import allocations, hdquota, nvidia
from rvstate.sitetools.allocations import Balance

ALLOCATIONS = """\
Account                       Balance        Reserved       Available
-----------------           ---------       ---------       ---------
mygroup                      10000000               0         8742210
other-group                 1,000,000          -12.50       1,000,000

for more information about a specific allocation, please
run: 'allocations -a <allocation name>'
"""
QUOTA = """\
Storage Type       Location                             Size         Used        Avail  Use%
------------       --------                             ----         ----        -----  ----
Home Directory     /home/abc1de                     512.0 MB     348.0 KB     511.7 MB    1%
Scratch            /scratch/abc1de                    2.0 TB       0.0 B        2.0 TB    0%
home               /home            abc1de              50G          41G          9.1G   82%
"""


def test_balances_are_read_and_remarks_are_not() -> None:
    """Rows with a name and three numbers; headings, lines and sentences are none."""
    assert allocations.parse(ALLOCATIONS) == (
        Balance("mygroup", 10_000_000, 0, 8_742_210),
        Balance("other-group", 1_000_000, -12.5, 1_000_000),
    )


def test_quotas_are_read_in_bytes() -> None:
    """Units with and without a space, and with a column for the user."""
    found = hdquota.parse(QUOTA)
    assert [(q.name, q.path, q.used) for q in found] == [
        ("Home Directory", "/home/abc1de", 348 * 1024),
        ("Scratch", "/scratch/abc1de", 0),
        ("home", "/home", 41 * 1024**3),
    ]
    assert found[0].size == 512 * 1024**2
    assert found[2].free == int(9.1 * 1024**3)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab 1/%.,-GKB\n\t|", max_size=80))
def test_text_that_is_none_of_it_is_never_an_error(text: str) -> None:
    """A site's own program may print anything; it decides nothing and stops nothing."""
    allocations.parse(text)
    hdquota.parse(text)
    nvidia.parse("n", text, text)


def test_what_the_driver_does_not_tell_stays_unknown() -> None:
    """MIG has no utilisation: that is neither busy nor idle."""
    (gpu,) = nvidia.parse("n1", "", "0, NVIDIA A100, [N/A], [N/A], 9856 MiB")
    assert (gpu.busy, gpu.used, gpu.total) == (None, None, 9856)
    assert not gpu.empty


@pytest.mark.parametrize(
    ("devices", "seen"), [("", [0, 1, 2, 3]), ("1-2", [1, 2]), ("0,3", [0, 3]), ("x", [0, 1, 2, 3])]
)
def test_strangers_gpus_are_left_out(devices: str, seen: list[int]) -> None:
    """A node that shows all its GPUs to everybody shows ours by their numbers."""
    text = "\n".join(f"{n}, NVIDIA A100, 5 %, 10 MiB, 81920 MiB" for n in range(4))
    assert [gpu.index for gpu in nvidia.parse("n", devices, text)] == seen


def test_renumbered_gpus_are_ours() -> None:
    """Where the job sees only its own they begin at zero, whatever Slurm calls them."""
    text = "0, NVIDIA A100, 5 %, 10 MiB, 81920 MiB\n1, NVIDIA A100, 0 %, 10 MiB, 81920 MiB"
    assert [gpu.index for gpu in nvidia.parse("n", "4,5", text)] == [0, 1]


@pytest.mark.parametrize(
    ("busy", "used", "empty"), [(0, 4, True), (0, 900, False), (3, 4, False), (None, 4, False)]
)
def test_a_gpu_is_empty_where_nothing_computes_and_nothing_is_held(
    busy: int | None, used: int, empty: bool
) -> None:
    """The driver's own share is nothing; a program that waits for data is something."""
    assert nvidia.Gpu("n", 0, "x", busy, used, 81920).empty is empty
