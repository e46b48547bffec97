"""From events to a fitted model: labels, point-in-time dataset, splits, fit, evaluation.

Rows enter as a log and leave as a judged bundle. Nothing here answers a request or knows about HTTP; what serving must do in
the same way (derive, shapes, calibration, bands) lives in ``features`` and ``models`` and is called from both sides.

Weighed: random cross-validation was rejected. Every split here is by time, with the label's horizon between the parts, so
that a measured quality is one that could have been had on that day.
"""
