"""Ids for people who are known by an address."""

from __future__ import annotations

import hashlib
import hmac
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import IdentityUnreadable, Unwritable
from features.home import Home
from features.identity import Pseudonyms, normalised, rotate

ADDRESS = "ann.lee@shop.example"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_an_id_is_the_keyed_digest_of_the_normalised_address(home: Home) -> None:
    pseudonyms = Pseudonyms.load(home)
    key = pseudonyms.keys[pseudonyms.key_id]
    expected = hmac.new(key, ADDRESS.encode(), hashlib.sha256).hexdigest()[:32]
    assert pseudonyms.subscriber_id(" Ann.Lee@Shop.Example ") == f"{pseudonyms.key_id}_{expected}"


def test_an_id_is_opaque(home: Home) -> None:
    assert re.fullmatch("k[0-9a-f]{8}_[0-9a-f]{32}", Pseudonyms.load(home).subscriber_id(ADDRESS))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("Ann.Lee@Shop.EXAMPLE", ADDRESS),
        ("  ann.lee@shop.example\n", ADDRESS),
        ("Ann Lee <ann.lee@shop.example>", ADDRESS),
        ("<ann.lee@shop.example>", ADDRESS),
        ("ann.lee@shop.example.", ADDRESS),
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("ann@bu\u0308cher.example", "ann@xn--bcher-kva.example"),
        ("ann@XN--BCHER-KVA.example", "ann@xn--bcher-kva.example"),
        ("ann@stra\u00dfe.example", "ann@xn--strae-oqa.example"),
        ("\u00c9va@shop.example", "\u00e9va@shop.example"),
        ("E\u0301va@shop.example", "\u00e9va@shop.example"),
        ('"odd@local"@shop.example', '"odd@local"@shop.example'),
        ("ann@shop\u00a0example", "ann@shop\u00a0example"),
        ("nobody", "nobody"),
        ("", ""),
    ],
)
def test_an_address_is_written_in_one_way(written: str, plain: str) -> None:
    assert normalised(written) == plain


@given(st.one_of(st.emails(), st.text(max_size=40), st.text(max_size=20).map(lambda host: f"ann@{host}")))
def test_writing_an_address_in_its_one_way_again_changes_nothing(address: str) -> None:
    once = normalised(address)
    assert normalised(once) == once


@given(st.text())
def test_anything_has_an_id(address: str) -> None:
    pseudonyms = Pseudonyms({"k": bytes(32)}, bytes(32))
    assert len(pseudonyms.subscriber_id(address)) == len(pseudonyms.fingerprint(address)) + 2


def test_half_a_surrogate_pair_has_an_id(home: Home) -> None:
    pseudonyms = Pseudonyms.load(home)
    halves = [pseudonyms.subscriber_id(f"ann{half}@shop.example") for half in ("\ud800", "\udfff", "")]
    assert len({*halves}) == 3


def test_two_people_have_two_ids(home: Home) -> None:
    pseudonyms = Pseudonyms.load(home)
    assert pseudonyms.subscriber_id(ADDRESS) != pseudonyms.subscriber_id("bob@shop.example")


def test_keys_are_made_once_and_nobody_else_may_read_them(home: Home) -> None:
    first = Pseudonyms.load(home)
    assert Pseudonyms.load(home) == first
    assert stat.S_IMODE(home.identity.stat().st_mode) == 0o600


def test_two_homes_call_one_person_differently(tmp_path: Path) -> None:
    here, there = (Pseudonyms.load(Home(tmp_path / name)) for name in ("here", "there"))
    assert here.subscriber_id(ADDRESS)[9:] != there.subscriber_id(ADDRESS)[9:]
    assert here.key_id != there.key_id


def test_rotation_makes_new_ids_and_keeps_the_old_ones_known(home: Home) -> None:
    first = Pseudonyms.load(home)
    keys = [rotate(home), rotate(home)]
    last = Pseudonyms.load(home)
    assert (last.key_id, first.key_id in last.keys) == (keys[1], True)
    assert last.subscriber_id(ADDRESS).startswith(f"{keys[1]}_")
    assert last.former_ids(ADDRESS)[0] == first.subscriber_id(ADDRESS)
    assert [former.split("_")[0] for former in last.former_ids(ADDRESS)] == [first.key_id, keys[0]]
    assert first.former_ids(ADDRESS) == ()
    assert stat.S_IMODE(home.identity.stat().st_mode) == 0o600


def test_what_stands_for_a_person_in_an_events_id_outlives_rotation(home: Home) -> None:
    before = Pseudonyms.load(home).fingerprint(ADDRESS)
    rotate(home)
    after = Pseudonyms.load(home)
    assert after.fingerprint(ADDRESS.upper()) == before
    assert before not in after.subscriber_id(ADDRESS)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[]", b"null", b'{"keys": [], "events_key": "00"}', b'{"keys": [["k1", "zz"]], "events_key": ""}'],
)
def test_damaged_keys_are_never_replaced(home: Home, damage: bytes) -> None:
    home.var.mkdir()
    home.identity.write_bytes(damage)
    for use in (Pseudonyms.load, rotate):
        with pytest.raises(IdentityUnreadable, match="backup"):
            use(home)
    assert home.identity.read_bytes() == damage


def test_an_altered_key_is_noticed(home: Home) -> None:
    Pseudonyms.load(home)
    written = orjson.loads(home.identity.read_bytes())
    written["keys"][0][1] = "00" * 32
    home.identity.write_bytes(orjson.dumps(written))
    with pytest.raises(IdentityUnreadable):
        Pseudonyms.load(home)


def test_keys_are_not_shown(home: Home) -> None:
    pseudonyms = Pseudonyms.load(home)
    shown = repr(pseudonyms) + str(vars(pseudonyms).keys())
    assert not any(key.hex() in shown or repr(key) in shown for key in pseudonyms.keys.values())


def test_processes_that_start_at_once_agree_on_the_first_key(home: Home) -> None:
    code = (
        "import sys, pathlib\nfrom features.home import Home\nfrom features.identity import Pseudonyms\n"
        "print(Pseudonyms.load(Home(pathlib.Path(sys.argv[1]))).key_id)"
    )
    command = [sys.executable, "-c", code, str(home.root)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert Pseudonyms.load(home).key_id.startswith("k")


def test_keys_that_a_full_disk_does_not_take_are_not_half_there(home: Home) -> None:
    Pseudonyms.load(home)
    before, content = resource.getrlimit(resource.RLIMIT_FSIZE), home.identity.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(Unwritable, match="make room"):
            rotate(home)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert home.identity.read_bytes() == content
    assert not home.identity.with_suffix(".new").exists()


def test_a_home_that_has_no_place_says_so(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(Unwritable):
        Pseudonyms.load(Home(tmp_path))
