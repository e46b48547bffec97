"""What client/README.md says is run, from top to bottom, as one program."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

from inbox_client import Stats, SubscriberScores
from inbox_client.answers import Reason

from tests.client.conftest import KEY
from tests.client.service import serving, well

README = (Path(__file__).parents[2] / "client" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_its_programs_run_word_for_word(tmp_path: Path) -> None:
    program = tmp_path / "readme.py"
    with serving(well) as service:
        blocks = (block.replace("http://127.0.0.1:3000", service.url) for block in BLOCKS)
        program.write_text("\n".join([f"key = {KEY!r}", *blocks, "client.close()"]), encoding="utf-8")
        ran = subprocess.run([sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    printed = ran.stdout
    assert "ok high B 2026-11-24 07:00:00+00:00" in printed
    assert "0 could not be scored" in printed
    assert "We miss you!" in printed
    assert "Tuesday, 08:00" in printed


def test_it_names_every_reason_and_every_number() -> None:
    assert [reason for reason in get_args(Reason) if f"`{reason}`" not in README] == []
    assert [one.name for one in fields(Stats) if f"`{one.name}`" not in README] == []
    assert [one.name for one in fields(SubscriberScores) if f"`{one.name}`" not in README] == []
