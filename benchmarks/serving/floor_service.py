"""The empty endpoint: our Bento's whole front — server, guard, key check, body, routing — with nothing behind it.

What enters: any body. What leaves: ``{}``. The promise: what it costs is what an answer costs before anybody looks into
the body. It is a Bento of its own, by the same classes as the real one, so that the real one needs no route for
benchmarks; and it has the same guard, because a floor without it would be no floor for a service that must have one.
"""

from __future__ import annotations

import bentoml
from fastapi import APIRouter, FastAPI, Request, Response

from serving.app import BytesRoute
from serving.guard import SCORES
from serving.service import GuardedService


async def nothing(request: Request) -> Response:
    """Take the body and say nothing."""
    await request.body()
    return Response(b"{}", media_type="application/json")


app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
_router = APIRouter(route_class=BytesRoute)
_router.add_api_route(SCORES, nothing, methods=["POST"])
app.include_router(_router)


@bentoml.service(
    name="empty",
    service_class=GuardedService,
    workers=1,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app, path="/")
class Empty:
    """Answers ``{}``."""
