"""A stored row: it comes back bit for bit, or it is not believed."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.catalogue import Attribute
from features.packing import HEADER_BYTES, checksums_of, pack, unpack
from features.state import States, identity
from tests.features.logs import CATALOGUE
from tests.features.test_state import ROWS, random_states

GROWN = CATALOGUE.grown([], [Attribute("height"), Attribute("pet", ("cat",))], [])
often = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def packed(states: States) -> list[bytes]:
    return [bytes(row) for row in pack(states)]


def test_rows_come_back_as_they_were() -> None:
    states = random_states(1)
    unpacked = unpack(packed(states), CATALOGUE)
    assert unpacked.states.tobytes() == states.tobytes()
    assert unpacked.found.all()
    assert unpacked.damaged == 0


def test_nobody_is_an_empty_answer() -> None:
    assert pack(identity(CATALOGUE, 0)) == []
    unpacked = unpack([], CATALOGUE)
    assert len(unpacked.states) == len(unpacked.found) == unpacked.damaged == 0


def test_who_is_absent_has_the_identity_and_is_no_damage() -> None:
    states = random_states(2)
    rows = packed(states)
    unpacked = unpack([None, rows[1], None], CATALOGUE)
    assert unpacked.found.tolist() == [False, True, False]
    assert unpacked.damaged == 0
    assert unpacked.states[[0, 2]].tobytes() == identity(CATALOGUE, 2).tobytes()
    assert unpacked.states[1:2].tobytes() == states[1:2].tobytes()


@often
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed_and_harms_nobody_else(place: int, change: int) -> None:
    states = random_states(3)
    rows = packed(states)
    broken = bytearray(rows[2])
    broken[place % len(broken)] ^= change
    unpacked = unpack([*rows[:2], bytes(broken), *rows[3:]], CATALOGUE)
    assert unpacked.found.tolist() == [True, True, False, True, True]
    assert unpacked.damaged == 1
    assert unpacked.states[2:3].tobytes() == identity(CATALOGUE, 1).tobytes()
    assert unpacked.states[3:].tobytes() == states[3:].tobytes()


@often
@given(st.binary(max_size=4000))
def test_garbage_is_nobody(garbage: bytes) -> None:
    row = packed(random_states(4))[0]
    unpacked = unpack([garbage, row], CATALOGUE)
    assert unpacked.found.tolist() == [False, True]
    assert unpacked.damaged == 1


@often
@given(st.data())
def test_a_cut_a_stretched_and_a_shifted_row_are_noticed(data: st.DataObject) -> None:
    row = packed(random_states(5))[0]
    cut = row[: data.draw(st.integers(0, len(row) - 1))]
    shifted = row[:HEADER_BYTES] + row[HEADER_BYTES + 8 :] + row[HEADER_BYTES : HEADER_BYTES + 8]
    rows = [cut, row + b"\0" * 8, shifted]
    assert unpack(rows, CATALOGUE).damaged == 3


def test_a_row_of_an_older_catalogue_is_filled_up_with_the_identity() -> None:
    old, new = random_states(5), random_states(6, catalogue=GROWN)
    rows = unpack([packed(old)[0], packed(new)[0], packed(old)[1]], GROWN)
    assert rows.found.all()
    assert rows.states[1].tobytes() == new[0].tobytes()
    for i, row in ((0, old[0]), (2, old[1])):
        assert rows.states[i].tobytes().startswith(row.tobytes())
        assert np.isnan(rows.states["profile_height"][i])
        assert rows.states["profile_pet"][i] == -1


def test_a_row_of_a_newer_catalogue_is_cut_to_the_older_one() -> None:
    new = random_states(7, catalogue=GROWN)
    rows = unpack(packed(new), CATALOGUE)
    assert rows.found.all()
    for name in CATALOGUE.dtype.names or ():
        np.testing.assert_array_equal(rows.states[name], new[name])


def test_a_states_checksum_is_the_one_in_its_row() -> None:
    states = random_states(8)
    said = [int.from_bytes(row[8:HEADER_BYTES], "little") for row in packed(states)]
    assert checksums_of(states).tolist() == said
    assert len(set(said)) == ROWS
