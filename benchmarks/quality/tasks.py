"""Which list is asked what: the cuts of time, fixed.

What enters: nothing. What leaves: ``TASKS``. The promise: each set is cut once, at about three quarters of its time or where
its label first allows, and every model is asked as a reader of the data set's literature would ask.

Left out: Hillstrom (an experiment of three days: nothing earlier to learn from) and Upworthy (headlines, no people).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.backtest import Plan, plan


@dataclass(frozen=True)
class Task:
    """One row of the table. ``kind``: ``later`` rows, unseen ``people``, or the ``hours`` of later activity."""

    name: str
    directory: str
    model: str
    train_until: str
    test_as_of: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    kind: str = "later"
    goal: str = ""

    @property
    def plan(self) -> Plan:
        return plan(self.model, _at(self.train_until), [_at(text) for text in self.test_as_of], **self.options)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _days(count: int) -> timedelta:
    return timedelta(days=count)


_CHARITY: dict[str, Any] = {"directory": "activate_good", "model": "send_time", "train_until": "2020-06-01"}
_OPEN, _CLICK = ({"horizon": _days(8), "response": response} for response in ("open", "click"))
_CREATION: dict[str, Any] = {"as_of_policy": "creation"}

TASKS = (
    Task("Activate Good, open of a send", **_CHARITY, options=_OPEN, goal="AUC .885, ECE .010"),
    Task("… of people never seen", **_CHARITY, options=_OPEN, kind="people", goal="AUC .870"),
    Task("… click of a send", **_CHARITY, options=_CLICK, goal="AUC .921"),
    Task(
        "Activate Good, churn 90/60 d",
        "activate_good",
        "churn",
        "2020-03-01",
        ("2020-04-15", "2020-05-15", "2020-06-30"),
        goal="AUC .825, ECE .03",
    ),
    Task(
        "Online Retail, churn 90/90 d",
        "online_retail",
        "churn",
        "2010-08-15",
        ("2010-09-01", "2010-09-10"),
        {"activity_window": _days(90), "horizon": _days(90)},
        goal="AUC .785, ECE .04",
    ),
    Task(
        "CDNOW, no purchase in 39 weeks",
        "cdnow",
        "churn",
        "1997-09-30",
        ("1997-09-30",),
        {"activity_window": _days(273), "horizon": _days(273)},
        goal="AUC .772",
    ),
    Task("X Education, lead", "x_education", "lead_score", "2016-10-01", (), _CREATION, goal="AUC .890, ECE .03"),
    Task("Bank, lead, trained once", "bank", "lead_score", "2009-01-01", (), _CREATION | {"horizon": _days(2)}),
    Task(
        "Bank, lead, every 30 days",
        "bank",
        "lead_score",
        "2009-01-01",
        (),
        _CREATION | {"horizon": _days(2), "retrain_every": _days(30)},
        goal="AUC .75, ECE .05",
    ),
    Task(
        "Olist, lead 90 d", "olist", "lead_score", "2018-02-15", (), _CREATION | {"horizon": _days(90)}, goal="AUC .683"
    ),
    Task("Outspot, hours of opening", "outspot", "send_time", "2022-09-01", kind="hours", goal="−2.92"),
    Task("Dito, hours of opening", "dito", "send_time", "2018-09-20", kind="hours", goal="−2.885"),
)
