"""The routes of the leads, as the application mounts them.

What enters: a request the guard let in, by key or by session. What leaves: the page, a session, JSON or CSV. The promise:
OpenAPI lists all of it, and every answer carries the headers that keep a browser from leaking it.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from features.errors import LeadsUnavailable, MalformedRequest, NoLeadBook, Overloaded, UnknownKey, UnknownLead
from serving.admission import PLACE, Place
from serving.answers import JSON_MEDIA_TYPE
from serving.guard import KEY, LEADS, LEADS_CSV, LEADS_PAGE, LEADS_SESSION, ONE_LEAD, REQUEST_ID
from serving.keys import KeyRecord
from serving.leads.desk import Desk
from serving.leads.page import SAFE_HEADERS, leads_page
from serving.leads.query import LeadQuery, Selection, parse_leads
from serving.leads.schemas import LeadAnswer, LeadsAnswer
from serving.leads.session import COOKIE, issue, set_cookie
from serving.wire import BytesRoute, documented, inlined


async def page(request: Request) -> Response:
    """The leads in a browser. The page holds nobody's data and asks for a key; without one it comes with status 401."""
    shown = leads_page()
    return Response(shown.body, headers=shown.headers)


async def begin_session(request: Request) -> Response:
    """Exchange a key for a cookie that opens the leads, and nothing else, for eight hours."""
    record: KeyRecord = request.scope[KEY]
    return _with_cookie(set_cookie(issue(record, time.time()), _is_secure(request)))


async def end_session(request: Request) -> Response:
    """Take the cookie away."""
    return _with_cookie(set_cookie("", _is_secure(request), 0))


async def many(request: Request) -> Response:
    """Leads of the newest export: searched, filtered, sorted, a page at a time."""
    query = parse_leads(_query(request), LeadQuery)
    return _json(await _desk(request).page(query, request.scope[REQUEST_ID]))


async def one(request: Request) -> Response:
    """One lead: in the newest export, with reasons; in those before it; and scored at this moment."""
    if request.scope["query_string"]:
        raise MalformedRequest("query", "should be empty")
    subscriber_id = request.path_params["subscriber_id"]
    if "\N{REPLACEMENT CHARACTER}" in subscriber_id:
        raise MalformedRequest("subscriber_id", "should be percent-encoded UTF-8")
    return _json(await _desk(request).one(subscriber_id, request.scope[REQUEST_ID]))


async def download(request: Request) -> Response:
    """A selection of the newest export as CSV, whole and in order of rank, with the columns of ``inbox export leads``."""
    streamed = _desk(request).download(parse_leads(_query(request), Selection))
    streamed.headers.update(SAFE_HEADERS)
    return streamed


def leads_routes() -> APIRouter:
    """All of them, documented."""
    router = APIRouter(route_class=BytesRoute, tags=["Leads"])
    dependencies = [Security(HTTPBearer(auto_error=False)), Security(APIKeyCookie(name=COOKIE, auto_error=False))]
    asked = {MalformedRequest.code, UnknownKey.code, NoLeadBook.code, Overloaded.code, LeadsUnavailable.code}
    data: dict[str, Any] = {"methods": ["GET"], "dependencies": dependencies}
    router.add_api_route(
        LEADS,
        many,
        response_model=LeadsAnswer,
        responses=documented(asked),
        openapi_extra={"parameters": _parameters(LeadQuery)},
        **data,
    )
    router.add_api_route(
        LEADS_CSV,
        download,
        responses={200: _content("text/csv"), **documented(asked)},
        openapi_extra={"parameters": _parameters(Selection)},
        **data,
    )
    router.add_api_route(
        ONE_LEAD.replace("}", ":path}"),
        one,
        response_model=LeadAnswer,
        responses=documented(asked | {UnknownLead.code}),
        openapi_extra={"parameters": [_SUBSCRIBER]},
        **data,
    )
    _add_page(router)
    return router


def _add_page(router: APIRouter) -> None:
    html = _content("text/html")
    refused = documented({UnknownKey.code})
    router.add_api_route(LEADS_PAGE, page, methods=["GET"], responses={200: html, 401: html})
    router.add_api_route(
        LEADS_SESSION,
        begin_session,
        methods=["POST"],
        status_code=204,
        responses=refused,
        openapi_extra={"requestBody": {"required": True, "content": {JSON_MEDIA_TYPE: {"schema": {"type": "object"}}}}},
        dependencies=[Security(HTTPBearer(auto_error=False))],
    )
    router.add_api_route(LEADS_SESSION, end_session, methods=["DELETE"], status_code=204, responses=refused)


_SUBSCRIBER: dict[str, Any] = {
    "name": "subscriber_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}


def _content(media_type: str) -> dict[str, Any]:
    return {"description": "As asked for.", "content": {media_type: {"schema": {"type": "string"}}}}


def _parameters(kind: type[Selection]) -> list[dict[str, Any]]:
    properties = inlined(kind.model_json_schema())["properties"]
    return [
        {"name": name, "in": "query", "schema": schema, "style": "form", "explode": name == "segment"}
        for name, schema in properties.items()
    ]


def _desk(request: Request) -> Desk:
    """Where the answer is made; the request takes a place among the many, so that renderers come first."""
    place: Place = request.scope[PLACE]
    place.become("bulk")
    desk: Desk = request.app.state.leads
    return desk


def _query(request: Request) -> str:
    text: str = request.scope["query_string"].decode("ascii", "replace")
    return text


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _json(body: bytes) -> Response:
    return Response(body, media_type=JSON_MEDIA_TYPE, headers=SAFE_HEADERS)


def _with_cookie(value: str) -> Response:
    return Response(status_code=204, headers={**SAFE_HEADERS, "set-cookie": value})
