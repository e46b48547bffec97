"""Each guide is followed word by word, from nothing to its end; and the documents name no verb or option that is not there."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer._click import Command

from pipelines.cli import VERBS, _verb
from pipelines.serve import free_port, ready
from tests.docs.guides import DOCS, GUIDES, ROOT, Block, Followed, beginning, blocks_of, follow, guide, promised

READ = (ROOT / "README.md", ROOT / "client" / "README.md", *sorted(DOCS.glob("*.md")))
LANGUAGES = {"sh", "text", "python", "jinja", "console", "cron"}
each_guide = pytest.mark.parametrize("name", GUIDES)


@pytest.fixture(scope="session", params=GUIDES)
def followed(request: pytest.FixtureRequest, begun: Followed, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A guide from where its beginning ends to its own end."""
    name: str = request.param
    place = tmp_path_factory.mktemp(name) / "trial"
    shutil.copytree(begun.place, place)
    for part in ("client", "examples"):
        (place.parent / part).symlink_to(ROOT / part)
    port = free_port()
    found = follow(guide(name)[len(begun.blocks) :], place, port)
    assert not ready(f"http://127.0.0.1:{port}"), f"{name} leaves its service running"
    return found


def mind(followed: Followed) -> None:
    """Every block ``text`` is what the block before it says."""
    for before, block in enumerate(followed.blocks[1:]):
        if block.language == "text":
            said = followed.said[before]
            assert followed.blocks[before].language == "sh" and said is not None
            assert promised(block.text, said), f"{block.text}\nis not what it says:\n{said[-3000:]}"


@pytest.mark.slow
def test_every_guide_begins_with_the_same_words_and_they_are_true(begun: Followed) -> None:
    for name in GUIDES:
        blocks = guide(name)
        assert beginning(blocks) == begun.blocks
        said = blocks[len(begun.blocks)]
        assert said.language == "text" and promised(said.text, begun.said[-1] or "")


@pytest.mark.slow
def test_a_guide_followed_word_by_word_says_what_it_promises(followed: Followed) -> None:
    mind(followed)


@pytest.mark.slow
def test_what_a_guide_promises_at_its_end_is_on_disk(followed: Followed, request: pytest.FixtureRequest) -> None:
    place, name = followed.place, followed.place.parent.name.rstrip("0123456789")
    if name == "renderers":
        letters = sorted((place / "outbox").iterdir())
        assert len(letters) == 200 and all("Hello" in letter.read_text() for letter in letters)
    elif name == "engineers":
        assert (place / "var" / "reports" / "monitor.html").stat().st_size > 1000
        assert (place / "backtest" / "report.html").stat().st_size > 1000
    else:
        assert (place / "var" / "exports" / "leads.xlsx").stat().st_size > 1000
        told = (place / "report.html").read_text(encoding="utf-8")
        assert re.findall(r"<h2[^>]*>(.*?)</h2>", told) == sections()


def sections() -> list[str]:
    """What the marketers' guide says is in the report, in order."""
    table = (DOCS / "marketers.md").read_text().partition("| section |")[2].partition("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


@each_guide
def test_nothing_in_a_guide_is_left_unrun(name: str) -> None:
    blocks = guide(name)
    assert {block.language for block in blocks} <= LANGUAGES
    shell = "\n".join(block.text for block in blocks if block.language == "sh")
    code = "\n".join(block.text for block in blocks if block.language in ("sh", "python"))
    for block in blocks:
        if block.language == "python":
            assert f"python {block.file}" in shell, block.file
        elif block.language == "jinja":
            assert block.file in code, block.file


@each_guide
def test_a_guide_is_short_and_leads_to_the_others(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text()
    assert len(text.splitlines()) <= 210
    for other in set(GUIDES) - {name}:
        assert f"]({other}.md)" in text


@each_guide
def test_what_a_guide_does_in_the_checkout_is_there(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in guide(name):
        if block.language == "console":
            for line in block.text.splitlines():
                word, *rest = shlex.split(line)
                assert (word == "make" and rest[0] in targets) or line in KNOWN, line


KNOWN = (". .venv/bin/activate", "mkdir -p trial && cd trial")


def test_the_client_is_installed_as_the_guide_says() -> None:
    assert "pip install './client[jinja2]'" in (DOCS / "renderers.md").read_text()
    about = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    assert "jinja2" in about["project"]["optional-dependencies"]


def links(path: Path) -> Iterator[str]:
    return (found for found in re.findall(r"\]\(([^)#\s]+)", path.read_text()) if "://" not in found)


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in links(path):
        assert (path.parent / link).exists(), link


@cache
def options(verb: str) -> frozenset[str]:
    command: Command = _verb(verb)
    return frozenset(name for each in command.params for name in each.opts) | {"--help"}


def calls(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every ``inbox VERB`` in code, with the options that follow it in the same command."""
    code = [block.text for block in _fenced(text)] + re.findall(
        r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        for verb, rest in re.findall(r"(?:^|[\s/(])inbox ([a-z][a-z-]*)([^;|&#]*)", line):
            yield verb, re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)


def _fenced(text: str) -> list[Block]:
    return [Block("", words) for words in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("path", READ, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_verb_and_option_that_is_named_exists(path: Path) -> None:
    for verb, named in calls(path.read_text()):
        assert verb in VERBS, f"inbox {verb}"
        assert set(named) <= options(verb), f"inbox {verb} {named}"


def test_an_option_named_by_itself_belongs_to_some_verb() -> None:
    known = frozenset[str]().union(*(options(verb) for verb in VERBS))
    for path in READ:
        for option in re.findall(r"`(--[a-z][a-z-]*)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
            assert option in known | ELSEWHERE, f"{path.name}: {option}"


ELSEWHERE = {"--quick", "--only", "--tune"}
"""Of the benchmarks."""


def test_every_verb_is_named_in_the_documents() -> None:
    named = {verb for path in READ for verb, _ in calls(path.read_text())}
    assert named == set(VERBS)


def test_a_block_is_what_stands_between_its_fences() -> None:
    found = blocks_of("words\n```sh\nls\n```\nmore\n```python\n# a.py\nx = 1\n```\n")
    assert found == [Block("sh", "ls\n"), Block("python", "# a.py\nx = 1\n")]
    assert found[1].file == "a.py"
