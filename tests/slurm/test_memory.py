import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.errors import ConfigError
from rvstate.slurm import memory


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("16G", 16384),
        ("16g", 16384),
        ("16GB", 16384),
        ("16 GiB", 16384),
        ("1.5T", 1572864),
        ("500M", 500),
        ("1K", 1),
        ("1025K", 2),
        ("0", 0),
    ],
)
def test_what_people_write(text: str, mib: int) -> None:
    """Powers of 1024 whatever the spelling, rounded up, as sbatch counts."""
    assert memory.parse(text) == mib


@pytest.mark.parametrize("text", ["16", "", "G", "-1G", "1e3M", "16X", "16BG", "0G", "1.G"])
def test_nonsense_is_refused(text: str) -> None:
    """No unit, or no size: an error with an example."""
    with pytest.raises(ConfigError) as caught:
        memory.parse(text)

    assert caught.value.remedy


@given(st.integers(0, 10**9))
def test_written_sizes_read_back(mib: int) -> None:
    """What is written for sbatch reads back the same."""
    assert memory.parse(memory.render(mib)) == mib


def test_render_takes_the_largest_whole_unit() -> None:
    """Readable in a batch script."""
    assert [memory.render(n) for n in (16384, 1500, 2 * 1024**2, 0)] == ["16G", "1500M", "2T", "0"]
    with pytest.raises(ValueError, match="-5"):
        memory.render(-5)
