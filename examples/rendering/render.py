"""Render a personalised send: a list, a template, the scores, and out come the messages.

    python render.py --url http://127.0.0.1:3000 --key-file key.txt --people leads.parquet --out outbox/

What enters: people (a lead export or a CSV of ids), templates, a scoring service that may or may not be there. What
leaves: one .eml file a person, or one mbox, and a summary. The promise: no message fails for want of a score. The scores
of a segment are fetched before it is rendered, a thousand people a request; who has none gets the message that everybody
could get (``DEFAULTS``), and the summary says how many did. What is half-written never has the name of what was asked for.

Copy this file: it needs `inbox-client[jinja2]`, and pyarrow for a list in Parquet. First names are SIMULATED and addresses
end in example.com: put your own contacts' where ``_subscriber`` makes them up.
"""

from __future__ import annotations

import argparse
import csv
import mailbox
import shutil
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy, default
from email.utils import format_datetime, make_msgid
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from zlib import crc32

import pyarrow.parquet as pq
from inbox_client import ChurnAnswer, Context, Defaults, LeadScoreAnswer, ScoresClient, SubscriberScores
from inbox_client.jinja import use
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError

HERE = Path(__file__).resolve().parent
TEMPLATES = ("newsletter", "winback")
PERSONAL = frozenset({"ok", "stale", "partial"})
"""Statuses of an answer about this very person; the others are a mean of many, or nobody's."""
DEFAULTS = Defaults(churn=ChurnAnswer(band="medium"), lead_score=LeadScoreAnswer(grade="D"))
"""Said of everybody the service says nothing of: a letter of usual length, and nothing is sold in it."""
FIRST_NAMES = (
    "Amina",
    "Björn",
    "Chloé",
    "David",
    "Esra",
    "Farid",
    "Grace",
    "Haruki",
    "Ines",
    "Jan",
    "Khadija",
    "Łucja",
)


@dataclass(frozen=True)
class Subscriber:
    """Somebody to write to."""

    subscriber_id: str
    first_name: str
    address: str
    industry: str

    @property
    def preferences_url(self) -> str:
        return f"https://example.com/preferences?of={quote(self.subscriber_id, safe='')}"

    @property
    def unsubscribe_url(self) -> str:
        return f"https://example.com/unsubscribe?of={quote(self.subscriber_id, safe='')}"


@dataclass
class Summary:
    """How a send went."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why there was no score, of those with status ``fallback``."""
    seconds: float = 0.0
    asking_s: float = 0.0
    rendering_s: float = 0.0
    """In the templates; the rest is MIME and files."""
    longest_s: float = 0.0
    """From one message to the next, with whatever had to be asked between them."""

    @property
    def messages(self) -> int:
        return self.statuses.total()

    @property
    def personal(self) -> int:
        return sum(count for status, count in self.statuses.items() if status in PERSONAL)

    def count(self, scores: SubscriberScores) -> None:
        """One more message, with these."""
        self.statuses[scores.status] += 1
        if scores.fallback_reason:
            self.reasons[scores.fallback_reason] += 1

    def lines(self) -> Iterator[str]:
        """In words."""
        yield f"{self.messages:,} messages in {self.seconds:.1f} s: {self._rate(self.seconds)} a second"
        yield f"scores: {self._rate(self.asking_s)} a second; templates: {self._rate(self.rendering_s)} a second"
        yield f"longest wait between two messages: {1000 * self.longest_s:,.0f} ms"
        yield f"personal: {self.personal:,} ({self.personal / max(1, self.messages):.0%})"
        yield "statuses: " + ", ".join(f"{count:,} {status}" for status, count in self.statuses.most_common())
        if self.reasons:
            yield "without a score because: " + ", ".join(f"{n:,} {why}" for why, n in self.reasons.most_common())

    def _rate(self, seconds: float) -> str:
        return f"{self.messages / seconds:,.0f}" if seconds else "–"


