"""A verdict in words, and as it was written."""

from __future__ import annotations

import math

from training.verdict import Gate, Verdict


def test_a_verdict_is_read_back_as_it_was_written() -> None:
    verdict = Verdict("churn", "3", (Gate("a", True, "fine", {"x": 0.5}), Gate("b", True, "look", {}, mind=True)))
    assert Verdict.from_json(verdict.to_json()) == verdict
    unknown = Verdict.from_json(Verdict("churn", None, (Gate("a", False, "no", {"x": float("nan")}),)).to_json())
    assert math.isnan(unknown.gates[0].numbers["x"]) and unknown.champion is None


def test_a_verdict_says_what_speaks_against_it_or_what_to_mind_or_that_nobody_judged() -> None:
    fine, mind, bad = Gate("a", True, "fine"), Gate("b", True, "look", mind=True), Gate("c", False, "bad")
    assert (Verdict("m", None, (fine,)).words(), Verdict("m", None, (fine,)).short()) == ("every gate passed", "passed")
    assert Verdict("m", None, (fine, mind)).words() == "b: look"
    assert (Verdict("m", None, (fine, mind, bad)).words(), Verdict("m", None, (bad,)).short()) == ("c: bad", "no: c")
    assert [gate.mark for gate in (fine, mind, bad)] == ["passed", "mind", "refused"]
    never = Verdict("m", None, ())
    assert not never.passed and "never judged" in never.words() and never.short() == "never judged"
