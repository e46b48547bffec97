"""What client/README.md says is run, from top to bottom, as one program."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from inbox_client import Stats, SubscriberScores
from inbox_client.answers import Reason

from tests.client.conftest import KEY
from tests.client.service import serving, well

README = (Path(__file__).parents[2] / "client" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_its_programs_run_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(well) as service:
        names = {"key": KEY}
        for block in BLOCKS:
            exec(compile(block.replace("http://127.0.0.1:3000", service.url), "README.md", "exec"), names)
        names["client"].close()  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    assert "ok high B 2026-11-24 07:00:00+00:00" in printed
    assert "0 could not be scored" in printed
    assert "We miss you!" in printed
    assert "Tuesday, 08:00" in printed


def test_it_names_every_reason_and_every_number() -> None:
    assert [reason for reason in get_args(Reason) if f"`{reason}`" not in README] == []
    assert [one.name for one in fields(Stats) if f"`{one.name}`" not in README] == []
    assert [one.name for one in fields(SubscriberScores) if f"`{one.name}`" not in README] == []