class Campaign:
    """One send: what is in it, and the two templates each message is made of."""

    def __init__(self, template: str, issue: Mapping[str, Any], client: ScoresClient) -> None:
        self.issue, self.subject, self.client = issue, issue["subjects"][template], client
        # Whom the service does not know is scored as those who care for this content.
        self.context = Context(content=tuple(issue["content"]), quiet_hours=(22, 7))
        self.scores: dict[str, SubscriberScores] = {}
        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            # No name or address may become markup, and a misspelt variable may not become nothing.
            autoescape=lambda name: bool(name and name.endswith(".html.j2")),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        use(environment, client, context=self.context, prefetched=self.scores)
        self.html = environment.get_template(f"{template}.html.j2")
        self.text = environment.get_template(f"{template}.txt.j2")

    def prefetch(self, segment: Sequence[Subscriber], wait_s: float) -> None:
        """Fetch the scores of those who are rendered next; a single one as a page would, within 150 ms."""
        ids = [subscriber.subscriber_id for subscriber in segment]
        self.scores.clear()
        if len(ids) == 1:
            self.scores[ids[0]] = self.client.score(ids[0], context=self.context)
        else:
            self.scores.update(self.client.prefetch(ids, context=self.context, deadline_ms=1000 * wait_s))

    def rendered(self, subscriber: Subscriber) -> tuple[str, str]:
        """Plain text and HTML."""
        said = {"subscriber": subscriber, "subject": self.subject, "issue": self.issue}
        return self.text.render(said), self.html.render(said)

    def message(self, subscriber: Subscriber, text: str, html: str, policy: EmailPolicy) -> EmailMessage:
        """Both as one message, of which a mail program shows what it can."""
        send_at = self.scores[subscriber.subscriber_id].send_time.send_at
        message = EmailMessage(policy)
        message["From"] = Address(self.issue["sender_name"], addr_spec=self.issue["sender"])
        message["To"] = Address(subscriber.first_name, addr_spec=subscriber.address)
        message["Subject"] = self.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain="example.com")
        message["List-Unsubscribe"] = f"<{subscriber.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        # For whoever sends it: most providers take such a moment with the message, each under a name of its own.
        message["X-Send-At"] = send_at.astimezone(UTC).isoformat(timespec="seconds")
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        return message


def send(people: Iterable[Subscriber], campaign: Campaign, outbox: Outbox, ahead: int, wait_s: float) -> Summary:
    """Render a message for each, ``ahead`` people's scores fetched at a time, none waited for longer than ``wait_s``."""
    summary, waiting, clock = Summary(), iter(people), time.perf_counter
    begun = last = clock()
    while segment := list(islice(waiting, ahead)):
        asked = clock()
        campaign.prefetch(segment, wait_s)
        summary.asking_s += clock() - asked
        for subscriber in segment:
            rendering = clock()
            text, html = campaign.rendered(subscriber)
            summary.rendering_s += clock() - rendering
            outbox.add(campaign.message(subscriber, text, html, outbox.policy))
            summary.count(campaign.scores[subscriber.subscriber_id])
            summary.longest_s, last = max(summary.longest_s, clock() - last), clock()
    summary.seconds = clock() - begun
    return summary


# --- where messages go


class Outbox(Protocol):
    """Takes messages."""

    @property
    def policy(self) -> EmailPolicy:
        """How they are written: mbox ends its lines as Unix does."""

    def add(self, message: EmailMessage) -> object:
        """Keep it."""


class Folder:
    """One .eml file a message, numbered."""

    # Lines as long as mail may have: folded, a long address to unsubscribe at is no address any more.
    policy = SMTP.clone(max_line_length=998)

    def __init__(self, path: Path) -> None:
        self.path, self._numbers = path, count(1)
        path.mkdir(parents=True)

    def add(self, message: EmailMessage) -> None:
        """Write the next file."""
        (self.path / f"{next(self._numbers):06d}.eml").write_bytes(message.as_bytes())

    def close(self) -> None:
        """Nothing is open."""


class Mbox(mailbox.mbox):
    """All in one file, in the format that mail programs open."""

    policy = default


