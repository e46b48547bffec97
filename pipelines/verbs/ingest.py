"""`inbox ingest`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from features.errors import UnusableOption
from features.home import Home
from features.identity import Pseudonyms
from features.intake import FORMS
from features.log import EventLog, IntakeReport
from features.providers import PROVIDERS
from pipelines.about import about_files
from pipelines.console import Narrator
from pipelines.inbox import Taken, drained, files_taken, ingest_archive
from pipelines.mapping import Asked, People, readings
from pipelines.verbs.options import HERE, HomeOption, home_at


class ReceivedAt(Enum):
    """When events of an archive count as received."""

    NOW = "now"
    OCCURRED = "occurred"


def command(
    events: Annotated[
        Path | None,
        typer.Option(help="Parquet, CSV or JSON Lines file, or a directory of them; or providers' payloads."),
    ] = None,
    subscribers: Annotated[Path | None, typer.Option(help="Likewise; profiles and attributes.")] = None,
    campaigns: Annotated[Path | None, typer.Option(help="Likewise; optional.")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"What --events is: {', '.join(FORMS)}, whatever its name ends in, or webhooks' payloads of "
            f"{', '.join(PROVIDERS)}, as they came: one JSON document a file or a line, also gzipped.",
        ),
    ] = None,
    received_at: Annotated[
        ReceivedAt,
        typer.Option(
            help="When the events of payloads were received: now, or, for a list's history, as they occurred."
        ),
    ] = ReceivedAt.NOW,
    mapping: Annotated[
        Path | None, typer.Option("--map", help="TOML or JSON file that says what the following four options say.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="What the file calls a column: `occurred_at=EventDate`; an address: `subscriber_id=Email:hash`; numbers: "
            "`occurred_at=ts:epoch_ms`; a pattern: `occurred_at=Date:%d.%m.%Y %H:%M`; an id made from the row: "
            "`event_id=:digest`; of another table: `subscribers.created_at=Joined`. May be repeated."
        ),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", help="A column that every row has alike: `event_type=open`. May be repeated."),
    ] = None,
    event_type: Annotated[
        list[str] | None, typer.Option(help="What the file calls an event type: `Opened=open`. May be repeated.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of times in the files that name none, like Europe/Berlin.")
    ] = None,
    home: HomeOption = HERE,
) -> None:
    """Take events, subscribers and campaigns into the log.

    A bad row goes to quarantine with its reason and stops no other. Taking the same file twice changes nothing.

    Example: [bold]inbox ingest --events events.parquet --subscribers subscribers.parquet[/]

    Example: [bold]inbox ingest --events archive/ --format sendgrid --received-at occurred[/]

    Example: [bold]inbox ingest --events opens.csv --column subscriber_id=Email:hash --column occurred_at=Opened
    --column event_id=:digest --set event_type=open --timezone Europe/Berlin[/]
    """
    given = next((path for path in (events, subscribers, campaigns) if path is not None), None)
    if given is None:
        raise UnusableOption("--events", "give at least one of --events, --subscribers and --campaigns")
    asked = Asked(mapping, column or (), fixed or (), event_type or (), timezone)
    files = {"events": events, "subscribers": subscribers, "campaigns": campaigns}
    asked.refuse_absent([table for table, path in files.items() if path is not None])
    _refuse_unfitting(events, form, asked, received_at)
    narrator, place = Narrator(), home_at(home)
    # What the list says of itself is read first: when it is not understood, nothing is taken.
    about = about_files(given)
    if form is not None and form in PROVIDERS and events is not None:
        _refuse_absent(events)
        if subscribers or campaigns:
            _take_files(narrator, place, (None, subscribers, campaigns), None, asked)
        with narrator.step("ingest payloads") as share:
            taken = ingest_archive(place, events, form, share, received_at is ReceivedAt.OCCURRED)
        tell_taken(narrator, taken)
    else:
        _take_files(narrator, place, (events, subscribers, campaigns), form, asked)
    about.save(place)


def _take_files(
    narrator: Narrator, place: Home, files: tuple[Path | None, Path | None, Path | None], form: str | None, asked: Asked
) -> None:
    mappings = asked.mappings()
    people = People(Pseudonyms.load(place)) if any(one.hashes for one in mappings.values()) else None
    with narrator.step("ingest") as share:
        # What waits was received before.
        drained(place)
        aliases = people.aliases if people else None
        report = EventLog(place).append(*files, share, readings(mappings, form, people), aliases)
        files_taken(place)
    tell(narrator, report)


def _refuse_unfitting(events: Path | None, form: str | None, asked: Asked, received_at: ReceivedAt) -> None:
    if form is not None and form not in (*FORMS, *PROVIDERS):
        raise UnusableOption("--format", f"{form!r} is not known; there are {', '.join((*FORMS, *PROVIDERS))}")
    if form is not None and events is None:
        raise UnusableOption("--format", "says what --events is, and that is not given")
    if form in PROVIDERS and (asked.columns or asked.fixed or asked.event_types):
        raise UnusableOption(
            "--column", f"what {form} calls things is known; leave --column, --set and --event-type out"
        )
    if form not in PROVIDERS and received_at is ReceivedAt.OCCURRED:
        raise UnusableOption("--received-at", "is for providers' payloads; a file says it in its column received_at")


def _refuse_absent(path: Path) -> None:
    if not path.exists():
        raise UnusableOption("--events", f"there is nothing at {path}")


def tell(narrator: Narrator, report: IntakeReport) -> None:
    """Say what was taken and, by reason, what was not."""
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        narrator.say(f"  [yellow]quarantined {count:,}[/]: {reason}")
    for note in report.notes:
        narrator.say(f"  [yellow]note[/]: {note}")
    narrator.say(report.summary())


def tell_taken(narrator: Narrator, taken: Taken) -> None:
    """Likewise of messages."""
    for reason, count in taken.reasons.most_common():
        narrator.say(f"  [yellow]quarantined {count:,}[/]: {reason}")
    for event_type, count in taken.aside.most_common():
        narrator.say(f"  [dim]set aside {count:,}[/]: {event_type}")
    narrator.say(taken.summary())
