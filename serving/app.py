"""The HTTP interface of serving contract v1, as an application the Bento mounts.

What enters: bytes of a request the guard let in. What leaves: bytes of an answer, JSON or Arrow. The promise: OpenAPI
lists what is here, and nothing between the bytes and the scorer makes a Python object per value.

The routes hand the request straight to the handlers (``wire.BytesRoute``): FastAPI documents, pydantic reads the body once,
orjson writes the answer once. The leads' routes are in ``leads.routes``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer

from features.errors import (
    EventsNotTaken,
    LeadsUnavailable,
    MalformedRequest,
    NoLeadBook,
    ReplayedEvents,
    RequestError,
    UnknownKey,
    UnknownLead,
    UntrustedEvents,
)
from features.providers import PROVIDERS
from serving.admission import MAX_DEADLINE_MS, PLACE, Place, Threads, Ways, class_of, read_deadline
from serving.answers import ARROW_MEDIA_TYPE, JSON_MEDIA_TYPE, Scores, render_arrow, render_json
from serving.guard import DOOR, ONE_EVENTS, ONE_SCORE, REQUEST_ID, SCORES
from serving.leads.routes import leads_routes
from serving.meters import Meters
from serving.prediction_log import PredictionLog, Served
from serving.problems import STATUS, problem
from serving.schemas import ScoreRequest, ScoreResponse, parse, parse_query
from serving.together import Scored, Together
from serving.webhooks.door import Arrived
from serving.webhooks.reception import Reception, Taken
from serving.wire import BytesRoute, documented, inlined, reply

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ScorerLike(Protocol):
    """What the application needs of ``serving.scorer``."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The version in service of each model."""

    def score(self, request: ScoreRequest, scored_at: datetime, budget_s: float | None = None) -> Scores:
        """Score every asked subscriber, in milliseconds, waiting for nothing without a deadline, nor longer than
        ``budget_s``. Two threads may call it at once.
        """

    def priors(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        """What is said of strangers, of everybody asked for: no store, no trees."""

    def statuses(self, subscriber_ids: Sequence[str], now: datetime) -> npt.NDArray[np.str_]:
        """How they stand, without a score."""


@dataclass
class Engine:
    """What the handlers stand on once the service is up.

    A few subscribers are scored at once, on the event loop: handing them to a thread costs more than it gives. Many go
    through one thread, so that while the trees and the store work (both let go of the interpreter), short requests pass
    them by. In one run with a stand-in scorer, one caller of thousands beside four of one, the four waited 13 ms in the
    median; with everything on the loop 69, with everything in the thread 51. ``admission`` says who may wait there.
    """

    scorer: ScorerLike
    clock: Callable[[], datetime]
    max_ids: int
    predictions: PredictionLog
    meters: Meters
    threads: Threads = field(
        default_factory=lambda: Threads(ThreadPoolExecutor(1, "bulk"), ThreadPoolExecutor(1, "priors"))
    )

    def __post_init__(self) -> None:
        self.together = Together(self._scored, self._priors)

    async def answer(self, asked: ScoreRequest, request: Request) -> Response:
        """Admit, score in time, render, write down, count."""
        place: Place = request.scope[PLACE]
        deadline_s = read_deadline(request.scope["headers"])
        place.become(class_of(len(asked.subscriber_ids), asked.explain))
        rendered = partial(self._rendered, asked, request.scope[REQUEST_ID], request.headers.get("accept", ""))

        async def send(until: float) -> tuple[Served, Response]:
            scored = await self.together.score(asked, until)
            self.meters.degraded["send"] += scored.late
            return rendered(scored)

        ways = Ways(
            send, lambda budget_s: rendered(self._scored(asked, budget_s)), lambda: rendered(self._priors(asked))
        )
        served, response = await place.answer(ways, len(asked.subscriber_ids), asked.explain, deadline_s, self.threads)
        self.predictions.offer(served)
        self.meters.scores.update(Counter(served.scores.listed("status")))
        self.meters.store_errors += served.scores.store_failed
        return response

    def _scored(self, asked: ScoreRequest, budget_s: float | None) -> Scored:
        # One reference for the whole answer: another scorer may be put in service meanwhile.
        scorer, scored_at = self.scorer, self.clock()
        return Scored(scorer.score(asked, scored_at, budget_s), scored_at, scorer.versions)

    def _priors(self, asked: ScoreRequest) -> Scored:
        scorer, scored_at = self.scorer, self.clock()
        return Scored(scorer.priors(asked, scored_at), scored_at, scorer.versions, late=True)

    def _rendered(self, asked: ScoreRequest, request_id: str, accept: str, scored: Scored) -> tuple[Served, Response]:
        scores, scored_at, versions = scored.scores, scored.scored_at, scored.versions
        served = Served(request_id, asked.context, scored_at, versions, scores)
        if ARROW_MEDIA_TYPE in accept:
            return served, reply(render_arrow(scores, request_id, scored_at, versions), ARROW_MEDIA_TYPE)
        return served, reply(render_json(scores, request_id, scored_at, versions, asked.explain), JSON_MEDIA_TYPE)

    def close(self) -> None:
        """Finish what was begun and write it down."""
        self.threads.scores.shutdown()
        self.threads.priors.shutdown()
        self.predictions.close()


def create_app() -> FastAPI:
    """The application without an engine: ``app.state.engine``, ``reception`` and ``leads`` are set when the service starts.

    ``app.state.meters`` is there from the beginning, for the guard to share.
    """
    app = FastAPI(title="inbox-scoring", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.meters = Meters()
    app.router.redirect_slashes = False
    app.add_exception_handler(RequestError, _refuse)
    app.include_router(_routes())
    app.include_router(leads_routes())
    return app


async def score_many(request: Request) -> Response:
    """Score up to a thousand subscribers; order is kept, repeats are allowed."""
    engine: Engine = request.app.state.engine
    asked = parse(await request.body(), engine.max_ids)
    return await engine.answer(asked, request)


async def score_one(request: Request) -> Response:
    """Score one subscriber, for templates."""
    engine: Engine = request.app.state.engine
    subscriber_id = request.path_params["subscriber_id"]
    if "\N{REPLACEMENT CHARACTER}" in subscriber_id:
        # The server puts it where a path is not UTF-8: this is somebody, but nobody knows who.
        raise MalformedRequest("subscriber_id", "should be percent-encoded UTF-8")
    asked = parse_query(subscriber_id, request.scope["query_string"].decode("ascii", "replace"))
    return await engine.answer(asked, request)


async def take_events(request: Request) -> Response:
    """Take in events as an email service provider posts them. They are on disk when the answer is sent; what was taken in
    before changes nothing. A request is known by the provider's signature or by its webhook's credentials, not by an API key.
    """
    reception: Reception = request.app.state.reception
    body = await request.body()
    arrived = Arrived(dict(request.scope["headers"]), body, reception.clock().timestamp())
    taken = await reception.take(request.scope[DOOR], arrived)
    return reply(orjson.dumps(asdict(taken)), JSON_MEDIA_TYPE)


async def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    meters: Meters = request.app.state.meters
    return Response(meters.to_text(), headers={"content-type": METRICS_MEDIA_TYPE})


async def docs(request: Request) -> Response:
    """The API to read and try. Bento's own page would load scripts from elsewhere to count its visitors."""
    static = "static_content"
    return get_swagger_ui_html(
        openapi_url="docs.json",
        title="inbox-scoring",
        swagger_js_url=f"{static}/swagger-ui-bundle.js",
        swagger_css_url=f"{static}/swagger-ui.css",
        swagger_favicon_url=f"{static}/favicon-light-32x32.png",
    )


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    said = problem(error, request.scope[REQUEST_ID])
    return Response(said.body, said.status, {name.decode(): value.decode() for name, value in said.headers})


def _routes() -> APIRouter:
    router = APIRouter(route_class=BytesRoute)
    shared: dict[str, Any] = {
        "response_model": ScoreResponse,
        "responses": _answers(),
        "dependencies": [Security(HTTPBearer(auto_error=False))],
        "tags": ["Scores"],
    }
    router.add_api_route(SCORES, score_many, methods=["POST"], openapi_extra=_body(), **shared)
    one = ONE_SCORE.replace("}", ":path}")
    router.add_api_route(one, score_one, methods=["GET"], openapi_extra=_parameters(), **shared)
    router.add_api_route(
        ONE_EVENTS,
        take_events,
        methods=["POST"],
        tags=["Events"],
        response_model=Taken,
        responses=_events_answers(),
        openapi_extra=_events(),
    )
    router.add_api_route("/metrics", metrics, methods=["GET"], include_in_schema=False)
    router.add_api_route("/", docs, methods=["GET"], include_in_schema=False)
    return router


_OF_EVENTS = {kind.code for kind in (UntrustedEvents, ReplayedEvents, EventsNotTaken)}
_OF_LEADS = {kind.code for kind in (NoLeadBook, UnknownLead, LeadsUnavailable)}


def _answers() -> dict[int | str, dict[str, Any]]:
    arrow = {"schema": {"type": "string", "format": "binary"}}
    said = {"description": "Scores in the order asked for.", "content": {ARROW_MEDIA_TYPE: arrow}}
    return {200: said} | documented(STATUS.keys() - _OF_EVENTS - _OF_LEADS)


def _events_answers() -> dict[int | str, dict[str, Any]]:
    said = {"description": "What became of the events; all that were accepted are on disk."}
    return {200: said} | documented(STATUS.keys() - _OF_LEADS - {MalformedRequest.code, UnknownKey.code})


def _events() -> dict[str, Any]:
    schema = {"description": "One event or an array of them, as the provider documents it."}
    provider = {"name": "provider", "in": "path", "required": True, "schema": {"enum": sorted(PROVIDERS)}}
    body = {"required": True, "content": {name: {"schema": schema} for name in (JSON_MEDIA_TYPE, "text/plain")}}
    return {"parameters": [provider], "requestBody": body}


_DEADLINE: dict[str, Any] = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
    "description": "How long the caller will wait, from when the request arrives. What cannot be scored in time is "
    'answered in time with status "prior".',
}


def _body() -> dict[str, Any]:
    schema = inlined(ScoreRequest.model_json_schema())
    return {
        "requestBody": {"required": True, "content": {JSON_MEDIA_TYPE: {"schema": schema}}},
        "parameters": [_DEADLINE],
    }


def _parameters() -> dict[str, Any]:
    """The fields of a body as parameters of a query."""
    body = inlined(ScoreRequest.model_json_schema())["properties"]
    context = body.pop("context")["anyOf"][0]["properties"]
    subscriber = {
        "name": "subscriber_id",
        "in": "path",
        "required": True,
        "schema": body.pop("subscriber_ids")["items"],
    }
    query = [
        {"name": name, "in": "query", "schema": schema, "style": "form", "explode": name == "content"}
        for name, schema in (body | context).items()
    ]
    return {"parameters": [subscriber, *query, _DEADLINE]}
