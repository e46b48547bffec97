"""A SIMULATED email list with known truth.

What enters: how many subscribers, how many days, a seed. What leaves: the three tables of the input contract and,
beside them, the truth they were drawn from: who is a person and who a machine, who left and when, the chance of a click
at each hour. The promise: the same arguments give the same tables bit for bit, and the contract's tables hold nothing
of the truth that a real export would not hold.

How a response comes about: a mail waits until the person next pays attention. Attention has a rate per local hour of
week, the person's own; interest in a waiting mail fades by the hour. So the chance that a mail is seen, by the hour it
was sent, is the attention profile smoothed over the hours after it, and what follows (open, click) happens when the
person looked, not when the mail was sent.

Inside, time is in hours since ``START`` (float64), and people are positions: 0 is the first subscriber.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.contract import EVENT_TYPES, HOURS_OF_WEEK, RAW_EVENT_COLUMNS, UTC_MICROSECONDS
from features.errors import UnusableOption

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[Any]
"""Structured array of events, dtype ``_EVENT``."""

START = datetime(2025, 1, 6, tzinfo=UTC)
"""The log's first instant: a Monday, 00:00 UTC."""

CATEGORIES = (
    "analytics",
    "automation",
    "benchmarks",
    "customer_stories",
    "deliverability",
    "design",
    "events",
    "pricing",
    "product_news",
    "training",
)

ARCHETYPES = ("commuter", "lunch", "evening", "night_owl", "weekend", "flat")
"""Kinds of daily rhythm; within one, people differ in shift, sharpness and weekdays. ``flat`` has no best hour."""

LEFT_BY = ("silence", "unsubscribe", "complaint", "hard_bounce")

HOURS_WAITED = 48
"""A mail that nobody looked at for this long is never seen."""

_MICROSECONDS_PER_HOUR = 3_600_000_000
_START_AT = int(START.timestamp()) * 1_000_000
_SECOND = 1 / 3600
_DAY = 24.0

# Attention: looks at the inbox per hour, averaged over the week; and how fast a waiting mail loses its interest.
_LOOKS_PER_HOUR = 0.15
_INTEREST_FADES_HOURS = 4.5

# Share of people, two daily peaks (local hour, sharpness, weight), weight of weekdays and weekend, constant part.
_RHYTHMS: tuple[tuple[float, tuple[float, float, float], tuple[float, float, float], float, float, float], ...] = (
    (0.22, (7.5, 9.0, 1.0), (18.0, 6.0, 0.35), 1.0, 0.35, 0.06),
    (0.20, (12.5, 8.0, 1.0), (9.5, 6.0, 0.30), 1.0, 0.20, 0.06),
    (0.22, (20.0, 6.0, 1.0), (12.5, 6.0, 0.20), 1.0, 0.90, 0.06),
    (0.08, (23.5, 6.0, 1.0), (16.0, 5.0, 0.20), 1.0, 1.0, 0.06),
    (0.10, (10.5, 4.0, 1.0), (17.0, 4.0, 0.60), 0.12, 1.0, 0.04),
    (0.18, (12.0, 1.0, 0.0), (12.0, 1.0, 0.0), 1.0, 1.0, 1.0),
)

# IANA zone, country, share of people.
_ZONES = (
    ("Europe/Berlin", "DE", 0.20),
    ("Europe/London", "GB", 0.13),
    ("Europe/Paris", "FR", 0.09),
    ("Europe/Madrid", "ES", 0.06),
    ("America/New_York", "US", 0.16),
    ("America/Chicago", "US", 0.09),
    ("America/Los_Angeles", "US", 0.10),
    ("America/Sao_Paulo", "BR", 0.05),
    ("Asia/Kolkata", "IN", 0.05),
    ("Asia/Tokyo", "JP", 0.03),
    ("Asia/Singapore", "SG", 0.02),
    ("Australia/Sydney", "AU", 0.02),
)
_ZONE_NAMES = tuple(zone for zone, _, _ in _ZONES)
_UNKNOWN_ZONES = ("GMT+2 (summer time)", "Central European", "Atlantis/Capital")
_NO_ZONE_SHARE, _UNKNOWN_ZONE_SHARE = 0.06, 0.006

# A profile attribute: value, share of people, what it adds to the log-odds of converting.
_Choices = tuple[tuple[str, float, float], ...]
_INDUSTRIES: _Choices = (
    ("software", 0.20, 0.8),
    ("retail", 0.20, 0.5),
    ("finance", 0.12, 0.2),
    ("media", 0.12, 0.0),
    ("healthcare", 0.10, -0.2),
    ("manufacturing", 0.10, -0.4),
    ("education", 0.09, -0.8),
    ("nonprofit", 0.07, -0.9),
)
_JOB_TITLES: _Choices = (
    ("Marketing Manager", 0.26, 0.7),
    ("Head of Growth", 0.09, 1.1),
    ("CRM Lead", 0.10, 0.9),
    ("Founder", 0.10, 0.5),
    ("Developer", 0.13, -0.4),
    ("Analyst", 0.13, -0.2),
    ("Assistant", 0.11, -0.7),
    ("Student", 0.08, -1.8),
)
_SOURCES: _Choices = (
    ("organic", 0.30, 0.1),
    ("content_download", 0.20, 0.3),
    ("webinar", 0.15, 0.7),
    ("paid_search", 0.15, -0.1),
    ("referral", 0.08, 0.9),
    ("import", 0.12, -0.9),
)
_PLANS: _Choices = (("none", 0.62, -0.3), ("free", 0.26, 0.2), ("trial", 0.12, 1.1))
_CONVERSION_LOG_ODDS = -2.65

_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 "
    "Edg/131.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
)
_SCANNERS = (
    "Barracuda Sentinel (EE)",
    "Mozilla/5.0 (compatible; Mimecast-URL-Protect/1.0)",
    "Mozilla/5.0 (compatible; proofpoint-url-defense/2.0)",
)
_PREFETCH_AGENT = "Mozilla/5.0"
_PROXY_AGENT = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
_APPLE_AGENT = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
_AGENTS = (*_BROWSERS, *_SCANNERS, _PREFETCH_AGENT, _PROXY_AGENT, _APPLE_AGENT)

_APPLE, _GMAIL, _OTHER_PROGRAM = range(3)
_PROGRAM_SHARES = (0.35, 0.33, 0.32)
_SCANNED_SHARE = 0.06
_NAMED_SCANNER_SHARE = 0.4
"""Of scanned mailboxes: those whose scanner gives its own name; the others look like browsers."""
_SCANNER_RANGES = (("cloud", 0.45), ("gateway", 0.25), ("hidden", 0.30))
_SINGLE_LINK_SHARE, _SLOW_SCAN_SHARE, _LATE_SCAN_SHARE = 0.25, 0.15, 0.10
"""Of scanned mailboxes: one link only is tried, minutes later. Of scanners' clicks: learnt of late, one by one."""
_DISGUISED_PREFETCH_SHARE = 0.12
_VPN_SHARE, _QUICK_SHARE = 0.04, 0.06
"""Of people: behind an address of a cloud; told of new mail at once, so that they read some of it within a minute."""

