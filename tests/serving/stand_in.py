"""A scorer of fixed columns and a real server, for tests of everything around the real scorer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from features.errors import StoreUnavailable
from features.inbox import Inbox
from serving.answers import Scores
from serving.app import Engine, create_app
from serving.guard import Guard
from serving.keys import KeyRing, create_key, read_keys
from serving.leads.desk import Desk
from serving.prediction_log import PredictionLog
from serving.schemas import ScoreRequest
from serving.settings import ServingSettings
from serving.webhooks.certificates import Certificates
from serving.webhooks.doors import open_doors
from serving.webhooks.reception import Reception

SCORED_AT = datetime(2026, 11, 23, 8, 15, 2, 120_000, tzinfo=UTC)
SEND_AT = datetime(2026, 11, 24, 7, tzinfo=UTC)


def fixed_columns(request: ScoreRequest) -> dict[str, Any]:
    """The example answer of the serving contract, for everybody; whoever's id begins with "new" is unknown."""
    count = len(request.subscriber_ids)
    known = np.array([not subscriber.startswith("new") for subscriber in request.subscriber_ids])
    columns: dict[str, Any] = {
        "subscriber_id": list(request.subscriber_ids),
        "status": np.where(known, "ok", "prior"),
        "prior": [None if one else "global" for one in known.tolist()],
        "feature_age_s": np.where(known, 412.7, np.nan),
        "last_engagement_at": np.where(known, 1.7e15, np.nan),
        "state_as_of": np.where(known, 1.7e15, np.nan),
        "state_checksum": np.full(count, 2**64 - 1, dtype=np.uint64),
    }
    for model in request.models:
        columns |= {f"{model}_{name}": values for name, values in _ANSWERS[model](count).items()}
        if request.explain and model != "send_time":
            columns[f"{model}_reasons"] = [["opened often"]] * count
    return columns


_ANSWERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "churn": lambda n: {"probability": np.full(n, 0.18), "band": ["low"] * n, "percentile": np.full(n, 31)},
    "lead_score": lambda n: {
        "probability": np.full(n, 0.07),
        "score": np.full(n, 81),
        "grade": np.full(n, "B"),
        "percentile": np.full(n, 88),
    },
    "send_time": lambda n: {
        "send_at": [SEND_AT] * n,
        "hour_of_week": np.full(n, 31),
        "probability": np.full(n, 0.041),
        "gain": np.full(n, 0.12),
        "gain_low": np.full(n, 0.03),
        "gain_high": np.full(n, 0.21),
        "confident": np.full(n, True),
        "pool_weight": np.full(n, 0.4),
        "arm": np.full(n, "exploit"),
        "propensity": np.full(n, 0.95),
        "timezone_assumed": np.full(n, False),
    },
}


@dataclass
class FixedScorer:
    """Answers everybody alike. ``spoil`` may change the columns, take its time or fail."""

    versions: Mapping[str, str] = field(default_factory=lambda: {"churn": "7", "lead_score": "4", "send_time": "9"})
    spoil: Callable[[dict[str, Any]], None] = lambda columns: None
    store_failed: bool = False

    budgets: list[float | None] = field(default_factory=list)

    def score(self, request: ScoreRequest, scored_at: datetime, budget_s: float | None = None) -> Scores:
        columns = fixed_columns(request)
        self.budgets.append(budget_s)
        self.spoil(columns)
        return Scores(columns, store_failed=self.store_failed)

    def statuses(self, subscriber_ids: Sequence[str], now: datetime) -> npt.NDArray[np.str_]:
        """Whoever's id begins with "shy" has objected."""
        if self.store_failed:
            raise StoreUnavailable("it is a stand-in that fails")
        return np.array(["no_consent" if one.startswith("shy") else "ok" for one in subscriber_ids])

    def priors(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        columns = fixed_columns(request)
        count = len(request.subscriber_ids)
        nothing = dict.fromkeys(("feature_age_s", "last_engagement_at", "state_as_of"), np.full(count, np.nan))
        return Scores(columns | nothing | {"status": ["prior"] * count, "prior": ["global"] * count})


@dataclass
class Front:
    """The application behind its guard, and what stands behind both."""

    app: FastAPI
    guard: Guard
    engine: Engine
    reception: Reception
    leads: Desk
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def close(self) -> None:
        self.leads.close()
        self.reception.close()
        self.engine.close()


def front(
    home: Path,
    scorer: FixedScorer | None = None,
    app: ASGIApp | None = None,
    certificates: Certificates | None = None,
    **settings: Any,
) -> Front:
    """Put everything together as ``serving.service`` does, without Bento."""
    configured = ServingSettings(home=home, **settings)
    key = create_key(configured.keys, "test" + "'" * len(read_keys(configured.keys)))
    own = create_app()
    predictions = PredictionLog(configured.stores.predictions)
    engine = Engine(scorer or FixedScorer(), lambda: SCORED_AT, configured.max_ids, predictions, own.state.meters)
    own.state.engine = engine
    certificates = certificates or Certificates(configured.ses_certificates)
    stores = configured.stores
    own.state.reception = reception = Reception(
        stores, Inbox(stores), configured.clock(), own.state.meters, certificates
    )
    own.state.leads = leads = Desk(stores, engine, configured.answer_deadline_s)
    doors = open_doors(configured, certificates)
    guard = Guard(app or own, configured, KeyRing(configured.keys), own.state.meters, doors)
    return Front(own, guard, engine, reception, leads, key)


@contextmanager
def serving(app: ASGIApp, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """Serve on a free port; yields the base URL."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", lifespan=lifespan)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
