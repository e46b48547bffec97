"""States to store: random ones, and a catalogue before and after it grew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.catalogue import DECAYED_VIEWS, VIEWS, Attribute, Catalogue, as_of_name, decayed_at_name
from features.state import CEILINGS, States, identity

CATALOGUE = Catalogue(attributes=(Attribute("age"), Attribute("plan", ("free", "paid"))))
GROWN = replace(CATALOGUE, attributes=(*CATALOGUE.attributes, Attribute("score"), Attribute("country", ("FR",))))


def some_states(count: int, as_of: float, seed: int = 0, catalogue: Catalogue = CATALOGUE) -> States:
    """Random values, all views anchored at one instant."""
    rng = np.random.default_rng(seed)
    states = identity(catalogue, count)
    for field in catalogue.fields:
        shape = states[field.name].shape
        states[field.name] = rng.integers(0, 1000, shape) if field.dtype in CEILINGS else rng.random(shape)
    for view in VIEWS:
        states[as_of_name(view)] = as_of
    for view in DECAYED_VIEWS:
        states[decayed_at_name(view)] = as_of
    return states