@contextmanager
def outbox(path: Path) -> Iterator[Outbox]:
    """Beside ``path`` until all is written, then there."""
    if path.exists():
        raise FileExistsError(f"{path} is there already; move it away, or give another --out")
    beside = path.with_name(f"{path.name}.partial")
    _remove(beside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(Mbox(beside) if path.suffix == ".mbox" else Folder(beside)) as box:
            yield box
        beside.rename(path)
    finally:
        _remove(beside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- whom to write to


def people_in(path: Path) -> list[Subscriber]:
    """Everybody in a lead export or a CSV with a column ``subscriber_id``; of a directory of lead books, the newest."""
    file = max(path.glob("*.parquet"), default=path) if path.is_dir() else path
    rows = _parquet(file) if file.suffix == ".parquet" else _csv(file)
    if not rows:
        raise ValueError(f"{file} names nobody")
    if "subscriber_id" not in rows[0]:
        raise ValueError(f"{file} has no column subscriber_id")
    nameless = sum(not row["subscriber_id"] for row in rows)
    if nameless:
        raise ValueError(f"{file} has {nameless:,} rows without a subscriber_id; fill it in, or take them out")
    return [_subscriber(str(row["subscriber_id"]), row.get("profile_industry")) for row in rows]


def _csv(path: Path) -> list[dict[str, str]]:
    # A lead export begins with a byte order mark, for Excel's sake.
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _parquet(path: Path) -> list[dict[str, str]]:
    file = pq.ParquetFile(path)
    wanted = [name for name in ("subscriber_id", "profile_industry") if name in file.schema_arrow.names]
    rows: list[dict[str, str]] = file.read(columns=wanted).to_pylist()
    return rows


def _subscriber(subscriber_id: str, industry: str | None) -> Subscriber:
    number = crc32(subscriber_id.encode())
    first_name = FIRST_NAMES[number % len(FIRST_NAMES)]
    return Subscriber(subscriber_id, first_name, f"reader-{number:08x}@example.com", industry or "")


# --- the command


def main(arguments: Sequence[str] | None = None) -> int:
    """Render, and say how it went; the exit code is 0 unless nothing was rendered."""
    asked = options().parse_args(arguments)
    try:
        people = people_in(asked.people)
        wanted = islice(cycle(people), asked.messages or len(people))
        key = asked.key_file.read_text().strip()
        issue = tomllib.loads((HERE / "issue.toml").read_text(encoding="utf-8"))
        with ScoresClient(asked.url, key, defaults=DEFAULTS) as client, outbox(asked.out) as box:
            summary = send(wanted, Campaign(asked.template, issue, client), box, asked.ahead, asked.wait)
    except (OSError, ValueError, TemplateError) as error:
        print(f"render.py: {_words(error)}", file=sys.stderr)
        return 1
    print(f"{asked.out}: ", *summary.lines(), sep="\n  ")
    return 0


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("should be at least 1")
    return number


def _a_while(text: str) -> float:
    seconds = float(text)
    if not 0.001 <= seconds <= 600:
        raise argparse.ArgumentTypeError("should be from 0.001 to 600 seconds")
    return seconds


def _words(error: Exception) -> str:
    where = f"{error.name}, line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
    return f"{where}{error}"


def options() -> argparse.ArgumentParser:
    """What may be asked for."""
    asked = argparse.ArgumentParser(description="Render a personalised send.")
    asked.add_argument("--url", required=True, help="of the scoring service, such as http://127.0.0.1:3000")
    asked.add_argument("--key-file", type=Path, required=True, help="a file with the service's key and nothing else")
    asked.add_argument("--people", type=Path, required=True, help="leads.parquet, leads.csv, or a CSV of subscriber_id")
    asked.add_argument("--out", type=Path, required=True, help="a directory for .eml files, or a file ending in .mbox")
    asked.add_argument("--template", choices=TEMPLATES, default=TEMPLATES[0])
    asked.add_argument(
        "--messages", type=_at_least_one, help="how many; a shorter list is gone through again (everybody once)"
    )
    asked.add_argument(
        "--ahead", type=_at_least_one, default=1000, help="people whose scores are fetched at a time (1000)"
    )
    asked.add_argument("--wait", type=_a_while, default=2.0, help="seconds to wait for a segment's scores at most (2)")
    return asked


if __name__ == "__main__":
    sys.exit(main())
