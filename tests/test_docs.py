"""What is written for people is complete, and says what the program says."""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rvstate import assets, config, errors, schema
from rvstate.cli import COMMANDS, cli
from rvstate.model.plan import Action
from rvstate.model.resources import KINDS
from rvstate.model.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
_PLACEHOLDER = "/home/you/.rv"
_ELISION = "[…]"


def pages() -> list[Path]:
    """Every page of the site."""
    return sorted(DOCS.rglob("*.md"))


def prose() -> list[Path]:
    """Everything that people read: the site and the files at the root."""
    return [*pages(), *sorted(ROOT.glob("*.md"))]


def page(name: str) -> str:
    """The text of one page."""
    return (DOCS / name).read_text("utf-8")


def named(path: Path) -> str:
    """How a test names a page."""
    return str(path.relative_to(ROOT))


def command(words: str) -> click.Command:
    """A command, or a command of a command."""
    found: click.Command = cli
    context = click.Context(cli)
    for word in words.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(context, word)
        assert inner is not None, words
        found = inner
    return found


def all_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and the commands in it, with its name."""
    for name in COMMANDS:
        found = command(name)
        yield name, found
        if isinstance(found, click.Group):
            for inner in found.list_commands(click.Context(found)):
                yield f"{name} {inner}", command(f"{name} {inner}")


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody finds is not there: each stands in mkdocs.yml exactly once."""
    listed = re.findall(r":\s*(\S+\.md)\s*$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in pages())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_page(name: str) -> None:
    """`rvstate NAME` is explained in docs/commands/NAME.md, which begins with its name."""
    assert name in page(f"commands/{name}.md").splitlines()[0]


@pytest.mark.parametrize(("name", "found"), [pytest.param(*x, id=x[0]) for x in all_commands()])
def test_every_option_is_on_its_commands_page(name: str, found: click.Command) -> None:
    """No option is known to --help only."""
    text = page(f"commands/{name.split()[0]}.md")
    for parameter in found.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for spelling in (*parameter.opts, *parameter.secondary_opts):
                whole = rf"(?<![\w-]){re.escape(spelling)}(?![\w-])"
                assert re.search(whole, text), f"{spelling} is not in docs/commands"


@pytest.mark.parametrize("path", sorted((DOCS / "commands").glob("*.md")), ids=named)
def test_pages_name_no_option_that_is_not_there(path: Path) -> None:
    """The first cell of an option table holds options that the command really has."""
    known = {"--"}
    for name, found in all_commands():
        if name.split()[0] == path.stem:
            known.update(
                s
                for p in found.params
                if isinstance(p, click.Option)
                for s in (*p.opts, *p.secondary_opts)
            )
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("| `-"):
            cell = line.split("|")[1]
            for spelling in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", cell):
                assert spelling in known, f"{spelling} in {path.name}"


def settings_keys() -> list[tuple[str, str, object]]:
    """Table, key and default of every setting; a table of named tables has no defaults."""
    found: list[tuple[str, str, object]] = []
    for table, kind in schema.keys(Settings).items():
        inner = kind if dataclasses.is_dataclass(kind) else typing.get_args(kind)[-1]
        assert dataclasses.is_dataclass(inner)
        for field in dataclasses.fields(inner):
            found.append((table, field.name, field.default))
    return found


@pytest.mark.parametrize(
    ("table", "key", "default"),
    [pytest.param(*x, id=f"{x[0]}.{x[1]}") for x in settings_keys()],
)
def test_every_setting_is_documented(table: str, key: str, default: object) -> None:
    """docs/configuration.md has a row for each key of each table, with a default that is true."""
    sections = page("configuration.md").split("\n### ")
    section = next((s for s in sections if s.startswith(f"`[{table}")), None)
    assert section is not None, f"no section for [{table}]"
    row = next((r for r in section.splitlines() if r.startswith(f"| `{key}` |")), None)
    assert row is not None, f"no row for {key} in [{table}]"
    said = row.split("|")[2].strip().strip("`")
    if isinstance(default, bool):
        assert said == str(default).lower()
    elif isinstance(default, int):
        assert said == str(default)
    elif isinstance(default, tuple):
        quoted = ", ".join(f'"{part}"' for part in default)
        assert said == f"[{quoted}]"


def test_no_setting_is_documented_that_is_not_there() -> None:
    """Every row of a settings table names a key that is known."""
    known = {(table, key) for table, key, _ in settings_keys()}
    table = ""
    for line in page("configuration.md").splitlines():
        if heading := re.match(r"### `\[(\w+)", line):
            table = heading.group(1)
        elif line.startswith("## "):
            table = ""
        elif table and (row := re.match(r"\| `(\w+)` \|", line)):
            assert (table, row.group(1)) in known, line


def test_the_example_configurations_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pages show as config.toml can be pasted."""
    monkeypatch.setenv("RVSTATE_HOME", str(tmp_path))
    monkeypatch.delenv("RVSTATE_CONFIG", raising=False)
    monkeypatch.delenv("RVSTATE_CLUSTER", raising=False)
    examples = 0
    for path in (ROOT / "README.md", DOCS / "configuration.md"):
        for text in re.findall(r"^```toml\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            (tmp_path / "config.toml").write_text(text)
            assert config.load().host != "@local"
            examples += 1
    assert examples >= 3


def test_the_profile_format_is_valid_and_complete() -> None:
    """The profile in docs/sites.md is one, and shows every key that a profile may have."""
    from rvstate.model import site

    (text,) = re.findall(r"^```toml\n(.*?)^```", page("sites.md"), re.M | re.S)
    config.read_site(text, "docs/sites.md")
    table = tomllib.loads(text)
    for name, kind, found in (
        ("", site.Site, table),
        ("paths", site.SitePaths, table["paths"]),
        ("modules", site.SiteModules, table["modules"]),
        ("purge", site.Purge, table["purge"]),
        ("scheduling", site.Scheduling, table["scheduling"]),
        ("partitions", site.Partition, table["partitions"][0]),
        ("gpus", site.Gpu, next(iter(table["gpus"].values()))),
    ):
        assert set(found) == set(schema.keys(kind)), name
    for value in (*site.CLOCKS, *site.TOUCH_POLICIES):
        assert f"`{value}`" in page("sites.md")


@pytest.mark.parametrize("name", assets.site_names())
def test_each_shipped_profile_has_its_policy_link_and_date(name: str) -> None:
    """docs/sites.md links the policy that a profile was checked against, with the date."""
    text = page("sites.md")
    assert f"### {name}\n" in text
    profile = config.read_site(assets.site(name) or "", name)
    if profile.purge.url is not None:
        section = text.split(f"### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
        assert profile.purge.url in section
        assert profile.checked is not None
        assert profile.checked in section


def test_kinds_and_actions_are_explained() -> None:
    """The words of a plan are in docs/concepts.md, kinds in the order of application."""
    text = page("concepts.md")
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", text, re.M)) == KINDS
    for action in Action:
        assert f"| `{action.value}` | {action.word} |" in text
    for kind in KINDS:
        assert f"`{kind}`" in page("commands/converge.md")


def test_the_architectures_tables_are_complete() -> None:
    """docs/architecture.md names every module of each floor that exists, and every script."""
    text = page("architecture.md")
    floors = runpy.run_path(str(ROOT / "tests" / "test_shape.py"))["FLOORS"]
    for number, names in enumerate(floors, 1):
        (row,) = re.findall(rf"^\| {number} \|.*", text, re.M)
        for name in names:
            if (ROOT / "rvstate" / f"{name}.py").exists():
                assert f"`{name}`" in row, name
            elif (ROOT / "rvstate" / name).exists():
                assert f"`{name}/`" in row, name
    for script in (ROOT / "rvstate" / "remote").glob("*.sh"):
        assert f"`{script.name}`" in text, script.name


def test_exit_codes_are_told() -> None:
    """docs/troubleshooting.md lists exactly the exit codes that there are."""
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    listed = set(map(int, re.findall(r"^\| (\d+) \|", page("troubleshooting.md"), re.M)))
    assert listed == codes


def test_every_dependency_has_its_reason() -> None:
    """Decision 0005 has a row for each dependency, and for nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = {
        re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0]
        for line in (
            *project["project"]["dependencies"],
            *(x for more in project["project"]["optional-dependencies"].values() for x in more),
            *(x for group in project["dependency-groups"].values() for x in group),
            *project["build-system"]["requires"],
        )
    }
    rows = re.findall(r"^\| ([a-z][\w-]*) \| \S", page("decisions/0005-dependencies.md"), re.M)
    assert sorted(set(rows) - {"dependency"}) == sorted(wanted)


