"""Between what FastAPI documents and the bytes our handlers take and give.

What enters: a request as it is. What leaves: a response of finished bytes, and for OpenAPI the problems a route may answer
with. The promise: nothing is parsed, validated or rendered twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from serving.problems import MEDIA_TYPE, STATUS
from serving.schemas import Problem


class BytesRoute(APIRoute):
    """A documented route whose handler takes the request as it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def reply(body: bytes, media_type: str) -> Response:
    """An answer that nobody may keep."""
    return Response(body, media_type=media_type, headers={"cache-control": "no-store"})


def documented(codes: Collection[str]) -> dict[int | str, dict[str, Any]]:
    """The problems with these codes, as OpenAPI lists them."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    said: dict[int | str, list[str]] = {}
    for code, status in STATUS.items():
        if code in codes:
            said.setdefault(status, []).append(code.replace("_", " "))
    return {status: {"description": ", or ".join(words), "content": content} for status, words in said.items()}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references: where OpenAPI puts it, they would point nowhere."""
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolved(definitions[part["$ref"].rpartition("/")[2]])
            return {name: resolved(value) for name, value in part.items()}
        return [resolved(value) for value in part] if isinstance(part, list) else part

    result: dict[str, Any] = resolved(schema)
    return result
