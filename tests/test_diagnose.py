"""A job's own words are answered with what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvstate.diagnose import diagnose

ENV = "/scratch/u/.rv/envs/p/.generations/main/abc"
MINE = f'  File "{ENV}/lib/python3.12/site-packages/x/__init__.py", line 1\n'
OTHER = '  File "/usr/lib64/python3.6/runpy.py", line 193, in _run_module_as_main\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ModuleNotFoundError: No module named 'sae_lens.x'", "no module sae_lens"),
        (f"{OTHER}ModuleNotFoundError: No module named 'torch'", "another Python"),
        (f"{MINE}{OTHER}ModuleNotFoundError: No module named 'torch'", "no module torch"),
        ("ModuleNotFoundError: No module named 'dataclasses'", "another Python"),
        (
            "rvstate: /usr/bin/python3 is another Python than the environment's\n"
            "ModuleNotFoundError: No module named 'torch'",
            "torch was looked for by another Python than the environment's (/usr/bin/python3)",
        ),
        ("SyntaxError: f-string expression part cannot include a backslash", "too old for it"),
        (
            "ImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.29' not found (required by",
            "GLIBCXX_3.4.29",
        ),
        ("/lib64/libm.so.6: version `GLIBC_2.29' not found", "GLIBC_2.29"),
        (
            "rvstate: the environment's packages (flash-attn) could not be built on this node; the",
            "flash-attn could be built neither",
        ),
        ("rvstate: the environment could not be built on this node; the", "could not, so your"),
        (f"rvstate: the environment {ENV} is gone; submit again", "was removed after"),
        (
            "rvstate: the job does not get the Python of its environment; `python` is /x; "
            "nothing was run",
            "`python` is /x.",
        ),
        (
            f"rvstate: python is {ENV}/bin/python\n{OTHER}ModuleNotFoundError: No module named "
            "'torch'",
            "another Python",
        ),
        ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "driver"),
        ("ImportError: /x/y.so: file too short", "damaged"),
        ("fatal: not a git repository (or any of the parent directories): .git", "asked git"),
        ("/x/job.sh: line 329: exec: python: not found", "no program python, "),
    ],
)
def test_each_is_recognised_and_answered(text: str, says: str) -> None:
    """By its cause, with a remedy."""
    found = diagnose(f"epoch 1\n{text}\n")
    assert says in found[0].message
    assert found[0].remedy.endswith(".")


@pytest.mark.parametrize("text", ["", "ok\n", "ValueError: bad\n", "Permission denied\n"])
def test_nothing_is_made_up(text: str) -> None:
    """What is not known is not explained."""
    assert diagnose(text) == ()


@given(st.text())
def test_any_log_can_be_read(text: str) -> None:
    """No log is too odd."""
    assert len(diagnose(text)) <= 2