# People, and machines that hide among them, have addresses reserved for documentation (RFC 5737); other machines have those
# of the providers they stand for, because that is what tells them: mail-privacy relays, Google's image proxy, a cloud (some
# people too, behind a VPN), a security gateway.
_RANGES = {
    "people": ("192.0.2", 254),
    "apple": ("17.58.101", 64),
    "relay": ("104.28.30", 64),
    "proxy": ("66.249.84", 127),
    "cloud": ("3.5.140", 100),
    "gateway": ("209.222.82", 40),
    "hidden": ("203.0.113", 100),
}
_ADDRESSES = tuple(f"{network}.{host}" for network, hosts in _RANGES.values() for host in range(1, hosts + 1))

_LINKS_PER_CATEGORY = 5
_PAGES = tuple(
    f"https://example.com/{category.replace('_', '-')}/{page}"
    for category in CATEGORIES
    for page in range(1, _LINKS_PER_CATEGORY + 1)
)
_SIGNUP, _CONTACT, _CHECKOUT, _UNSUBSCRIBE = range(len(_PAGES), len(_PAGES) + 4)
_URLS = (*_PAGES, *(f"https://example.com/{page}" for page in ("signup", "contact", "checkout", "unsubscribe")))

_EVENT = np.dtype(
    [
        ("subscriber", "<i4"),
        ("kind", "i1"),
        ("hour", "<f8"),
        ("received", "<f8"),
        ("campaign", "<i2"),
        ("content", "<i2"),
        ("value", "<f8"),
        ("agent", "<i2"),
        ("ip", "<i2"),
        ("url", "<i2"),
        ("is_human", "?"),
        ("is_random_hour", "i1"),
    ]
)
_PROGRAM_TYPES = ("sent", "delivered", "soft_bounce", "hard_bounce")

_CAMPAIGN_HOUR = 9
_RECIPIENT_SHARE = 0.92
_RANDOM_HOUR_SHARE = 0.10
_LATE_SHARE, _DUPLICATE_SHARE = 0.02, 0.01
_ROWS_PER_BATCH = 1_000_000


@dataclass(frozen=True)
class Simulation:
    """A simulated list and the truth behind it.

    Attributes
    ----------
    events, subscribers, campaigns
        The input contract's raw tables. Events are in no order, about 1 % of the rows are exact repeats.
    truth_subscribers
        One row per subscriber: the true ``timezone``, ``archetype``, ``best_hour_of_week`` (local, 0 = Monday 00:00)
        and ``click_probability``, 168 values: the chance that a mail delivered in that local hour is ever clicked by
        the person, averaged over the campaigns, at the engagement of the middle of the person's time in the log;
        ``interest_*`` sums to 1; ``base_open_rate`` is per seen mail and ``base_click_rate`` per opened one, both when
        fresh; ``churned_at`` (null: still there at the log's end) and ``left_by``; ``is_prefetching``, ``is_scanned``;
        ``conversion_propensity``, the chance of ever converting.
    truth_events
        One row per event: ``event_id``, ``is_human`` (false for what machines and the program itself do) and
        ``is_random_hour``, null except for ``sent``.
    call
        The command line that makes the same tables again.
    """

    events: pa.Table
    subscribers: pa.Table
    campaigns: pa.Table
    truth_subscribers: pa.Table
    truth_events: pa.Table
    call: str


@dataclass(frozen=True)
class _Clock:
    """Local hour of week by zone and hour since ``START``; the last zone is UTC."""

    hour_of_week: npt.NDArray[np.int16]
    end: float


@dataclass(frozen=True)
class _Rhythm:
    """When people look: ``attention`` has mean 1 over the week, ``seen`` is the chance that a mail is looked at."""

    archetype: Integers
    attention: npt.NDArray[np.float32]
    seen: Floats


@dataclass(frozen=True)
class _Reader:
    """How people respond once they look. ``interests`` has shape (people, categories), rows sum to 1."""

    open_rate: Floats
    click_rate: Floats
    interests: Floats
    fades_days: Floats
    last_days: Floats
    visits_per_day: Floats


@dataclass(frozen=True)
class _Lead:
    """Firmographics as codes, -1 = not known, and what they say about converting. Hours are inf for "never"."""

    industry: Integers
    company_size: Floats
    job_title: Integers
    source: Integers
    plan: Integers
    intent: Floats
    propensity: Floats
    converts_hour: Floats
    curious_hour: Floats


@dataclass(frozen=True)
class _Mailbox:
    """What stands between a mail and its reader."""

    program: Integers
    is_scanned: Flags
    scanner_agent: Integers
    scanner_ip: Integers
    scans_one: Flags
    scans_slowly: Flags
    is_quick: Flags
    browser: Integers
    ip: Integers
    soft_bounce_rate: Floats
    allows_profiling: Integers
    allows_open_tracking: Integers


@dataclass(frozen=True)
class _People:
    """Everybody on the list, column by column: every array's first axis is the person."""

    created_hour: Floats
    zone: Integers
    recorded_zone: Integers
    rhythm: _Rhythm
    reader: _Reader
    lead: _Lead
    mailbox: _Mailbox

    def __len__(self) -> int:
        return len(self.created_hour)


@dataclass(frozen=True)
class _Leaving:
    """When and how people leave, inf and -1 while they stay. Campaigns write into it as they go out."""

    hour: Floats
    by: Integers
    campaign: Integers
    mailed_until: Floats

    def leave(self, who: Integers, hour: Floats, by: str, campaign: int) -> None:
        """Nobody leaves twice: the earlier leaving stands. ``who`` is without repeats."""
        self.mailed_until[who] = np.minimum(self.mailed_until[who], hour)
        first = hour < self.hour[who]
        self.hour[who[first]] = hour[first]
        self.by[who[first]] = LEFT_BY.index(by)
        self.campaign[who[first]] = campaign


@dataclass(frozen=True)
class _Campaign:
    number: int
    day: int
    is_local: bool
    categories: Integers
    kind: str


@dataclass(frozen=True)
class _Sends:
    """One campaign's mails: ``slot`` is the whole hour since ``START`` in which each goes out, ``hour`` the instant."""

    who: Integers
    slot: Integers
    hour: Floats
    is_random_hour: Flags

    def where(self, chosen: Flags) -> _Sends:
        return _Sends(self.who[chosen], self.slot[chosen], self.hour[chosen], self.is_random_hour[chosen])


def simulate(subscribers: int, days: int, seed: int, progress: Callable[[float], None] | None = None) -> Simulation:
    """Draw a list and its event log.

    Parameters
    ----------
    subscribers
        Number of people, at least 1. About 150 event rows each in 180 days.
    days
        Length of the log from ``START``, at least 1. Only what is received before its end is in it.
    seed
        At least 0.
    progress
        Called with the finished share, 0 to 1, rising.

    Raises
    ------
    UnusableOption
        When an argument is out of its range.
    """
    _refuse_unusable(subscribers, days, seed)
    report = progress or (lambda share: None)
    clock = _clock(days)
    people = _people(seed, subscribers, clock)
    leaving = _planned_leaving(_rng(seed, 1), people)
    campaigns = _campaigns(_rng(seed, 2), days)
    report(0.1)
    mailed = _mailed(seed, campaigns, people, leaving, clock, report)
    unasked = _unasked(_rng(seed, 4), people, leaving, clock)
    rows = _as_received(_rng(seed, 5), [*mailed, *unasked], people, leaving, clock)
    report(0.7)
    call = f"inbox simulate --subscribers {subscribers} --days {days} --seed {seed}"
    simulation = _tables(_rng(seed, 6), rows, people, leaving, campaigns, clock, call)
    report(1.0)
    return simulation


