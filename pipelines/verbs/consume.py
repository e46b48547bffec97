"""`inbox consume`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated

import typer
from rich.markup import escape

from features.errors import UnusableOption
from pipelines import messages
from pipelines.console import Narrator
from pipelines.consume import consume
from pipelines.inbox import FORMATS, Intake
from pipelines.live import Refresher
from pipelines.streams import KafkaStream, RedisStream, Stream, read_settings
from pipelines.verbs.ingest import tell_taken
from pipelines.verbs.options import HERE, HomeOption, home_at

SOURCE = "--from"
KAFKA = "kafka://"


def command(
    source: Annotated[
        str,
        typer.Option(
            SOURCE,
            envvar="INBOX_STREAM_URL",
            help="`kafka://host:9092,host:9092`, or the URL of a Redis or Valkey server; best in INBOX_STREAM_URL where it "
            "holds a password.",
        ),
    ],
    topic: Annotated[list[str], typer.Option(help="A Kafka topic, may be repeated; or the key of a Redis stream.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"What a message is: {messages.FORMAT} (a JSON object with the columns of the input contract), or a "
            f"webhook's payload of {', '.join(name for name in FORMATS if name != messages.FORMAT)}.",
        ),
    ] = messages.FORMAT,
    group: Annotated[str, typer.Option(help="Consumers of one group share the work.")] = "inbox",
    settings: Annotated[
        Path | None,
        typer.Option(help="File with a librdkafka setting per line, like `sasl.password=…`: the place for secrets."),
    ] = None,
    setting: Annotated[list[str] | None, typer.Option(help="One setting, like `security.protocol=SSL`.")] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop where the stream ends now. For cron.")] = False,
    home: HomeOption = HERE,
) -> None:
    """Take events in from Kafka, or from a Redis or Valkey stream, until it is stopped (SIGTERM or ^C).

    A message is acknowledged when its events are on disk; one that cannot be read goes to quarantine. A message that comes
    twice changes nothing. After training, the online store follows within a second.

    Example: [bold]inbox consume --from kafka://localhost:9092 --topic mail-events[/]
    """
    if form not in FORMATS:
        raise UnusableOption("--format", f"{form!r} is not known; there are {', '.join(FORMATS)}")
    place, narrator = home_at(home), Narrator()

    def tell(text: str) -> None:
        narrator.say(f"  {escape(text)}")

    stream = _opened(source, topic, group, read_settings(settings, setting or ()))
    with _stoppable() as stopped, closing(Refresher(place, tell)) as refresh:
        taken = consume(stream, Intake(place, form), stopped, tell, refresh, until_end)
    tell_taken(narrator, taken)


def _opened(source: str, topics: Sequence[str], group: str, settings: dict[str, str]) -> Stream:
    if source.startswith(KAFKA):
        brokers = source.removeprefix(KAFKA).rstrip("/")
        if not brokers:
            raise UnusableOption(SOURCE, "names no broker; write it like kafka://host:9092")
        return KafkaStream(brokers, topics, group, settings)
    if settings or len(topics) != 1:
        raise UnusableOption(SOURCE, f"several topics and settings are Kafka's; write it like {KAFKA}host:9092")
    try:
        return RedisStream(source, topics[0], group)
    except UnusableOption as error:
        # Which does not repeat the URL.
        raise UnusableOption(SOURCE, f"{error.reason}; for Kafka, {KAFKA}host:9092") from None


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether somebody asked to stop: the batch at hand is finished and acknowledged first."""
    asked = Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
