"""What may be asked of the leads: strictly what is documented, and no refusal repeats what was sent."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import MalformedRequest
from serving.leads.query import MAX_LIMIT, MAX_OFFSET, SORTS, LeadQuery, Selection, parse_leads

CANARY = "anna@example.org"


def refused(query: str, kind: type[Selection] = LeadQuery) -> MalformedRequest:
    with pytest.raises(MalformedRequest) as raised:
        parse_leads(query, kind)
    return raised.value


def test_nothing_asked_is_everybody_best_first() -> None:
    asked = parse_leads("", LeadQuery)
    assert (asked.search, asked.grade, asked.churn_band, asked.movement, asked.segment) == (None, (), (), (), ())
    assert (asked.sort, asked.offset, asked.limit) == ("rank", 0, 50)


def test_everything_that_can_be_asked_is_read() -> None:
    said = "search=a%20%26b&grade=A,B&churn_band=low,high&movement=new&segment=country%3DDE&segment=note%3Da%3Db%3B%22"
    asked = parse_leads(f"{said}&sort=-churn_probability&offset=100&limit=200", LeadQuery)
    assert (asked.search, asked.grade, asked.churn_band, asked.movement) == (
        "a &b",
        ("A", "B"),
        ("low", "high"),
        ("new",),
    )
    assert asked.segment == ("country=DE", 'note=a=b;"')
    assert (asked.sort, asked.offset, asked.limit) == ("-churn_probability", 100, 200)


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
def test_every_documented_order_is_taken_up_and_down(sort: str) -> None:
    assert parse_leads(f"sort={sort}", LeadQuery).sort == sort


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        (f"{CANARY}=1", "(unknown field)"),
        ("search=", "search"),
        ("search=a&search=b", "search"),
        ("search=" + "x" * 300, "search"),
        ("search=a%00b", "search"),
        ("search=%ff", "query"),
        ("grade=", "grade"),
        ("grade=a", "grade"),
        ("grade=A,F", "grade"),
        ("grade=A&grade=B", "grade"),
        ("grade=A,A,A,A,A,A", "grade"),
        ("churn_band=none", "churn_band"),
        ("movement=sideways", "movement"),
        ("segment=country", "segment"),
        ("segment==DE", "segment"),
        ("segment=", "segment"),
        ("&".join(["segment=a%3Db"] * 9), "segment"),
        ("segment=a%3D" + "x" * 600, "segment"),
        ("sort=", "sort"),
        ("sort=+score", "sort"),
        ("sort=--score", "sort"),
        ("sort=score,rank", "sort"),
        ("sort=change_reason", "sort"),
        ("sort=rank;drop table leads", "sort"),
        ("offset=-1", "offset"),
        (f"offset={MAX_OFFSET + 1}", "offset"),
        ("offset=1.5", "offset"),
        ("offset=" + "9" * 50, "offset"),
        ("limit=0", "limit"),
        (f"limit={MAX_LIMIT + 1}", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("&".join(f"a{number}=1" for number in range(500)), "query"),
    ],
)
def test_anything_else_is_refused_by_name(query: str, field: str) -> None:
    assert refused(query).field == field


@pytest.mark.parametrize("name", ["sort", "offset", "limit"])
def test_a_download_has_neither_order_nor_place(name: str) -> None:
    assert refused(f"{name}=1", Selection).field == name


@pytest.mark.parametrize("name", [*LeadQuery.model_fields, CANARY])
def test_a_refusal_never_repeats_what_was_sent(name: str) -> None:
    for value in (CANARY + "\x00", f"{CANARY},{CANARY}", CANARY * 50):
        assert CANARY not in str(refused(urlencode([(name, value), (name, value)])))
        if name != "search":
            assert CANARY not in str(refused(urlencode({name: value})))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*LeadQuery.model_fields, "x"]), st.text(max_size=8) | st.sampled_from(["A", "1", "rank"])
        ),
        max_size=4,
    )
)
def test_whatever_is_sent_is_read_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        asked = parse_leads(urlencode(pairs, errors="replace"), LeadQuery)
    except MalformedRequest as refusal:
        assert refusal.field in {*LeadQuery.model_fields, "x", "query"}
    else:
        assert 1 <= asked.limit <= MAX_LIMIT and 0 <= asked.offset <= MAX_OFFSET
        assert asked.sort.removeprefix("-") in SORTS