def write(simulation: Simulation, out: Path) -> None:
    """Write the five tables as Parquet, a README.txt and a list.toml that says SIMULATED, into the directory ``out``.

    Each file appears whole or not at all; what was there under its name is replaced.

    Raises
    ------
    UnusableOption
        When the directory cannot be written.
    """
    names = ("events", "subscribers", "campaigns", "truth_subscribers", "truth_events")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            with _replacing(out / f"{name}.parquet") as file:
                pq.write_table(getattr(simulation, name), file, compression="zstd")
        for name, text in (("README.txt", _readme(simulation)), ("list.toml", _LIST)):
            with _replacing(out / name) as file:
                file.write(text.encode())
    except OSError as error:
        raise UnusableOption("--out", f"{out} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name that takes its own once it is written and on disk."""
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


_LIST = """name = "simulated list"
simulated = true
origin = "made by inbox simulate"
"""


def _readme(simulation: Simulation) -> str:
    return f"""THIS DATA IS SIMULATED. No row is about a real person, company or mail.

Made by: {simulation.call}

events.parquet, subscribers.parquet, campaigns.parquet: what an email program would export (input contract v1),
{simulation.events.num_rows:,} event rows of {simulation.subscribers.num_rows:,} subscribers.
truth_subscribers.parquet, truth_events.parquet: the truth the events were drawn from. A model must never read these;
they are there to judge it by.
"""


def _refuse_unusable(subscribers: int, days: int, seed: int) -> None:
    for option, value, least in (("--subscribers", subscribers, 1), ("--days", days, 1), ("--seed", seed, 0)):
        if value < least:
            raise UnusableOption(option, f"{value} is too small; give {least} or more.")


def _rng(seed: int, *stage: int) -> np.random.Generator:
    # A stream of its own for each stage: one more draw in one stage leaves the others as they were.
    return np.random.default_rng([seed, *stage])


# --- people ---------------------------------------------------------------------------------------------------------


def _clock(days: int) -> _Clock:
    hours = pd.date_range(START, periods=days * 24 + HOURS_WAITED + 72, freq="h")
    local = [hours.tz_convert(ZoneInfo(zone)) for zone in (*_ZONE_NAMES, "UTC")]
    return _Clock(np.stack([zone.dayofweek * 24 + zone.hour for zone in local]).astype(np.int16), days * _DAY)


def _people(seed: int, count: int, clock: _Clock) -> _People:
    rng = _rng(seed, 0)
    zone = _drawn(rng, [share for _, _, share in _ZONES], count)
    rhythm = _rhythm(rng, count)
    intent = rng.normal(size=count)
    created = _created(rng, rhythm.attention, zone, clock)
    source = _drawn(rng, [share for _, share, _ in _SOURCES], count)
    return _People(
        created_hour=created,
        zone=zone,
        recorded_zone=_recorded_zone(rng, zone),
        rhythm=rhythm,
        reader=_reader(rng, intent, source),
        lead=_lead(rng, intent, source, created),
        mailbox=_mailbox(rng, count),
    )


def _drawn(rng: np.random.Generator, shares: Sequence[float], count: int) -> Integers:
    """Positions in ``shares``, int64, each as often as its share says."""
    bounds = np.cumsum(shares)
    return np.searchsorted(bounds / bounds[-1], rng.random(count), side="right").astype(np.int64)


def _recorded_zone(rng: np.random.Generator, zone: Integers) -> Integers:
    luck = rng.random(len(zone))
    unknown = len(_ZONES) + rng.integers(len(_UNKNOWN_ZONES), size=len(zone))
    known_or_null = np.where(luck < _NO_ZONE_SHARE, -1, zone)
    return np.where(luck > 1 - _UNKNOWN_ZONE_SHARE, unknown, known_or_null)


def _rhythm(rng: np.random.Generator, count: int) -> _Rhythm:
    archetype = _drawn(rng, [rhythm[0] for rhythm in _RHYTHMS], count)
    shift = rng.normal(0, 1.3, count)
    sharper = np.exp(rng.normal(0, 0.25, count))
    daily = np.zeros((count, 24))
    for peak in (1, 2):
        hour, sharpness, weight = np.array([rhythm[peak] for rhythm in _RHYTHMS])[archetype].T
        angle = 2 * np.pi * (np.arange(24) + 0.5 - (hour + shift)[:, None]) / 24
        daily += weight[:, None] * np.exp((sharpness * sharper)[:, None] * (np.cos(angle) - 1))
    weekdays, weekend, constant = np.array([rhythm[3:] for rhythm in _RHYTHMS]).T[:, archetype]
    by_day = np.where(np.arange(7) < 5, weekdays[:, None], weekend[:, None]) * rng.gamma(8, 1 / 8, (count, 7))
    attention = (constant[:, None, None] + by_day[:, :, None] * daily[:, None, :]).reshape(count, HOURS_OF_WEEK)
    attention = (attention / attention.mean(axis=1, keepdims=True)).astype(np.float32)
    return _Rhythm(archetype, attention, _seen(attention))


def _look_weights() -> npt.NDArray[np.float32]:
    """Expected looks in the k-th hour after delivery at attention 1, shrunk by how stale the mail is by then."""
    edges = np.exp(-np.arange(HOURS_WAITED + 1) / _INTEREST_FADES_HOURS)
    return (_LOOKS_PER_HOUR * _INTEREST_FADES_HOURS * -np.diff(edges)).astype(np.float32)


def _seen(attention: npt.NDArray[np.float32]) -> Floats:
    """Chance that a mail of each local hour is looked at: 1 - exp(-(looks expected while it waits))."""
    wrapped = np.concatenate([attention, attention[:, :HOURS_WAITED]], axis=1)
    looks = np.zeros(attention.shape)
    for hours_later, weight in enumerate(_look_weights()):
        looks += weight * wrapped[:, hours_later : hours_later + HOURS_OF_WEEK]
    return -np.expm1(-looks)


def _created(rng: np.random.Generator, attention: npt.NDArray[np.float32], zone: Integers, clock: _Clock) -> Floats:
    """Two thirds were there before the log began; the others join while it runs, in hours when they are about."""
    count = len(zone)
    before = -_DAY * np.minimum(rng.exponential(250, count) + 1, 1500)
    joins = _attended(rng, attention, zone, np.zeros(count), np.full(count, clock.end), clock)
    return np.where(rng.random(count) < 0.65, before, joins)


def _attended(
    rng: np.random.Generator,
    attention: npt.NDArray[np.float32],
    zone: Integers,
    low: Floats,
    high: Floats,
    clock: _Clock,
) -> Floats:
    """An hour within [low, high) for each row, drawn by the row's attention: one of 24 uniform hours, by weight."""
    hours = low[:, None] + (high - low)[:, None] * rng.random((len(zone), 24))
    local = clock.hour_of_week[zone[:, None], hours.astype(np.int64)]
    weight = np.cumsum(np.take_along_axis(attention, local, axis=1), axis=1)
    chosen = (weight < weight[:, -1:] * rng.random((len(zone), 1))).sum(axis=1)
    return np.asarray(np.take_along_axis(hours, np.minimum(chosen, 23)[:, None], axis=1)[:, 0])


def _reader(rng: np.random.Generator, intent: Floats, source: Integers) -> _Reader:
    count = len(intent)
    keen = np.exp(0.15 * intent)
    open_rate = np.clip(rng.beta(2.6, 1.6, count) * keen, 0.01, 0.95)
    imported = np.where(source == _position(_SOURCES, "import"), 0.5, 1.0)
    return _Reader(
        open_rate=open_rate,
        click_rate=np.clip(rng.beta(1.6, 6.4, count) * keen, 0.01, 0.8),
        interests=rng.dirichlet(np.full(len(CATEGORIES), 0.6), count),
        fades_days=300 * np.exp(rng.normal(0, 0.6, count)),
        last_days=1000 * imported * (0.35 + 1.4 * open_rate) * rng.exponential(1, count),
        visits_per_day=0.13 * rng.gamma(0.9, 1 / 0.9, count) * np.exp(0.35 * intent),
    )


def _position(choices: _Choices, name: str) -> int:
    return [choice for choice, _, _ in choices].index(name)


def _lead(rng: np.random.Generator, intent: Floats, source: Integers, created: Floats) -> _Lead:
    count = len(intent)
    industry, job_title, plan = (
        _drawn(rng, [share for _, share, _ in choices], count) for choices in (_INDUSTRIES, _JOB_TITLES, _PLANS)
    )
    company_size = np.clip(np.rint(np.exp(rng.normal(4.0, 1.7, count))), 1, 50_000)
    log_odds = _CONVERSION_LOG_ODDS + 0.28 * np.log(company_size / 55) + 0.65 * intent
    for choices, codes in ((_INDUSTRIES, industry), (_JOB_TITLES, job_title), (_SOURCES, source), (_PLANS, plan)):
        log_odds = log_odds + np.array([effect for _, _, effect in choices])[codes]
    propensity = 1 / (1 + np.exp(-log_odds))
    converts, curious = _lead_hours(rng, propensity, created)
    return _Lead(
        industry=_partly_known(rng, industry, 0.03),
        company_size=np.where(rng.random(count) < 0.06, np.nan, company_size),
        job_title=_partly_known(rng, job_title, 0.05),
        source=source,
        plan=plan,
        intent=intent,
        propensity=propensity,
        converts_hour=converts,
        curious_hour=curious,
    )


def _addresses(rng: np.random.Generator, which: str, count: int) -> Integers:
    """Codes of addresses drawn from one of ``_RANGES``."""
    names = list(_RANGES)
    first = sum(_RANGES[name][1] for name in names[: names.index(which)])
    return first + rng.integers(_RANGES[which][1], size=count)


def _scanner_addresses(rng: np.random.Generator, count: int) -> Integers:
    which = _drawn(rng, [share for _, share in _SCANNER_RANGES], count)
    return np.choose(which, [_addresses(rng, name, count) for name, _ in _SCANNER_RANGES])


def _partly_known(rng: np.random.Generator, codes: Integers, missing_share: float) -> Integers:
    return np.where(rng.random(len(codes)) < missing_share, -1, codes)


def _lead_hours(rng: np.random.Generator, propensity: Floats, created: Floats) -> tuple[Floats, Floats]:
    """When people convert, and when their curiosity peaks: at conversion, or for some others at no consequence."""
    count = len(created)
    soon = created + _DAY * 35 * np.exp(rng.normal(0, 1.0, count))
    sometime = _DAY * rng.uniform(0, 270, count)
    hour = np.where(created < 0, sometime, soon)
    converts = rng.random(count) < propensity
    in_vain = ~converts & (rng.random(count) < 0.2)
    return np.where(converts, hour, np.inf), np.where(converts | in_vain, hour, np.inf)


def _mailbox(rng: np.random.Generator, count: int) -> _Mailbox:
    program = _drawn(rng, _PROGRAM_SHARES, count)
    named = len(_BROWSERS) + rng.integers(len(_SCANNERS), size=count)
    disguised = rng.integers(len(_BROWSERS), size=count)
    return _Mailbox(
        program=program,
        is_scanned=rng.random(count) < _SCANNED_SHARE,
        scanner_agent=np.where(rng.random(count) < _NAMED_SCANNER_SHARE, named, disguised),
        scanner_ip=_scanner_addresses(rng, count),
        scans_one=rng.random(count) < _SINGLE_LINK_SHARE,
        scans_slowly=rng.random(count) < _SLOW_SCAN_SHARE,
        is_quick=rng.random(count) < _QUICK_SHARE,
        browser=rng.integers(len(_BROWSERS), size=count),
        ip=np.where(rng.random(count) < _VPN_SHARE, _addresses(rng, "cloud", count), _addresses(rng, "people", count)),
        soft_bounce_rate=np.where(rng.random(count) < 0.03, 0.10, 0.003),
        allows_profiling=_drawn(rng, (0.02, 0.88, 0.10), count),
        allows_open_tracking=_drawn(rng, (0.02, 0.86, 0.12), count),
    )


def _planned_leaving(rng: np.random.Generator, people: _People) -> _Leaving:
    """Everybody's natural end. Most fall silent; some say so, and then mail stops."""
    hour = people.created_hour + _DAY * people.reader.last_days
    aloud = (rng.random(len(people)) < 0.2) & (hour >= 0)
    by = np.where(aloud, LEFT_BY.index("unsubscribe"), LEFT_BY.index("silence"))
    return _Leaving(hour, by, np.full(len(people), -1), np.where(aloud, hour, np.inf))


def _eagerness(people: _People, leaving: _Leaving, who: Integers, hour: Floats) -> Floats:
    """Engagement as a share of the fresh one: wears off from joining on, fades in the weeks before leaving, then 0."""
    to_leaving_days = (leaving.hour[who] - hour) / _DAY
    fading_days = 8 + people.reader.fades_days[who] / 10
    return _worn(people, who, hour) * np.clip(to_leaving_days / fading_days, 0, 1)


def _worn(people: _People, who: Integers, hour: Floats) -> Floats:
    age_days = np.maximum(hour - people.created_hour[who], 0) / _DAY
    return 0.45 + 0.55 * np.exp(-age_days / people.reader.fades_days[who])


# --- campaigns ------------------------------------------------------------------------------------------------------


def _campaigns(rng: np.random.Generator, days: int) -> list[_Campaign]:
    """Tuesdays and Thursdays, and every other Saturday; every third goes out by local time."""
    outgoing = [day for day in range(1, days) if day % 7 in (1, 3) or day % 14 == 5]
    return [
        _Campaign(
            number=number,
            day=day,
            is_local=number % 3 == 2,
            categories=rng.choice(len(CATEGORIES), size=1 + _drawn(rng, (0.4, 0.4, 0.2), 1)[0], replace=False),
            kind="offer" if rng.random() < 0.25 else "newsletter",
        )
        for number, day in enumerate(outgoing)
    ]


def _default_slots(campaign: _Campaign, clock: _Clock) -> Integers:
    """Whole hour since ``START`` of the campaign's default by zone: 9 in UTC, or within the local hour of 9."""
    first = campaign.day * 24 + _CAMPAIGN_HOUR
    if not campaign.is_local:
        return np.full(len(clock.hour_of_week), first)
    around = np.arange(first - 14, first + 14)
    wanted = (campaign.day % 7) * 24 + _CAMPAIGN_HOUR
    first_within: Integers = np.argmax(clock.hour_of_week[:, around] == wanted, axis=1)
    return around[first_within]


def _tilts(people: _People, campaign: _Campaign, who: Integers) -> tuple[Floats, Floats]:
    """How much more (or less) than usual people open and click this content. Around 1."""
    fit = people.reader.interests[who][:, campaign.categories].mean(axis=1) * len(CATEGORIES)
    return 0.7 + 0.3 * fit, 0.3 + 0.7 * fit


def _mailed(
    seed: int,
    campaigns: Sequence[_Campaign],
    people: _People,
    leaving: _Leaving,
    clock: _Clock,
    report: Callable[[float], None],
) -> list[Rows]:
    """All campaigns in their order: who left through one does not get the next."""
    blocks: list[Rows] = []
    for campaign in campaigns:
        blocks += _campaign_events(_rng(seed, 3, campaign.number), campaign, people, leaving, clock)
        report(0.1 + 0.5 * (campaign.number + 1) / len(campaigns))
    return blocks


def _campaign_events(
    rng: np.random.Generator, campaign: _Campaign, people: _People, leaving: _Leaving, clock: _Clock
) -> list[Rows]:
    sends = _sends(rng, campaign, people, leaving, clock)
    delivered, blocks = _deliver(rng, sends, campaign, people, leaving)
    blocks += _prefetch(rng, delivered, people)
    blocks += _scan(rng, delivered, campaign, people)
    blocks += _read(rng, delivered, campaign, people, leaving, clock)
    for rows in blocks:
        rows["campaign"] = campaign.number
        rows["content"][rows["content"] < 0] = len(CATEGORIES) + campaign.number
    return blocks


def _sends(rng: np.random.Generator, campaign: _Campaign, people: _People, leaving: _Leaving, clock: _Clock) -> _Sends:
    count = len(people)
    program_zone = np.where(
        (people.recorded_zone >= 0) & (people.recorded_zone < len(_ZONES)), people.recorded_zone, -1
    )
    at_random = rng.random(count) < _RANDOM_HOUR_SHARE
    slot = _default_slots(campaign, clock)[program_zone] + np.where(at_random, rng.integers(24, size=count), 0)
    sends = _Sends(np.arange(count), slot, slot + rng.uniform(0.001, 0.12, count), at_random)
    picked = rng.random(count) < _RECIPIENT_SHARE
    return sends.where(picked & (people.created_hour < sends.hour) & (leaving.mailed_until > sends.hour))


def _deliver(
    rng: np.random.Generator, sends: _Sends, campaign: _Campaign, people: _People, leaving: _Leaving
) -> tuple[_Sends, list[Rows]]:
    """The mails that arrive, with ``hour`` moved to their arrival, and the program's own events."""
    later = sends.hour + _SECOND * (1 + rng.exponential(6, len(sends.who)))
    gone = leaving.hour[sends.who] < sends.hour
    hard = rng.random(len(later)) < np.where(gone, 0.003, 0.0004)
    soft = ~hard & (rng.random(len(later)) < people.mailbox.soft_bounce_rate[sends.who])
    leaving.leave(sends.who[hard], later[hard], "hard_bounce", campaign.number)
    arrived = ~hard & ~soft
    return _Sends(sends.who, sends.slot, later, sends.is_random_hour).where(arrived), [
        _rows("sent", sends.who, sends.hour, is_random_hour=sends.is_random_hour),
        _rows("delivered", sends.who[arrived], later[arrived]),
        _rows("hard_bounce", sends.who[hard], later[hard]),
        _rows("soft_bounce", sends.who[soft], later[soft]),
    ]


def _prefetch(rng: np.random.Generator, delivered: _Sends, people: _People) -> list[Rows]:
    """Mail-privacy prefetch: seconds to an hour after arrival, whatever the person thinks of the mail; some disguised."""
    fetched = (people.mailbox.program[delivered.who] == _APPLE) & (rng.random(len(delivered.who)) < 0.95)
    who, hour = delivered.who[fetched], delivered.hour[fetched]
    delay = _SECOND * np.exp(rng.uniform(np.log(3), np.log(3600), len(who)))
    disguised = rng.random(len(who)) < _DISGUISED_PREFETCH_SHARE
    agent = np.where(disguised, _AGENTS.index(_APPLE_AGENT), _AGENTS.index(_PREFETCH_AGENT))
    own = np.where(rng.random(len(who)) < 0.5, _addresses(rng, "apple", len(who)), _addresses(rng, "relay", len(who)))
    hidden = disguised & (rng.random(len(who)) < 0.5)
    ip = np.where(hidden, _addresses(rng, "hidden", len(who)), own)
    return [_rows("open", who, hour + delay, agent=agent, ip=ip, is_human=False)]


def _scan(rng: np.random.Generator, delivered: _Sends, campaign: _Campaign, people: _People) -> list[Rows]:
    """Link scanners: one to five clicks within 1 to 8 seconds of arrival or minutes later, the unsubscribe link among them."""
    scanned = people.mailbox.is_scanned[delivered.who] & (rng.random(len(delivered.who)) < 0.3)
    mailbox, chosen = people.mailbox, delivered.who[scanned]
    times = np.where(mailbox.scans_one[chosen], 1, rng.integers(2, 6, size=len(chosen)))
    waits = np.where(mailbox.scans_slowly[chosen], _SECOND * rng.uniform(30, 900, len(chosen)), 0.0)
    who, hour = np.repeat(chosen, times), np.repeat(delivered.hour[scanned] + waits, times)
    category = campaign.categories[rng.integers(len(campaign.categories), size=len(who))]
    is_opt_out = rng.random(len(who)) < 0.15
    evidence: Mapping[str, Any] = {
        "agent": mailbox.scanner_agent[who],
        "ip": mailbox.scanner_ip[who],
        "is_human": False,
    }
    return [
        _rows(
            "click",
            who,
            hour + _SECOND * rng.uniform(1, 8, len(who)),
            content=np.where(is_opt_out, -1, category),
            url=np.where(is_opt_out, _UNSUBSCRIBE, _link(rng, category)),
            **evidence,
        )
    ]


def _link(rng: np.random.Generator, category: Integers) -> Integers:
    return category * _LINKS_PER_CATEGORY + rng.integers(_LINKS_PER_CATEGORY, size=len(category))


def _read(
    rng: np.random.Generator,
    delivered: _Sends,
    campaign: _Campaign,
    people: _People,
    leaving: _Leaving,
    clock: _Clock,
) -> list[Rows]:
    """What people do with a mail once they look at it."""
    present = delivered.where(leaving.hour[delivered.who] > delivered.hour)
    who, hour = _looked(rng, present, people, clock)
    open_tilt, click_tilt = _tilts(people, campaign, who)
    eager = _eagerness(people, leaving, who, hour)
    opens = rng.random(len(who)) < _chance(people.reader.open_rate[who] * eager * open_tilt)
    who, hour, click_tilt = who[opens], hour[opens], click_tilt[opens]
    clicks = rng.random(len(who)) < _chance(people.reader.click_rate[who] * click_tilt)
    _opt_out(rng, who, hour, np.where(clicks, 0.3, 1.0), campaign, leaving)
    return [
        *_open_rows(rng, who, hour, people),
        *_click_rows(rng, who[clicks], hour[clicks], campaign, people),
    ]


def _chance(value: Floats) -> Floats:
    return np.minimum(value, 0.95)


def _looked(rng: np.random.Generator, delivered: _Sends, people: _People, clock: _Clock) -> tuple[Integers, Floats]:
    """Who looks at the mail before it is stale, and when: the first arrival of a Poisson process with fading rate."""
    later = delivered.slot[:, None] + np.arange(HOURS_WAITED)
    local = clock.hour_of_week[people.zone[delivered.who][:, None], later]
    looks = people.rhythm.attention[delivered.who[:, None], local] * _look_weights()
    expected = np.cumsum(looks, axis=1)
    luck = rng.exponential(1, len(expected)).astype(np.float32)
    seen = np.flatnonzero(luck < expected[:, -1])
    luck, expected, looks = luck[seen], expected[seen], looks[seen]
    waited = (expected <= luck[:, None]).sum(axis=1)
    each = np.arange(len(seen))
    within = 1 - (expected[each, waited] - luck) / looks[each, waited]
    who, hour = delivered.who[seen], delivered.hour[seen]
    at_once = people.mailbox.is_quick[who] & (rng.random(len(who)) < 0.3)
    waited_for = np.where(at_once, _SECOND * rng.uniform(2, 60, len(who)), waited + np.clip(within, 0, 1))
    return who, hour + waited_for


def _opt_out(
    rng: np.random.Generator, who: Integers, hour: Floats, weight: Floats, campaign: _Campaign, leaving: _Leaving
) -> None:
    luck = rng.random(len(who)) / weight
    for by, low, high in (("unsubscribe", 0.0, 0.0030), ("complaint", 0.0030, 0.0034)):
        chosen = (luck >= low) & (luck < high)
        leaving.leave(who[chosen], hour[chosen] + 40 * _SECOND, by, campaign.number)


def _open_rows(rng: np.random.Generator, who: Integers, hour: Floats, people: _People) -> list[Rows]:
    """Opens that are noticed: behind a prefetch only some are. One in five is opened again on a later day."""
    program = people.mailbox.program[who]
    noticed = np.flatnonzero((program != _APPLE) | (rng.random(len(who)) < 0.5))
    again = noticed[rng.random(len(noticed)) < 0.2]
    days_later = 24.0 * rng.integers(1, 3, size=len(again)) + rng.normal(0, 0.5, len(again))
    chosen = np.concatenate([noticed, again])
    program, is_proxy = program[chosen], program[chosen] == _GMAIL
    own = np.where(program == _APPLE, _AGENTS.index(_APPLE_AGENT), people.mailbox.browser[who[chosen]])
    return [
        _rows(
            "open",
            who[chosen],
            np.concatenate([hour[noticed], hour[again] + days_later]),
            agent=np.where(is_proxy, _AGENTS.index(_PROXY_AGENT), own),
            ip=np.where(is_proxy, _addresses(rng, "proxy", len(chosen)), people.mailbox.ip[who[chosen]]),
        )
    ]


def _click_rows(
    rng: np.random.Generator, who: Integers, hour: Floats, campaign: _Campaign, people: _People
) -> list[Rows]:
    """One or two links, the page behind each, and now and then a purchase there."""
    times = 1 + (rng.random(len(who)) < 0.25)
    who, hour = np.repeat(who, times), np.repeat(hour, times)
    hour = hour + _SECOND * rng.uniform(5, 120, len(who))
    liking = people.reader.interests[who][:, campaign.categories] + 0.05
    category = campaign.categories[_picked(rng, liking)]
    url = _link(rng, category)
    own = _own(people, who)
    landed = rng.random(len(who)) < 0.7
    bought = landed & (rng.random(len(who)) < 0.06)
    landing = hour + _SECOND * rng.uniform(1, 6, len(who))
    browsing = _by_person(people, who[landed], landing[landed], category[landed], url[landed])
    return [
        _rows("click", who, hour, content=category, url=url, **own),
        browsing,
        _purchases(rng, who[bought], landing[bought] + 0.1, category[bought], people),
    ]


def _picked(rng: np.random.Generator, weights: Floats) -> Integers:
    """One column for each row of ``weights``, by weight."""
    bounds = np.cumsum(weights, axis=1)
    picked: Integers = (bounds < bounds[:, -1:] * rng.random((len(weights), 1))).sum(axis=1)
    return picked


def _own(people: _People, who: Integers) -> dict[str, Integers]:
    return {"agent": people.mailbox.browser[who], "ip": people.mailbox.ip[who]}


def _by_person(people: _People, who: Integers, hour: Floats, category: Integers, url: Integers) -> Rows:
    return _rows("page_view", who, hour, content=category, url=url, **_own(people, who))


def _purchases(rng: np.random.Generator, who: Integers, hour: Floats, category: Integers, people: _People) -> Rows:
    value = np.round(np.exp(rng.normal(3.7, 0.6, len(who))), 2)
    return _rows("purchase", who, hour, content=category, value=value, url=_CHECKOUT, **_own(people, who))


def _rows(kind: str, who: Integers, hour: Floats, **columns: Any) -> Rows:
    """Events of one kind. What is not given is missing; ``is_human`` is true unless the program itself does it."""
    rows = np.zeros(len(who), dtype=_EVENT)
    rows["subscriber"], rows["hour"], rows["kind"] = who, hour, EVENT_TYPES.index(kind)
    for column in ("campaign", "content", "agent", "ip", "url", "is_random_hour"):
        rows[column] = -1
    rows["value"] = np.nan
    rows["is_human"] = kind not in _PROGRAM_TYPES
    for column, values in columns.items():
        rows[column] = values
    return rows


# --- what people do unasked -------------------------------------------------------------------------------------------


def _unasked(rng: np.random.Generator, people: _People, leaving: _Leaving, clock: _Clock) -> list[Rows]:
    return [
        *_joining(rng, people),
        *_visits(rng, *_ordinary_visits(rng, people, leaving, clock), people, is_curious=False),
        *_visits(rng, *_curious_visits(rng, people, leaving, clock), people, is_curious=True),
        _conversions(rng, people),
        *_opt_out_rows(leaving, people, clock),
    ]


def _joining(rng: np.random.Generator, people: _People) -> list[Rows]:
    who = np.flatnonzero(people.created_hour >= 0)
    forms = who[rng.random(len(who)) < 0.4]
    shortly_after = people.created_hour[forms] + 2 * _SECOND
    return [
        _rows("subscribe", who, people.created_hour[who], url=_SIGNUP, **_own(people, who)),
        _rows("form_submit", forms, shortly_after, url=_SIGNUP, **_own(people, forms)),
    ]


def _ordinary_visits(
    rng: np.random.Generator, people: _People, leaving: _Leaving, clock: _Clock
) -> tuple[Integers, Floats]:
    """Sessions over the whole log, thinned by how eager the person still is."""
    begin = np.maximum(people.created_hour, 0)
    sessions = rng.poisson(people.reader.visits_per_day * (clock.end - begin) / _DAY)
    who = np.repeat(np.arange(len(people)), sessions)
    return _thinned(rng, who, begin[who], np.full(len(who), clock.end), people, leaving, clock)


def _curious_visits(
    rng: np.random.Generator, people: _People, leaving: _Leaving, clock: _Clock
) -> tuple[Integers, Floats]:
    """A flurry in the three weeks before somebody converts, or does not after all."""
    until = np.minimum(people.lead.curious_hour, clock.end)
    begin = np.maximum(np.maximum(people.created_hour, 0), people.lead.curious_hour - 21 * _DAY)
    about = np.flatnonzero(begin < until)
    who = np.repeat(about, rng.poisson(2.2, len(about)))
    return _thinned(rng, who, begin[who], until[who], people, leaving, clock)


def _thinned(
    rng: np.random.Generator,
    who: Integers,
    begin: Floats,
    until: Floats,
    people: _People,
    leaving: _Leaving,
    clock: _Clock,
) -> tuple[Integers, Floats]:
    hour = _attended(rng, people.rhythm.attention[who], people.zone[who], begin, until, clock)
    kept = rng.random(len(who)) < _eagerness(people, leaving, who, hour)
    return who[kept], hour[kept]


def _visits(rng: np.random.Generator, who: Integers, hour: Floats, people: _People, is_curious: bool) -> list[Rows]:
    """Pages, and at the end of some sessions a form or a purchase."""
    pages = rng.geometric(0.45, len(who))
    viewer, category = np.repeat(who, pages), _picked(rng, people.reader.interests[np.repeat(who, pages)])
    if is_curious:
        category = np.where(rng.random(len(viewer)) < 0.35, CATEGORIES.index("pricing"), category)
    nth = np.arange(len(viewer)) - np.repeat(np.cumsum(pages) - pages, pages)
    at = np.repeat(hour, pages) + _SECOND * (90 * nth + rng.uniform(0, 60, len(viewer)))
    ending = hour + _SECOND * (90 * pages + rng.uniform(5, 90, len(who)))
    asks = rng.random(len(who)) < (0.18 if is_curious else 0.03)
    buys = ~asks & (rng.random(len(who)) < 0.05)
    liked = category[np.cumsum(pages) - 1]
    return [
        _by_person(people, viewer, at, category, _link(rng, category)),
        _rows("form_submit", who[asks], ending[asks], content=liked[asks], url=_CONTACT, **_own(people, who[asks])),
        _purchases(rng, who[buys], ending[buys], liked[buys], people),
    ]


def _conversions(rng: np.random.Generator, people: _People) -> Rows:
    who = np.flatnonzero(np.isfinite(people.lead.converts_hour))
    value = np.round(np.exp(rng.normal(6.8, 0.7, len(who))), 2)
    return _rows("conversion", who, people.lead.converts_hour[who], value=value, url=_CHECKOUT, **_own(people, who))


def _opt_out_rows(leaving: _Leaving, people: _People, clock: _Clock) -> list[Rows]:
    blocks = []
    for kind, url in (("unsubscribe", _UNSUBSCRIBE), ("complaint", -1)):
        who = np.flatnonzero((leaving.by == LEFT_BY.index(kind)) & (leaving.hour < clock.end))
        own = _own(people, who) if kind == "unsubscribe" else {}
        blocks.append(_rows(kind, who, leaving.hour[who], campaign=leaving.campaign[who], url=url, **own))
    return blocks


# --- from events to tables --------------------------------------------------------------------------------------------


def _as_received(
    rng: np.random.Generator, blocks: Sequence[Rows], people: _People, leaving: _Leaving, clock: _Clock
) -> Rows:
    """Everything that happened and was learnt of within the log; nothing human after somebody left."""
    rows = np.concatenate(blocks)
    who, hour = rows["subscriber"], rows["hour"]
    is_refused_open = (rows["kind"] == EVENT_TYPES.index("open")) & (people.mailbox.allows_open_tracking[who] == 0)
    delay = _SECOND * (0.05 + rng.exponential(2, len(rows)))
    late = rng.uniform(0.5, 72, len(rows))
    is_scan = (rows["kind"] == EVENT_TYPES.index("click")) & ~rows["is_human"]
    rows["received"] = hour + np.where(
        rng.random(len(rows)) < np.where(is_scan, _LATE_SCAN_SHARE, _LATE_SHARE), late, delay
    )
    kept = (hour >= 0) & (rows["received"] < clock.end) & ~is_refused_open
    received: Rows = rows[kept & (~rows["is_human"] | (hour <= leaving.hour[who]))]
    return received


def _tables(
    rng: np.random.Generator,
    rows: Rows,
    people: _People,
    leaving: _Leaving,
    campaigns: Sequence[_Campaign],
    clock: _Clock,
    call: str,
) -> Simulation:
    numbers = rng.permutation(len(rows))
    repeated = rng.choice(len(rows), size=int(len(rows) * _DUPLICATE_SHARE), replace=False)
    order = rng.permutation(np.concatenate([np.arange(len(rows)), repeated]))
    origin = {"origin": f"SIMULATED by {call}"}
    lexicon = _lexicon(campaigns)
    events = _batched(order, lambda part: _event_columns(rows[part], numbers[part], len(people), lexicon))
    by_number = np.argsort(numbers)
    truth_events = _batched(by_number, lambda part: _truth_event_columns(rows[part], numbers[part]))
    return Simulation(
        events=events.select(RAW_EVENT_COLUMNS).replace_schema_metadata(origin),
        subscribers=pa.table(_subscriber_columns(people), metadata=origin),
        campaigns=pa.table(_campaign_columns(campaigns, clock), metadata=origin),
        truth_subscribers=pa.table(_truth_columns(people, leaving, campaigns, clock), metadata=origin),
        truth_events=truth_events.replace_schema_metadata(origin),
        call=call,
    )


def _batched(order: Integers, columns: Callable[[Integers], dict[str, pa.Array]]) -> pa.Table:
    """A table in chunks: Arrow's string arrays end at 2 GiB each."""
    parts = range(0, max(len(order), 1), _ROWS_PER_BATCH)
    batches = [pa.RecordBatch.from_pydict(columns(order[low : low + _ROWS_PER_BATCH])) for low in parts]
    return pa.Table.from_batches(batches)


def _lexicon(campaigns: Sequence[_Campaign]) -> dict[str, pa.Array]:
    """What the codes of the event rows stand for."""
    contents = [[name] for name in CATEGORIES] + [_content(campaign) for campaign in campaigns]
    return {
        "event_type": pa.array(EVENT_TYPES),
        "campaign_id": pa.array([_campaign_id(campaign) for campaign in campaigns], pa.string()),
        "content": pa.array(contents, pa.list_(pa.string())),
        "user_agent": pa.array(_AGENTS),
        "ip": pa.array(_ADDRESSES),
        "url": pa.array(_URLS),
    }


def _content(campaign: _Campaign) -> list[str]:
    return [CATEGORIES[category] for category in campaign.categories]


def _campaign_id(campaign: _Campaign) -> str:
    return f"c{campaign.number + 1:03d}"


def _event_columns(rows: Rows, numbers: Integers, people: int, lexicon: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    codes = {"event_type": "kind", "campaign_id": "campaign", "content": "content", "user_agent": "agent"}
    codes |= {"ip": "ip", "url": "url"}
    return {
        "event_id": _event_ids(numbers),
        "subscriber_id": _subscriber_ids(rows["subscriber"], people),
        "occurred_at": _stamps(rows["hour"]),
        "received_at": _stamps(rows["received"]),
        "value": pa.array(rows["value"], from_pandas=True),
        **{column: _decoded(lexicon[column], rows[code]) for column, code in codes.items()},
    }


def _truth_event_columns(rows: Rows, numbers: Integers) -> dict[str, pa.Array]:
    at_random = rows["is_random_hour"]
    return {
        "event_id": _event_ids(numbers),
        "is_human": pa.array(rows["is_human"]),
        "is_random_hour": pa.array(at_random == 1, mask=at_random < 0),
    }


def _event_ids(numbers: Integers) -> pa.Array:
    return _numbered("e", numbers, 10)


def _subscriber_ids(numbers: Integers, people: int) -> pa.Array:
    return _numbered("s", numbers, max(6, len(str(people - 1))))


def _numbered(prefix: str, numbers: Integers, width: int) -> pa.Array:
    """Strings such as s000017, all of one length: their digits are written straight into Arrow's buffer."""
    text = np.empty((len(numbers), width + 1), dtype=np.uint8)
    text[:, 0] = ord(prefix)
    rest = numbers.astype(np.int64)
    for column in range(width, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, column] = digit + ord("0")
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * (width + 1)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _stamps(hours: Floats) -> pa.Array:
    """Whole microseconds since 1970; not finite is null."""
    finite = np.isfinite(hours)
    at = _START_AT + np.rint(np.where(finite, hours, 0) * _MICROSECONDS_PER_HOUR).astype(np.int64)
    return pa.array(at, mask=~finite).view(UTC_MICROSECONDS)


def _decoded(words: pa.Array, codes: Integers) -> pa.Array:
    return words.take(pa.array(codes, mask=codes < 0))


def _worded(words: Iterable[str], codes: Integers) -> pa.Array:
    return _decoded(pa.array(list(words), pa.string()), codes)


def _named(choices: _Choices, codes: Integers) -> pa.Array:
    return _worded((name for name, _, _ in choices), codes)


def _subscriber_columns(people: _People) -> dict[str, pa.Array]:
    lead, mailbox = people.lead, people.mailbox
    return {
        "subscriber_id": _subscriber_ids(np.arange(len(people)), len(people)),
        "created_at": _stamps(people.created_hour),
        "timezone": _worded((*_ZONE_NAMES, *_UNKNOWN_ZONES), people.recorded_zone),
        "consent_profiling": _consent(mailbox.allows_profiling),
        "consent_open_tracking": _consent(mailbox.allows_open_tracking),
        "industry": _named(_INDUSTRIES, lead.industry),
        "company_size": pa.array(lead.company_size, from_pandas=True),
        "job_title": _named(_JOB_TITLES, lead.job_title),
        "country": _worded((country for _, country, _ in _ZONES), people.zone),
        "source": _named(_SOURCES, lead.source),
        "plan": _named(_PLANS, lead.plan),
    }


def _consent(answers: Integers) -> pa.Array:
    """0 no, 1 yes, 2 not asked."""
    return pa.array(answers == 1, mask=answers == 2)


def _campaign_columns(campaigns: Sequence[_Campaign], clock: _Clock) -> dict[str, pa.Array]:
    first = np.array([_default_slots(campaign, clock).min() for campaign in campaigns], dtype=np.float64)
    subjects = [f"Simulated {c.kind} {c.number + 1}: {', '.join(_content(c))}" for c in campaigns]
    return {
        "campaign_id": pa.array([_campaign_id(campaign) for campaign in campaigns], pa.string()),
        "sent_at": _stamps(first),
        "subject": pa.array(subjects, pa.string()),
        "content": pa.array([_content(campaign) for campaign in campaigns], pa.list_(pa.string())),
        "kind": pa.array([campaign.kind for campaign in campaigns], pa.string()),
        "schedule": pa.array(["local" if campaign.is_local else "utc" for campaign in campaigns], pa.string()),
    }


def _truth_columns(
    people: _People, leaving: _Leaving, campaigns: Sequence[_Campaign], clock: _Clock
) -> dict[str, pa.Array]:
    left = leaving.hour < clock.end
    profile = people.rhythm.seen * _click_level(people, leaving, campaigns, clock)[:, None]
    interests = people.reader.interests.T
    return {
        "subscriber_id": _subscriber_ids(np.arange(len(people)), len(people)),
        "timezone": _worded(_ZONE_NAMES, people.zone),
        "archetype": _worded(ARCHETYPES, people.rhythm.archetype),
        "best_hour_of_week": pa.array(people.rhythm.seen.argmax(axis=1).astype(np.int32)),
        "click_probability": _lists(profile),
        **{f"interest_{name}": pa.array(weight) for name, weight in zip(CATEGORIES, interests, strict=True)},
        "base_open_rate": pa.array(people.reader.open_rate),
        "base_click_rate": pa.array(people.reader.click_rate),
        "churned_at": _stamps(np.where(left, leaving.hour, np.nan)),
        "left_by": _worded(LEFT_BY, np.where(left, leaving.by, -1)),
        "is_prefetching": pa.array(people.mailbox.program == _APPLE),
        "is_scanned": pa.array(people.mailbox.is_scanned),
        "conversion_propensity": pa.array(people.lead.propensity),
    }


def _click_level(people: _People, leaving: _Leaving, campaigns: Sequence[_Campaign], clock: _Clock) -> Floats:
    """Chance of a click once a mail is looked at: averaged over the campaigns, halfway through a person's time here."""
    everybody = np.arange(len(people))
    begin, until = np.maximum(people.created_hour, 0), np.clip(leaving.hour, 0, clock.end)
    worn = _worn(people, everybody, np.maximum(begin, (begin + until) / 2))
    level = np.zeros(len(people))
    for campaign in campaigns:
        open_tilt, click_tilt = _tilts(people, campaign, everybody)
        level += _chance(people.reader.open_rate * worn * open_tilt) * _chance(people.reader.click_rate * click_tilt)
    return level / max(len(campaigns), 1)


def _lists(values: Floats) -> pa.Array:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
