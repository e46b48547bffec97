"""Which link it was, without keeping the address."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.links import classify_links, link_of

LEAVING = [
    "https://a.example/unsubscribe",
    "https://list.list-manage.com/unsub?u=1&id=2",
    "https://a.example/mail?action=opt-out",
    "https://a.example/optout/9",
    "https://a.example/newsletter/abmelden",
    "https://a.example/abbestellen.php",
    "https://a.example/desabonnement",
    "https://a.example/d%C3%A9sinscription",
    "https://a.example/darse-de-baja",
    "https://a.example/baja?id=4",
    "https://a.example/cancelar-inscricao",
    "https://a.example/disiscriviti",
    "https://a.example/uitschrijven",
    "https://a.example/afmelden",
    "https://a.example/odhl%C3%A1sit",
    "https://a.example/отписаться",
    "https://a.example/配信停止",
    "https://unsubscribe.a.example/x",
    "mailto:leave@a.example?subject=unsubscribe",
]
ORDINARY = [
    "https://a.example/",
    "https://a.example/rebajas",
    "https://a.example/travel/baja-california",
    "https://a.example/adopt-outdoor",
    "https://a.example/mouse-trap",
    "https://a.example/resubscribe",
    "https://a.example/subscribe",
    "a.example/shoes",
    "a.example:8080/shoes",
]


@pytest.mark.parametrize("url", LEAVING)
def test_the_unsubscribe_link_is_known_in_many_languages(url: str) -> None:
    assert link_of(url) == "unsubscribe"


@pytest.mark.parametrize(
    "url", ["https://a.example/honeypot/1", "https://a.example/bot-trap", "https://a.example/trap"]
)
def test_a_honeypot_is_known_by_its_marker(url: str) -> None:
    assert link_of(url) == "honeypot"


@pytest.mark.parametrize("url", ORDINARY)
def test_any_other_link_is_twelve_hex_digits(url: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", link_of(url) or "")


@pytest.mark.parametrize(
    "url", [None, "", "   ", "mailto:ann@a.example", "tel:+491234", "http://[bad", "https:///path"]
)
def test_what_is_no_address_of_the_web_is_no_link(url: str | None) -> None:
    assert link_of(url) is None


def test_host_and_path_make_a_link_and_nothing_else_of_it() -> None:
    same = [
        "https://A.example/x?to=ann",
        "http://a.example:443/x/#top",
        "https://ann:secret@a.example/x",
        "//a.example/x",
    ]
    assert len({link_of(url) for url in same}) == 1
    assert link_of("https://a.example/users/ann@b.example") == link_of("https://a.example/users/bob@c.example")
    assert link_of("https://a.example/x") != link_of("https://a.example/y") != link_of("https://b.example/y")


@given(st.lists(st.one_of(st.none(), st.sampled_from(LEAVING + ORDINARY), st.text(max_size=30)), max_size=20))
def test_many_are_reduced_as_each_is(urls: list[str | None]) -> None:
    assert classify_links(pa.array(urls, pa.string())).to_pylist() == [link_of(url) for url in urls]