@pytest.mark.parametrize("path", [p for p in prose() if p.parent == ROOT], ids=named)
def test_links_of_files_at_the_root_lead_somewhere(path: Path) -> None:
    """mkdocs checks the site's links; these are checked here."""
    for target in re.findall(r"\]\(([^)#]+)", path.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", prose(), ids=named)
def test_files_that_are_named_are_there(path: Path) -> None:
    """A page that names a file of the repository names one that exists."""
    tops = "rvstate|tests|docs|scripts|examples|benchmarks|requirements|deploys|inventories"
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for name in re.findall(rf"`((?:{tops})/[\w./-]*\w\.(?:py|sh|toml|md|txt))`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", [p for p in prose() if p.parent.name != "commands"], ids=named)
def test_one_sentence_per_line(path: Path) -> None:
    """A change of one sentence is a change of one line."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for line in text.splitlines():
        if line.startswith(("|", "#", "(")):
            continue
        plain = re.sub(r"`[^`]*`", "x", line)
        assert not re.search(r"[a-z)`\]][.?!] [A-Z]", plain), line


def readme_sessions() -> list[tuple[str, list[str]]]:
    """The commands of the README's tour, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    text = (ROOT / "README.md").read_text("utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def normal(line: str) -> str:
    """A line without what differs from run to run: commits, digests, run ids, versions, times."""
    line = re.sub(r"python \d+\.\d+\.\d+\S*", "python VERSION", line)
    line = re.sub(r"\d{8}-\d{6}-[0-9a-f]{8}", "RUN", line)
    line = re.sub(r"hello \S+@(?:[0-9a-f]{7,40}|no commit|-)\*?", "hello CODE", line)
    line = re.sub(r"/hello/(\.generations/)?[^/]+/", r"/hello/\1BRANCH/", line)
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{16,40}\b", "DIGEST", line)
    line = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", line)
    return re.sub(r" {2,}", "  ", line).rstrip()


def agree(said: list[str], printed: list[str]) -> bool:
    """Whether `printed` is `said`, where an elision stands for any lines."""
    if not said:
        return not printed
    if said[0] == _ELISION:
        return any(agree(said[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and said[0] == printed[0] and agree(said[1:], printed[1:])


def of_errors(line: str) -> bool:
    """Whether a line of a log comes from its standard error."""
    return line.startswith("rvstate: python is ")


@pytest.mark.slow
def test_the_readmes_tour_prints_what_it_says(tmp_path: Path) -> None:
    """Whoever types the tour sees the tour, on the embedded default."""
    home = tmp_path / "rv"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RVSTATE_", "SBATCH_"))}
    env |= {"RVSTATE_HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    here = ROOT
    ran = 0
    for line, said in readme_sessions():
        words = line.split()
        if words[0] == "cd":
            here = here / words[1]
            continue
        assert words[0] == "rvstate", line
        # on a terminal both come in the order in which they are written
        done = subprocess.run(
            [sys.executable, "-m", "rvstate", *words[1:]],
            cwd=here,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        printed = [normal(x.replace(str(home), _PLACEHOLDER)) for x in done.stdout.splitlines()]
        expected = [normal(x) for x in said]
        # which of a log's two streams is seen first depends on when one looks
        assert [x for x in printed if of_errors(x)] == [x for x in expected if of_errors(x)]
        printed, expected = (
            [x for x in lines if not of_errors(x)] for lines in (printed, expected)
        )
        assert agree(expected, printed), f"$ {line}\n{done.stdout}"
        ran += 1
    assert ran >= 5
