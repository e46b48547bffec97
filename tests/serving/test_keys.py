"""API keys: shown once, kept as hashes, changed while the service runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import UnusableOption
from serving.keys import KeyRing, create_key, new_key, read_keys, revoke_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "keys.json"


class Clock:
    """Time that passes when told to."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def opens(ring: KeyRing, key: str) -> bool:
    return ring.record(key.encode()) is not None


def test_a_key_opens_and_no_other_does(path: Path) -> None:
    key = create_key(path, "renderer")
    ring = KeyRing(path)
    assert opens(ring, key)
    for other in (new_key(), key[:-1], key + " ", "", "renderer", read_keys(path)[0].sha256):
        assert not opens(ring, other)


def test_the_key_is_not_on_disk_and_the_file_is_the_owners_alone(path: Path) -> None:
    key = create_key(path, "renderer")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["keys.json"]


def test_keys_rotate_while_the_service_runs(path: Path) -> None:
    clock = Clock()
    old = create_key(path, "old")
    ring = KeyRing(path, clock)
    new = create_key(path, "new")
    clock.seconds += 1
    assert opens(ring, old) and opens(ring, new)
    revoke_key(path, "old")
    clock.seconds += 1
    assert not opens(ring, old) and opens(ring, new)


def test_without_a_file_nobody_is_let_in_until_there_is_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    ring = KeyRing(path, clock)
    assert "no API key is active" in caplog.text
    assert not opens(ring, "") and not opens(ring, new_key())
    key = create_key(path, "first")
    clock.seconds += 1
    assert opens(ring, key)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"keys": [{"name": "x"}]}', b'{"keys": 3}'])
def test_a_damaged_file_changes_nothing_in_a_running_service(
    path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    key = create_key(path, "renderer")
    ring = KeyRing(path, clock)
    path.write_bytes(damage)
    clock.seconds += 1
    assert opens(ring, key)
    assert "1 keys stay in force" in caplog.text
    with pytest.raises(UnusableOption, match="not a readable key file"):
        create_key(path, "other")
    assert path.read_bytes() == damage


def test_a_name_is_taken_once_and_an_unknown_name_cannot_be_revoked(path: Path) -> None:
    create_key(path, "renderer")
    with pytest.raises(UnusableOption, match="renderer"):
        create_key(path, "renderer")
    with pytest.raises(UnusableOption, match="there are renderer"):
        revoke_key(path, "other")


def test_whose_a_key_is_and_what_is_kept_of_it_is_known_by_its_name(path: Path) -> None:
    keys = {name: create_key(path, name) for name in ("renderer", "anna")}
    ring = KeyRing(path)
    for name, key in keys.items():
        record = ring.record(key.encode())
        assert record is not None and record.name == name
        assert ring.named(name) == record
    assert ring.named("nobody") is None
