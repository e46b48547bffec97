"""Field names and codes: no list's own words can collide with ours or with each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue import CATEGORY_LIMIT, CONTENT_SLOTS, Attribute, Catalogue
from features.derive import derive, feature_names
from features.state import identity
from models.reasons import ReasonCatalogue

AWKWARD = ("as_of", "as_of_", "as_of__", "created_at", "Age", "age", "a:b", "two words", "größe", '"quoted"', "", "__")
names = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=8))


@given(st.lists(names, unique=True, max_size=8))
def test_any_attribute_name_gives_a_field_and_a_feature_of_its_own(found: list[str]) -> None:
    catalogue = Catalogue(attributes=tuple(Attribute(name, ("x",) if len(name) % 2 else None) for name in found))
    fields = [field.name for field in catalogue.fields]
    assert len(set(fields)) == len(fields)
    assert catalogue.dtype.names == tuple(fields)
    assert len(set(feature_names(catalogue))) == len(feature_names(catalogue))


def test_an_attribute_called_as_of_is_not_the_anchor() -> None:
    catalogue = Catalogue(attributes=(Attribute("as_of"),))
    states = identity(catalogue, 1)
    states["profile_as_of"], states[catalogue.attributes[0].field_name] = 1e15, 7.0
    assert derive(states, 1e15, catalogue).column("profile_as_of_").tolist() == [7.0]
    reasons = ReasonCatalogue(feature_names(catalogue), catalogue)
    matrix = derive(states, 1e15, catalogue).matrix
    (reason,) = reasons.explain(
        np.where(np.array(feature_names(catalogue)) == "profile_as_of_", 1.0, 0.0)[None], matrix
    )[0]
    assert reason.words == "as of: 7"


def test_attributes_that_differ_in_case_are_two_columns() -> None:
    catalogue = Catalogue(attributes=(Attribute("Age"), Attribute("age")))
    states = identity(catalogue, 1)
    states["profile_Age"], states["profile_age"] = 1, 2
    features = derive(states, 0.0, catalogue)
    assert (features.column("profile_Age")[0], features.column("profile_age")[0]) == (1, 2)


@given(st.lists(st.lists(st.text("abcdef", min_size=1, max_size=3), max_size=40), max_size=4))
def test_what_was_learnt_first_keeps_its_place_for_ever(batches: list[list[str]]) -> None:
    catalogue = Catalogue()
    for words in batches:
        grown = catalogue.grown(words, [Attribute("job", tuple(words))], words)
        assert grown.content[: len(catalogue.content)] == catalogue.content
        assert grown.timezones[: len(catalogue.timezones)] == catalogue.timezones
        assert [field.name for field in grown.fields][: len(catalogue.fields)] == [f.name for f in catalogue.fields]
        assert len(grown.content) <= CONTENT_SLOTS - 1
        catalogue = grown
        assert catalogue.grown(words, [Attribute("job", tuple(words))], words) == catalogue


def test_no_more_than_the_limits_are_told_apart() -> None:
    words = [f"w{i}" for i in range(400)]
    grown = Catalogue().grown(words, [Attribute("job", tuple(words))], [])
    assert grown.content == tuple(words[: CONTENT_SLOTS - 1])
    assert grown.attributes[0].categories == tuple(words[:CATEGORY_LIMIT])
    assert grown.grown(["late"], [Attribute("job", ("late",))], []) == grown


def test_an_attribute_never_changes_its_kind() -> None:
    numeric = Catalogue().grown([], [Attribute("age")], [])
    assert numeric.grown([], [Attribute("age", ("old",))], []) == numeric


@given(st.lists(names, unique=True, max_size=5), st.lists(st.text(max_size=5), unique=True, max_size=5))
def test_a_catalogue_survives_its_json(attributes: list[str], words: list[str]) -> None:
    catalogue = Catalogue(tuple(words), tuple(Attribute(a, tuple(words)) for a in attributes), ("UTC", "Asia/Tokyo"))
    back = Catalogue.from_json(catalogue.to_json())
    assert back == catalogue
    assert back.fingerprint == catalogue.fingerprint


def test_every_float64_of_a_row_lies_on_a_whole_word() -> None:
    catalogue = Catalogue(attributes=(Attribute("as_of"), Attribute("two words", ("a",))))
    offsets = catalogue.dtype.fields or {}
    assert all(offsets[field.name][1] % 8 == 0 for field in catalogue.fields if field.dtype == "<f8")
    assert catalogue.dtype.itemsize % 8 == 0
