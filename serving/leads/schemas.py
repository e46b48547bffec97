"""What is answered about leads, as types for OpenAPI.

What enters and leaves: nothing at run time; the answers are made from the book's rows. The promise: tests hold real answers
against these types, so what is documented is what is said.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from serving.schemas import Finite, ModelName, Probability, Status, SubscriberScores

Grade = Literal["A", "B", "C", "D", "E"]


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LeftOutOfBook(_Answered):
    """Who was scored and is not among the leads."""

    no_consent: int
    converted: int
    unscored: int


class BookAnswer(_Answered):
    """The export that is shown."""

    id: str
    scored_at: AwareDatetime
    previous_id: str | None = Field(description="The export it was compared with.")
    model_version: str
    list_name: str
    simulated: bool
    leads: int
    left_out: LeftOutOfBook
    attributes: list[str] = Field(description="The list's own attributes, to select by.")


class LeadRow(_Answered):
    """One lead in a list."""

    rank: int
    subscriber_id: str
    score: int = Field(ge=0, le=100)
    grade: Grade
    probability: Probability
    percentile: int
    score_before: int | None
    grade_before: str | None
    score_change: int | None
    movement: Literal["new", "up", "down", "same"] | None
    change_reason: str | None
    reasons_for: list[str] | None
    reasons_against: list[str] | None
    churn_band: str | None
    churn_probability: Probability | None
    recommended_send_at: AwareDatetime | None
    send_time_confident: bool | None
    last_engagement_at: AwareDatetime | None
    status: str


class WholeLead(LeadRow):
    """One lead by itself."""

    churn_reasons: list[str] | None
    send_time_gain: Finite | None
    data_age_hours: Finite | None
    model_version: str
    scored_at: AwareDatetime
    attributes: dict[str, str | int | float | bool | AwareDatetime | None]


class LeadsAnswer(_Answered):
    """A page of leads."""

    request_id: str
    book: BookAnswer
    total: int = Field(
        description="In the selection. Who has withdrawn consent since the export is counted only among "
        "more than 1,000 and, where these are narrowed by what leads are like, not in order of ids."
    )
    offset: int
    limit: int
    withheld: int = Field(
        description="On this page, who has withdrawn consent since the export and is counted in the total."
    )
    leads: list[LeadRow]


class StandingAnswer(_Answered):
    """How a lead stood in one export."""

    scored_at: AwareDatetime
    score: int
    grade: str
    probability: Probability
    model_version: str


class ScoresNow(SubscriberScores):
    """What ``/v1/scores`` would answer at this moment, with reasons."""

    scored_at: AwareDatetime
    models: dict[ModelName, str]


class NoConsentNow(_Answered):
    status: Literal["no_consent"]


class LeadAnswer(_Answered):
    """One lead; of whoever has withdrawn consent, only that."""

    request_id: str
    subscriber_id: str
    status: Status
    book: BookAnswer
    lead: WholeLead | None
    history: list[StandingAnswer] = Field(description="Oldest first.")
    now: ScoresNow | NoConsentNow
