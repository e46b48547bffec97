"""Ten thousand posts that no provider made: every one is refused, none gets into the inbox, and none is told to anybody."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.serving.posting import Answer, ask, inbox_rows, on_their_way, open_for_business
from tests.serving.senders import (
    MAILGUN_KEY,
    NOW_S,
    SECRETS,
    TOPIC,
    Post,
    basic,
    brevo,
    click,
    genuine,
    listed,
    mailgun,
    mailgun_open,
    mailjet,
    sendgrid,
    sendgrid_key,
    ses,
    ses_click,
    sns_key,
)
from tests.serving.stand_in import Front

CASES = 10_500
SEED = 20261123
LIMIT_BYTES = 8_000
PERSON = "zacharias.canary@example.org"
SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
STAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
TWO_DAYS_S = 172_800

Forge = Callable[[Random, int], Post]


def altered(random: Random, data: bytes) -> bytes:
    """Some bytes changed, removed, added or swapped."""
    before, data = data, bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        at = random.randrange(len(data))
        match random.randrange(4):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                del data[at]
            case 2:
                data.insert(at, random.randrange(256))
            case _:
                other = random.randrange(len(data))
                data[at], data[other] = data[other], data[at]
    # Two bytes that are the same may have been swapped.
    return bytes(data) if data != before else before[:-1]


def altered_text(random: Random, text: str) -> str:
    """Another text, printable, for headers."""
    other = text
    while other == text:
        at = random.randrange(len(text))
        other = text[:at] + random.choice("AZaz09+/=-_ .") * random.randrange(3) + text[at + random.randrange(1, 3) :]
    return other


ODD = ("\ud800", "\udfff", "\udc00\ud800", "\u0661", "\u00b9", "\u212a", "\u202e", "\ufeff", "\x00", "\U0001f600")


def odd_text(random: Random, text: str) -> str:
    """Half a surrogate pair, digits of other scripts, letters that look like others: beside the text, or for some of it."""
    at, gone = random.randrange(len(text) + 1), random.randrange(2)
    odd = random.choice(ODD)
    return random.choice((odd, odd * len(text), text[:at] + odd + text[at + gone :]))


def odd_headers(random: Random, number: int) -> Post:
    """Bytes beyond ASCII in each header that says who sent it."""
    good = random.choice([post for post in genuine(number, PERSON) if post.headers])
    name = random.choice([name for name in good.headers if name not in ("content-type", "x-amz-sns-message-id")])
    at = random.randrange(len(good.headers[name]))
    odd = random.choice(("\xb9", "\xed\xa0\x80", "\xff", "\xc3\xa9", "\x85"))
    return replace(good, headers={**good.headers, name: good.headers[name][:at] + odd + good.headers[name][at + 1 :]})


# --- SendGrid


def sendgrid_body_altered(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    return replace(good, body=altered(random, good.body))


def sendgrid_body_cut(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    return replace(good, body=good.body[: random.randrange(len(good.body))])


def sendgrid_body_written_anew(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    return replace(good, body=json.dumps(json.loads(good.body), indent=random.randrange(1, 5)).encode())


def sendgrid_signature_altered(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    return replace(good, headers={**good.headers, SIGNATURE: altered_text(random, good.headers[SIGNATURE])})


def sendgrid_other_key(random: Random, number: int) -> Post:
    return sendgrid(listed([click(number, PERSON)]), sendgrid_key("forger"))


def sendgrid_old_or_ahead(random: Random, number: int) -> Post:
    age_s = random.choice((random.uniform(TWO_DAYS_S + 2, 1e9), -random.uniform(602, 1e8)))
    return sendgrid(listed([click(number, PERSON)]), signed_s=NOW_S - age_s)


def sendgrid_timestamp_altered(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    return replace(good, headers={**good.headers, STAMP: f"{NOW_S - random.randrange(1, 3_000):.0f}"})


def sendgrid_header_missing(random: Random, number: int) -> Post:
    good = sendgrid(listed([click(number, PERSON)]))
    kept = random.choice((SIGNATURE, STAMP, ""))
    return replace(good, headers={name: value for name, value in good.headers.items() if name == kept})


def sendgrid_of_another_body(random: Random, number: int) -> Post:
    return replace(sendgrid(listed([click(number, PERSON)])), body=listed([click(number + 1, PERSON)]))


# --- Mailgun


def mailgun_signature_altered(random: Random, number: int) -> Post:
    good = mailgun(mailgun_open(number, PERSON), f"{number:050}")
    said = json.loads(good.body)
    name = random.choice(("timestamp", "token", "signature"))
    said["signature"][name] = altered_text(random, said["signature"][name])
    if said["signature"] == json.loads(good.body)["signature"]:
        said["signature"] = None
    return replace(good, body=json.dumps(said).encode())


def mailgun_other_key(random: Random, number: int) -> Post:
    return mailgun(mailgun_open(number, PERSON), f"{number:050}", key=altered_text(random, MAILGUN_KEY) + "x")


def mailgun_old_or_ahead(random: Random, number: int) -> Post:
    age_s = random.choice((random.uniform(TWO_DAYS_S + 2, 1e9), -random.uniform(602, 1e8)))
    return mailgun(mailgun_open(number, PERSON), f"{number:050}", signed_s=NOW_S - age_s)


def mailgun_cut(random: Random, number: int) -> Post:
    good = mailgun(mailgun_open(number, PERSON), f"{number:050}")
    return replace(good, body=good.body[: random.randrange(len(good.body))])


def mailgun_of_any_shape(random: Random, number: int) -> Post:
    shapes = (None, [], 7, "text", True, {"deep": [[[]]]}, 1e308, -1, "", "\ud800", "9" * 5_000)
    block = {name: random.choice(shapes) for name in ("timestamp", "token", "signature", "parent-signature")}
    body = {"signature": random.choice((block, random.choice(shapes))), "event-data": mailgun_open(number, PERSON)}
    return Post("mailgun", json.dumps(random.choice((body, [body], body["signature"]))).encode())


def mailgun_replayed(random: Random, number: int) -> Post:
    """A signature that was seen, with another body; ``USED`` was delivered before."""
    said = json.loads(USED.body)
    said["event-data"] = mailgun_open(number, PERSON)
    return replace(USED, body=json.dumps(said).encode())


def mailgun_odd_text(random: Random, number: int) -> Post:
    """Everything else in the block is as Mailgun made it."""
    good = mailgun(mailgun_open(number, PERSON), f"{number:050}")
    said = json.loads(good.body)
    name = random.choice(("timestamp", "token", "signature"))
    said["signature"][name] = odd_text(random, said["signature"][name])
    return replace(good, body=json.dumps(said, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass"))


# --- SES


def ses_odd_text(random: Random, number: int) -> Post:
    good = ses(ses_click(number, PERSON))
    said = json.loads(good.body)
    name = random.choice(sorted(said))
    said[name] = odd_text(random, said[name])
    return replace(good, body=json.dumps(said, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass"))


def ses_field_altered(random: Random, number: int) -> Post:
    good = ses(ses_click(number, PERSON))
    said = json.loads(good.body)
    name = random.choice(sorted(said))
    said[name] = random.choice((altered_text(random, said[name]), None, 7, [said[name]], said[name] + "\n", ""))
    if said == json.loads(good.body):
        del said[name]
    return replace(good, body=json.dumps(said).encode())


def ses_cut(random: Random, number: int) -> Post:
    good = ses(ses_click(number, PERSON))
    return replace(good, body=good.body[: random.randrange(len(good.body))])


def ses_other_key(random: Random, number: int) -> Post:
    return ses(ses_click(number, PERSON), sns_key("forger"))


def ses_other_topic(random: Random, number: int) -> Post:
    return ses(ses_click(number, PERSON), topic=altered_text(random, TOPIC) + "x")


def ses_headers_altered(random: Random, number: int) -> Post:
    good = ses(ses_click(number, PERSON))
    name = random.choice(("x-amz-sns-message-type", "x-amz-sns-topic-arn"))
    return replace(good, headers={**good.headers, name: altered_text(random, good.headers[name]) + "x"})


def ses_old_or_ahead(random: Random, number: int) -> Post:
    age_s = random.choice((random.uniform(TWO_DAYS_S + 2, 1e9), -random.uniform(602, 1e8)))
    return ses(ses_click(number, PERSON), signed_s=NOW_S - age_s)


def ses_sha1(random: Random, number: int) -> Post:
    return ses(ses_click(number, PERSON), version="1", SignatureVersion=random.choice(("1", "2", "02", "3", None)))


def ses_certificate_from_elsewhere(random: Random, number: int) -> Post:
    hosts = (
        "example.org",
        "sns.eu-west-1.amazonaws.com.example.org",
        "sns.amazonaws.com",
        "127.0.0.1",
        "s3.amazonaws.com",
    )
    file = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
    url = f"{random.choice(('https', 'http', 'file', 'ftp'))}://{random.choice(hosts)}/{file}"
    return ses(ses_click(number, PERSON), SigningCertURL=url)


def ses_subscription_forged(random: Random, number: int) -> Post:
    good = ses("You have chosen", kind="SubscriptionConfirmation")
    said = json.loads(good.body)
    said[random.choice(("SubscribeURL", "Token", "Message"))] += random.choice(("x", "&Token=1", "\n"))
    return replace(good, body=json.dumps(said).encode())


# --- Postmark, Brevo, Mailjet


def secret_altered(random: Random, number: int) -> Post:
    good = random.choice(
        [post for post in genuine(number, PERSON) if post.provider in ("postmark", "brevo", "mailjet")]
    )
    value = good.headers["Authorization"]
    forged = altered_text(random, value)
    return replace(good, headers={"Authorization": forged if forged.split() != value.split() else "Basic"})


def secret_of_another(random: Random, number: int) -> Post:
    theirs = {
        "postmark": basic("mailjet", "open:sesame"),
        "brevo": basic("postmark", "correct-horse"),
        "mailjet": {"Authorization": "Bearer brevo-token-123"},
    }
    provider = random.choice(sorted(theirs))
    body = next(post.body for post in genuine(number, PERSON) if post.provider == provider)
    return Post(provider, body, theirs[provider])


def secret_guessed(random: Random, number: int) -> Post:
    guess = base64.b64encode(random.randbytes(random.randrange(40))).decode()
    headers = random.choice(
        (
            {"Authorization": f"Basic {guess}"},
            {"Authorization": f"Bearer {guess}"},
            {"Authorization": guess},
            {"X-Webhook-Secret": guess},
            basic("postmark", guess),
            {},
        )
    )
    provider = random.choice(("postmark", "brevo", "mailjet"))
    return Post(provider, next(post.body for post in genuine(number, PERSON) if post.provider == provider), headers)


# --- of any provider


def large(random: Random, number: int) -> Post:
    """Signed as it should be, and too large."""
    padding = b" " * random.randrange(LIMIT_BYTES, LIMIT_BYTES * 2)
    post = random.choice((sendgrid, brevo, mailjet))(listed([click(number, PERSON)]) + padding)
    return post if random.random() < 0.5 else replace(post, headers={**post.headers, "content-length": "10"})


def of_another_form(random: Random, number: int) -> Post:
    good = random.choice(genuine(number, PERSON))
    forms = ("text/html", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "", "json")
    change = random.choice(
        ({"content-type": random.choice(forms)}, {"content-encoding": random.choice(("gzip", "br"))})
    )
    return replace(good, headers={**good.headers, **change})


def to_another_door(random: Random, number: int) -> Post:
    good = random.choice(genuine(number, PERSON))
    others = {"sendgrid", "mailgun", "ses", "postmark", "brevo", "mailjet"} - {good.provider}
    if good.provider == "mailgun":
        others |= {"mailgun/", "Mailgun"}
    return replace(good, provider=random.choice(sorted(others)))


def to_nobody(random: Random, number: int) -> Post:
    names = ("", "sparkpost", PERSON, "../scores", "sendgrid%00", "sendgrid/x", "SENDGRID", "own", "\u00e9")
    return replace(random.choice(genuine(number, PERSON)), provider=random.choice(names))


def noise(random: Random, number: int) -> Post:
    good = random.choice(genuine(number, PERSON))
    return Post(good.provider, PERSON.encode() + random.randbytes(random.randrange(300)))


FORGERS: tuple[Forge, ...] = (
    sendgrid_body_altered,
    sendgrid_body_cut,
    sendgrid_body_written_anew,
    sendgrid_signature_altered,
    sendgrid_other_key,
    sendgrid_old_or_ahead,
    sendgrid_timestamp_altered,
    sendgrid_header_missing,
    sendgrid_of_another_body,
    mailgun_signature_altered,
    mailgun_other_key,
    mailgun_old_or_ahead,
    mailgun_cut,
    mailgun_of_any_shape,
    mailgun_replayed,
    mailgun_odd_text,
    ses_odd_text,
    odd_headers,
    ses_field_altered,
    ses_cut,
    ses_other_key,
    ses_other_topic,
    ses_headers_altered,
    ses_old_or_ahead,
    ses_sha1,
    ses_certificate_from_elsewhere,
    ses_subscription_forged,
    secret_altered,
    secret_of_another,
    secret_guessed,
    large,
    of_another_form,
    to_another_door,
    to_nobody,
    noise,
)
USED = mailgun(mailgun_open(0), "f" * 50)
EXPECTED = {400, 401, 404, 405, 409, 413, 415, 429}


def forgeries() -> Iterator[tuple[str, Post, Random]]:
    """One of each kind, again and again."""
    random = Random(SEED)
    for number in range(1, CASES + 1):
        forge = FORGERS[number % len(FORGERS)]
        yield forge.__name__, forge(random, number), random


async def delivered_forged(behind: Front) -> tuple[Counter[tuple[str, int]], list[Answer]]:
    seen: Counter[tuple[str, int]] = Counter()
    answers = []
    assert (await ask(behind.guard, USED.path, USED.raw_headers, (USED.body,))).status == 200
    for name, post, random in forgeries():
        cut = random.randrange(len(post.body) + 1)
        answer = await ask(behind.guard, post.path, post.raw_headers, (post.body[:cut], post.body[cut:]))
        seen[name, answer.status] += 1
        answers.append(answer)
    return seen, answers


@pytest.mark.slow
def test_ten_thousand_forged_posts_are_refused_leave_nothing_and_are_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        open_for_business(tmp_path, webhook_limit_bytes=LIMIT_BYTES) as behind,
    ):
        seen, answers = asyncio.run(delivered_forged(behind))
        metrics = behind.guard.meters.to_text()
    assert seen.total() == CASES
    assert {case: count for case, count in seen.items() if case[1] not in EXPECTED} == {}
    assert {name for name, _ in seen} == {forge.__name__ for forge in FORGERS}
    assert len(inbox_rows(tmp_path)) == 1
    assert inbox_rows(tmp_path, "quarantined") == []
    assert len(inbox_rows(tmp_path, "tokens")) == 1
    assert on_their_way(behind) == (0, 0)
    assert {answer.headers[b"content-type"] for answer in answers} == {b"application/problem+json"}
    logged = "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.args}" for record in caplog.records)
    told = logged.encode() + b"".join(answer.body for answer in answers) + metrics
    for secret in ("canary", "zacharias", "anna@", "203.0.113.7", "shop.example", TOPIC, *SECRETS):
        assert secret.encode() not in told
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
