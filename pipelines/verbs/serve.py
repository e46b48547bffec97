"""`inbox serve`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from features.clock import parse_instant
from features.home import Home
from features.log import EventLog
from pipelines.console import Narrator
from pipelines.serve import serve_forever
from pipelines.verbs.options import HERE, HomeOption, home_at
from serving.keys import create_key, read_keys, revoke_key
from serving.settings import ServingSettings


def command(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
    replay: Annotated[
        bool, typer.Option("--replay", help="Begin at the log's end instead of now: for old logs.")
    ] = False,
    now: Annotated[str | None, typer.Option(help="Begin at this instant instead of now.")] = None,
    new_key: Annotated[str | None, typer.Option(help="Make an API key of this name, show it once, and end.")] = None,
    revoke: Annotated[str | None, typer.Option("--revoke-key", help="Revoke the key of this name, and end.")] = None,
    home: HomeOption = HERE,
) -> None:
    """Answer scores over HTTP until interrupted. API documentation is at / of the service.

    The first start makes a key and shows it once.

    Example: [bold]inbox serve --port 3000[/]
    """
    narrator, place = Narrator(), home_at(home)
    keys = ServingSettings(home=place.root).keys
    if revoke is not None:
        revoke_key(keys, revoke)
        narrator.say(f"Key {revoke} is revoked.")
        return
    if new_key is not None or not read_keys(keys):
        name = new_key or "first"
        narrator.say(f"Key {name}, shown this once: {create_key(keys, name)}")
    if new_key is not None:
        return
    narrator.say(f"http://127.0.0.1:{port} - Ctrl+C stops it.")
    code = serve_forever(place, port, _beginning(place, replay, now))
    raise typer.Exit(code)


def _beginning(home: Home, replay: bool, now: str | None) -> datetime | None:
    if now is not None:
        return parse_instant(now, "--now")
    return EventLog(home).end() + timedelta(seconds=1) if replay else None
