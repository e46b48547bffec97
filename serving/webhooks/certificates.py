"""The certificates that SNS signs with.

What enters: addresses that messages name. What leaves: public keys. The promise: only SNS's own hosts are ever asked, over
https, within a deadline, for a few kilobytes, seldom; and a certificate counts only between its dates.

Who trusts whom: a message names its certificate; that it is SNS's follows from the host it was fetched from, which TLS
proves. Where the service may not call out, the certificates lie in a directory under their own names, and the directory is
what is trusted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from features.errors import EventsNotTaken, Overloaded, UntrustedEvents

Fetch = Callable[[str], bytes]
"""Gets an address that was found to be SNS's, or raises as ``fetch`` does."""

KEPT = 32
"""Certificates in memory: a year's of a few regions."""
FETCHES_PER_MINUTE = 30
"""More than that are a forger's inventions; so many that a real one has its chance among them."""
NOT_THERE_FOR_S = 600.0
"""So long nobody asks again for what was not there or was no certificate."""
MOST_NOT_THERE = 1_024
FETCH_WITHIN_S = 3.0
LARGEST_ANSWER = 64 * 1024
_MINUTE_S = 60.0
_SMALLEST_KEY = 2048

_HOST = re.compile(r"sns\.[a-z]{2}(-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com(\.cn)?")
_PEM = re.compile(r"/(SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem)")


class CertificateWanted(Exception):
    """A certificate has to be fetched first, by whoever may wait. Never leaves ``serving.webhooks``."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__("a certificate has to be fetched")


def is_sns(url: str) -> bool:
    """Whether an address is on a host of SNS, over https, with nothing odd about it.

    >>> is_sns("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription")
    True
    >>> is_sns("https://sns.eu-west-1.amazonaws.com.example.org/")
    False
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme == "https"
        and _HOST.fullmatch(parts.netloc) is not None
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and "\\" not in url
    )


def host_of(topic: str) -> str:
    """SNS's host in the region of a topic: it signs a topic's messages with a certificate from there.

    >>> host_of("arn:aws:sns:eu-west-1:123456789012:mail")
    'sns.eu-west-1.amazonaws.com'
    >>> host_of("arn:aws-cn:sns:cn-north-1:123456789012:mail")
    'sns.cn-north-1.amazonaws.com.cn'
    """
    _, partition, _, region, *_ = [*topic.split(":"), "", "", ""]
    return f"sns.{region}.amazonaws.com" + (".cn" if partition == "aws-cn" else "")


def certificate_name(url: str) -> str | None:
    """The file name in the address of a certificate of SNS; None of any other address."""
    parts = urlsplit(url) if is_sns(url) else None
    found = _PEM.fullmatch(parts.path) if parts and not parts.query and not parts.fragment else None
    return found[1] if found else None


def fetch(url: str) -> bytes:
    """Get an address within the deadline; redirects are not followed.

    Raises
    ------
    EventsNotTaken
        When it does not answer in time with something short.
    UntrustedEvents
        When there is nothing at that address.
    """
    give_up_at = monotonic() + FETCH_WITHIN_S
    body = bytearray()
    try:
        with httpx.stream("GET", url, timeout=FETCH_WITHIN_S, follow_redirects=False) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST_ANSWER or monotonic() > give_up_at:
                    raise EventsNotTaken("SNS did not answer in time")
    except httpx.HTTPError:
        raise EventsNotTaken("SNS could not be reached") from None
    if answer.is_server_error:
        raise EventsNotTaken("SNS could not answer")
    if answer.status_code != httpx.codes.OK:
        raise UntrustedEvents("ses", "foreign")
    return bytes(body)


@dataclass(frozen=True)
class Certificate:
    """A public key and when it counts, in seconds since 1970."""

    key: RSAPublicKey
    from_s: float
    until_s: float

    @staticmethod
    def read(pem: bytes) -> Certificate:
        """Read a certificate.

        Raises
        ------
        UntrustedEvents
            When it is none, or not with an RSA key of a decent length.
        """
        try:
            found = x509.load_pem_x509_certificate(pem)
            key = found.public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise UntrustedEvents("ses", "foreign") from None
        if not isinstance(key, RSAPublicKey) or key.key_size < _SMALLEST_KEY:
            raise UntrustedEvents("ses", "foreign")
        return Certificate(key, found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


class Certificates:
    """The certificates known so far.

    Parameters
    ----------
    directory
        Where they lie; nothing is fetched then.
    fetch
        How to get one otherwise.
    """

    def __init__(
        self, directory: Path | None = None, fetch: Fetch = fetch, now: Callable[[], float] = monotonic
    ) -> None:
        self._directory, self._fetch, self._now = directory, fetch, now
        self._known: OrderedDict[str, Certificate] = OrderedDict()
        self._not_there: OrderedDict[str, float] = OrderedDict()
        self._fetched_at: list[float] = []

    def find(self, url: str, now_s: float) -> RSAPublicKey:
        """The key of a certificate that counts at this moment.

        Raises
        ------
        CertificateWanted
            When it has to be fetched first.
        UntrustedEvents
            When the address is not SNS's, or the certificate does not count.
        """
        name = certificate_name(url)
        if name is None:
            raise UntrustedEvents("ses", "foreign")
        certificate = self._known.get(url) if self._directory is None else self._lying(self._directory / name)
        if certificate is None:
            self._check_not_missed(url)
            raise CertificateWanted(url)
        if not certificate.from_s <= now_s <= certificate.until_s:
            raise UntrustedEvents("ses", "foreign")
        return certificate.key

    def obtain(self, url: str) -> None:
        """Fetch a certificate and keep it, for the one oldest. Takes its time; for one thread.

        Raises
        ------
        EventsNotTaken, Overloaded
            When it could not be had now: the provider may try again.
        UntrustedEvents
            When what came is no certificate, now or a while ago.
        """
        if url in self._known:
            return
        self._check_not_missed(url)
        recent = [at for at in self._fetched_at if self._now() - at < _MINUTE_S]
        if len(recent) >= FETCHES_PER_MINUTE:
            raise Overloaded(ceil(_MINUTE_S))
        self._fetched_at = [*recent, self._now()]
        try:
            self._known[url] = Certificate.read(self._fetch(url))
        except UntrustedEvents:
            self._not_there[url] = self._now()
            while len(self._not_there) > MOST_NOT_THERE:
                self._not_there.popitem(last=False)
            raise
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def _check_not_missed(self, url: str) -> None:
        """A name that led nowhere is not tried again at once: it costs what others' certificates need."""
        missed_at = self._not_there.get(url)
        if missed_at is not None and self._now() - missed_at < NOT_THERE_FOR_S:
            raise UntrustedEvents("ses", "foreign")

    def visit(self, url: str) -> None:
        """Visit an address of SNS that confirms something.

        Raises
        ------
        EventsNotTaken
            When it could not be reached.
        """
        self._fetch(url)

    @staticmethod
    def _lying(path: Path) -> Certificate:
        try:
            return Certificate.read(path.read_bytes())
        except OSError:
            raise UntrustedEvents("ses", "foreign") from None


def seconds_of(timestamp: str) -> float:
    """SNS's way to write an instant, in seconds since 1970.

    Raises
    ------
    ValueError

    >>> seconds_of("2012-05-02T00:54:06.655Z")
    1335920046.655
    """
    return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
