"""The words and the clock: event log, subscriber state, derivation, Feast definitions, online store.

Events enter here and leave as feature vectors as of an instant. Nothing in this room knows what a model is, fits
anything, or speaks HTTP. It imports no other room; Feast is imported only by ``store`` and ``views`` (and ``repo``,
Feast's own entrance).

Weighed: storing finished features (rates, ages, shares) was rejected because they go stale between materialization and
use and so differ between training and serving. What is stored is a commutative monoid (``state``); what is used is
derived from it by one pure function (``derive``). Sums are kept in fixed point while folding, so that no order of events
and no number of threads changes a single bit.
"""
