"""Each provider's own way to say who it is: what passes, and that nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from features.errors import EventsNotTaken, Overloaded, UntrustedEvents
from serving.settings import ServingSettings
from serving.webhooks.certificates import (
    FETCHES_PER_MINUTE,
    KEPT,
    LARGEST_ANSWER,
    MOST_NOT_THERE,
    NOT_THERE_FOR_S,
    Certificates,
    CertificateWanted,
    certificate_name,
    fetch,
    is_sns,
    seconds_of,
)
from serving.webhooks.door import Arrived, Door
from serving.webhooks.mailgun import MailgunDoor
from serving.webhooks.sendgrid import SendGridDoor, public_key
from serving.webhooks.shared_secret import SharedSecretDoor, credential
from serving.webhooks.sns import SnsDoor
from tests.serving.senders import (
    CERTIFICATE_URL,
    CONFIRM_URL,
    MAILGUN_KEY,
    NOW_S,
    PEM,
    SECRETS,
    TOPIC,
    Post,
    basic,
    click,
    configured,
    listed,
    mailgun,
    mailgun_open,
    sendgrid,
    sendgrid_key,
    ses,
    ses_click,
    shown,
    sns_key,
)

TWO_DAYS_S = 172_800.0


def arrived(post: Post, now_s: float = NOW_S) -> Arrived:
    return Arrived(dict(post.raw_headers), post.body, now_s)


def refusal(door: Door, post: Post, now_s: float = NOW_S) -> str:
    with pytest.raises(UntrustedEvents) as caught:
        door.check(arrived(post, now_s))
    return caught.value.reason


def changed(post: Post, body: bytes | None = None, **headers: str | None) -> Post:
    named = {name.lower(): value for name, value in post.headers.items()}
    for name, value in headers.items():
        if value is None:
            named.pop(name.replace("_", "-"))
        else:
            named[name.replace("_", "-")] = value
    return Post(post.provider, post.body if body is None else body, named)


# --- SendGrid

PUBLISHED_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe6"
    "2gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
)
PUBLISHED_SIGNATURE = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
PUBLISHED_BODY = (
    b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
    b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
    b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
    b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n'
)
SIGNATURE, TIMESTAMP = "x_twilio_email_event_webhook_signature", "x_twilio_email_event_webhook_timestamp"


@pytest.fixture
def sendgrid_door() -> SendGridDoor:
    return SendGridDoor([sendgrid_key("old").public_key(), sendgrid_key().public_key()], TWO_DAYS_S)


def test_the_example_that_sendgrid_publishes_passes_to_the_byte() -> None:
    door = SendGridDoor([public_key(PUBLISHED_KEY)], TWO_DAYS_S)
    headers = {SIGNATURE.replace("_", "-"): PUBLISHED_SIGNATURE, TIMESTAMP.replace("_", "-"): "1600112502"}
    post = Post("sendgrid", PUBLISHED_BODY, headers)
    assert door.check(arrived(post, 1600112502)).body == PUBLISHED_BODY
    assert refusal(door, changed(post, PUBLISHED_BODY.rstrip()), 1600112502) == "forged"
    written_anew = json.dumps(json.loads(PUBLISHED_BODY)).encode()
    assert refusal(door, changed(post, written_anew), 1600112502) == "forged"
    assert refusal(door, changed(post, **{TIMESTAMP: "1600112503"}), 1600112502) == "forged"


def test_the_old_and_the_new_key_are_good_while_keys_are_changed(sendgrid_door: SendGridDoor) -> None:
    body = listed([click()])
    for name in ("old", "own"):
        assert sendgrid_door.check(arrived(sendgrid(body, sendgrid_key(name)))).body == body
    assert refusal(sendgrid_door, sendgrid(body, sendgrid_key("somebody's"))) == "forged"


def test_a_signature_is_written_in_one_way_only(sendgrid_door: SendGridDoor) -> None:
    """Base64 leaves some bits over: with others there, it would be the same signature written differently."""
    for number in range(40):
        post = sendgrid(listed([click(number)]))
        text = post.headers["X-Twilio-Email-Event-Webhook-Signature"]
        if text.endswith("="):
            bare = text.rstrip("=")
            other = bare[:-1] + chr(ord(bare[-1]) + 1) + text[len(bare) :]
            assert refusal(sendgrid_door, changed(post, **{SIGNATURE: other})) == "forged"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({SIGNATURE: None}, "unsigned"),
        ({SIGNATURE: ""}, "unsigned"),
        ({SIGNATURE: "A" * 1_000}, "unsigned"),
        ({SIGNATURE: "not base64!"}, "forged"),
        ({SIGNATURE: "MEUCIQ=="}, "forged"),
        ({SIGNATURE: "MEUCIR=="}, "forged"),
        ({TIMESTAMP: None}, "unsigned"),
        ({TIMESTAMP: "soon"}, "unsigned"),
        ({TIMESTAMP: "-179532810"}, "unsigned"),
        ({TIMESTAMP: f"{NOW_S:.0f}0"}, "unsigned"),
        ({TIMESTAMP: "\u00b9795328100"}, "unsigned"),
    ],
)
def test_without_a_whole_signature_sendgrid_is_not_read(
    sendgrid_door: SendGridDoor, change: dict[str, Any], reason: str
) -> None:
    assert refusal(sendgrid_door, changed(sendgrid(listed([click()])), **change)) == reason


@pytest.mark.parametrize(
    ("age_s", "passes"), [(0, True), (TWO_DAYS_S - 1, True), (TWO_DAYS_S + 1, False), (-599, True), (-601, False)]
)
def test_a_signature_counts_two_days_and_ten_minutes_ahead(
    sendgrid_door: SendGridDoor, age_s: float, passes: bool
) -> None:
    posts: list[tuple[Door, Post]] = [
        (sendgrid_door, sendgrid(listed([click()]), signed_s=NOW_S - age_s)),
        (MailgunDoor([MAILGUN_KEY], TWO_DAYS_S), mailgun(mailgun_open(), signed_s=NOW_S - age_s)),
        (sns_door(), ses(ses_click(), signed_s=NOW_S - age_s)),
    ]
    for door, post in posts:
        if passes:
            assert door.check(arrived(post)).body
        else:
            assert refusal(door, post) == "stale"


def test_digits_cannot_wander_between_timestamp_and_what_follows(sendgrid_door: SendGridDoor) -> None:
    """Both providers sign them without a mark between."""
    post = sendgrid(b"7" + listed([click()]))
    stamp = post.headers["X-Twilio-Email-Event-Webhook-Timestamp"]
    assert refusal(sendgrid_door, changed(post, post.body[1:], **{TIMESTAMP: stamp + "7"})) == "unsigned"
    door = MailgunDoor([MAILGUN_KEY], TWO_DAYS_S)
    token, stamp = "7" + "a" * 49, f"{NOW_S:.0f}"
    assert door.check(arrived(mailgun(mailgun_open(), token))).token == token
    block = json.loads(mailgun(mailgun_open(), token).body)["signature"]
    for moved in (
        {"timestamp": stamp + "7", "token": token[1:]},
        {"timestamp": stamp[:-1], "token": stamp[-1] + token},
    ):
        assert refusal(door, mailgun(mailgun_open(), **(block | moved))) == "unsigned"


# --- Mailgun


@pytest.fixture
def mailgun_door() -> MailgunDoor:
    return MailgunDoor(["an-older-key", MAILGUN_KEY], TWO_DAYS_S)


def test_mailguns_signature_passes_and_brings_its_token(mailgun_door: MailgunDoor) -> None:
    for key in ("an-older-key", MAILGUN_KEY):
        trusted = mailgun_door.check(arrived(mailgun(mailgun_open(), "b" * 50, key)))
        assert trusted.token == "b" * 50
    number = mailgun(mailgun_open(), timestamp=int(NOW_S))
    assert mailgun_door.check(arrived(number)).token
    assert refusal(mailgun_door, mailgun(mailgun_open(), key="somebody's")) == "forged"


def test_of_a_subaccount_the_parents_signature_counts(mailgun_door: MailgunDoor) -> None:
    by_parent = json.loads(mailgun(mailgun_open()).body)["signature"]["signature"]
    post = mailgun(mailgun_open(), key="the-subaccounts", **{"parent-signature": by_parent})
    assert mailgun_door.check(arrived(post)).token


@pytest.mark.parametrize(
    "block",
    [
        {"signature": None},
        {"signature": 7},
        {"signature": "A" * 64},
        {"signature": ""},
        {"token": None},
        {"token": "short"},
        {"token": ["a" * 50]},
        {"token": "a" * 49 + "\n"},
        {"timestamp": None},
        {"timestamp": True},
        {"timestamp": NOW_S + 0.5},
        {"timestamp": f" {NOW_S:.0f}"},
        {"timestamp": {"$gt": 0}},
    ],
)
def test_a_block_that_is_not_mailguns_is_no_signature(mailgun_door: MailgunDoor, block: dict[str, Any]) -> None:
    assert refusal(mailgun_door, mailgun(mailgun_open(), **block)) == "unsigned"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"signature": []}', b"{", b"\xff", b"[" * 100_000])
def test_a_body_without_a_block_is_unsigned(mailgun_door: MailgunDoor, body: bytes) -> None:
    assert refusal(mailgun_door, Post("mailgun", body)) == "unsigned"


# --- SES through SNS


def sns_door(**pems: bytes) -> SnsDoor:
    answers = {CERTIFICATE_URL: sns_key().pem} | pems
    certificates = Certificates(fetch=lambda url: answers[url])
    certificates.obtain(CERTIFICATE_URL)
    return SnsDoor([TOPIC, "arn:aws:sns:eu-west-1:123456789012:other"], certificates, TWO_DAYS_S)


def test_a_notification_passes_and_only_what_is_signed_is_read() -> None:
    post = ses(ses_click(), MessageAttributes={"unsigned": "yes"}, UnsubscribeURL="https://example.org")
    trusted = sns_door().check(arrived(post))
    assert json.loads(trusted.body).keys() == {"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
    assert json.loads(json.loads(trusted.body)["Message"]) == ses_click()
    assert trusted.confirm_url is None and trusted.token is None


def test_a_notification_needs_no_subject_and_may_hold_any_text() -> None:
    for message in ("", "two\nlines", '{"name": "Zoë \U0001f600"}', "\x00"):
        trusted = sns_door().check(arrived(ses(message, Subject=None)))
        assert json.loads(trusted.body)["Message"] == message


def test_a_confirmation_passes_with_where_to_confirm_and_brings_no_events() -> None:
    trusted = sns_door().check(arrived(ses("You have chosen to subscribe", kind="SubscriptionConfirmation")))
    assert (trusted.body, trusted.confirm_url) == (None, CONFIRM_URL)
    gone = sns_door().check(arrived(ses("You have chosen to leave", kind="UnsubscribeConfirmation")))
    assert (gone.body, gone.confirm_url) == (None, None)


@pytest.mark.parametrize(
    "url", ["https://example.org/", "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"]
)
def test_even_a_signed_confirmation_leads_nowhere_else(url: str) -> None:
    assert refusal(sns_door(), ses("…", kind="SubscriptionConfirmation", SubscribeURL=url)) == "foreign"


def test_sha1_is_no_signature() -> None:
    assert refusal(sns_door(), ses(ses_click(), version="1")) == "outdated"
    assert refusal(sns_door(), ses(ses_click(), SignatureVersion="1")) == "outdated"
    assert refusal(sns_door(), ses(ses_click(), version="1", SignatureVersion="2")) == "forged"
    assert refusal(sns_door(), ses(ses_click(), SignatureVersion=None)) == "outdated"


def test_a_topic_that_nobody_allowed_does_not_exist() -> None:
    assert refusal(sns_door(), ses(ses_click(), topic="arn:aws:sns:eu-west-1:999999999999:mail")) == "foreign"


def test_headers_and_body_must_agree() -> None:
    post = ses(ses_click())
    assert refusal(sns_door(), changed(post, x_amz_sns_message_type=None)) == "unsigned"
    assert refusal(sns_door(), changed(post, x_amz_sns_message_type="Surprise")) == "unsigned"
    assert refusal(sns_door(), changed(post, x_amz_sns_message_type="SubscriptionConfirmation")) == "unsigned"
    assert refusal(sns_door(), changed(post, x_amz_sns_topic_arn=None)) == "foreign"
    other = "arn:aws:sns:eu-west-1:123456789012:other"
    assert refusal(sns_door(), changed(post, x_amz_sns_topic_arn=other)) == "forged"


@pytest.mark.parametrize("name", ["Message", "MessageId", "Timestamp", "TopicArn", "Type", "Subject"])
def test_every_signed_field_counts(name: str) -> None:
    said = json.loads(ses(ses_click()).body)
    for value in (said[name] + " ", None, 7, ["x"]):
        altered = changed(ses(ses_click()), json.dumps(said | {name: value}).encode())
        assert refusal(sns_door(), altered) in ("forged", "unsigned")


def test_one_value_cannot_pass_for_two_fields() -> None:
    """A name and its value are signed on lines of their own; a subject could otherwise bring fields along."""
    subject = f"Hello\nTimestamp\n2020-01-01T00:00:00.000Z\nTopicArn\n{TOPIC}"
    assert refusal(sns_door(), ses(ses_click(), Subject=subject)) == "forged"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://sns.eu-west-1.amazonaws.com/" + PEM,
        "https://sns.eu-west-1.amazonaws.com.example.org/" + PEM,
        "https://example.org/" + PEM,
        "https://sns.eu-west-1.amazonaws.com@example.org/" + PEM,
        "https://example.org#@sns.eu-west-1.amazonaws.com/" + PEM,
        "https://sns.eu-west-1.amazonaws.com:8443/" + PEM,
        "https://SNS.eu-west-1.amazonaws.com/" + PEM,
        "https://s3.eu-west-1.amazonaws.com/" + PEM,
        "https://bucket.sns.eu-west-1.amazonaws.com/" + PEM,
        "https://sns.eu-west-1.amazonaws.com/../" + PEM,
        "https://sns.eu-west-1.amazonaws.com/elsewhere/" + PEM,
        "https://sns.eu-west-1.amazonaws.com/" + PEM + "?x=1",
        "https://sns.eu-west-1.amazonaws.com/" + PEM + "#x",
        "https://sns.eu-west-1.amazonaws.com/" + PEM.replace(".pem", ".txt"),
        "https://sns.eu-west-1.amazonaws.com/" + PEM + "\n",
        "https://sns.eu-west-1.amazonaws.com\\@example.org/" + PEM,
        "https://[::1/" + PEM,
        "file:///etc/" + PEM,
    ],
)
def test_a_certificate_from_anywhere_else_is_not_even_asked_for(url: str) -> None:
    assert certificate_name(url) is None
    assert refusal(sns_door(), ses(ses_click(), SigningCertURL=url)) == "foreign"


def test_hosts_of_all_regions_are_known() -> None:
    for host in (
        "sns.us-gov-west-1.amazonaws.com",
        "sns.ap-southeast-2.amazonaws.com",
        "sns.cn-north-1.amazonaws.com.cn",
    ):
        assert certificate_name(f"https://{host}/{PEM}") == PEM
        assert is_sns(f"https://{host}/?Action=ConfirmSubscription")


def test_a_certificate_counts_between_its_dates() -> None:
    for key in (sns_key("early", 1, 300), sns_key("late", -300, -1)):
        certificates = Certificates(fetch=lambda url, key=key: key.pem)  # type: ignore[misc]
        certificates.obtain(CERTIFICATE_URL)
        assert refusal(SnsDoor([TOPIC], certificates, TWO_DAYS_S), ses(ses_click(), key)) == "foreign"


def test_what_is_no_certificate_or_a_weak_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    weak = sns_key("weak", bits=1024).pem
    for pem in (b"", b"hello", weak, sns_key().pem.replace(b"A", b"B")):
        now = [0.0]
        certificates = Certificates(fetch=lambda url, pem=pem: pem, now=lambda now=now: now[0])  # type: ignore[misc]
        with pytest.raises(UntrustedEvents):
            certificates.obtain(CERTIFICATE_URL)
        with pytest.raises(UntrustedEvents):
            certificates.find(CERTIFICATE_URL, NOW_S)
        now[0] = NOT_THERE_FOR_S
        with pytest.raises(CertificateWanted):
            certificates.find(CERTIFICATE_URL, NOW_S)


def test_certificates_are_read_from_a_directory_and_then_nothing_is_fetched(tmp_path: Path) -> None:
    def never(url: str) -> bytes:
        raise AssertionError

    door = SnsDoor([TOPIC], Certificates(tmp_path, never), TWO_DAYS_S)
    assert refusal(door, ses(ses_click())) == "foreign"
    (tmp_path / PEM).write_bytes(sns_key().pem)
    assert door.check(arrived(ses(ses_click()))).body


def test_certificates_are_fetched_seldom_and_few_are_kept() -> None:
    asked, now = [], [0.0]

    def answer(url: str) -> bytes:
        asked.append(url)
        return sns_key().pem

    certificates = Certificates(fetch=answer, now=lambda: now[0])
    urls = [CERTIFICATE_URL.replace("0123", f"{number:04}") for number in range(40)]
    for url in urls[:FETCHES_PER_MINUTE] * 2:
        certificates.obtain(url)
    assert asked == urls[:FETCHES_PER_MINUTE]
    with pytest.raises(Overloaded):
        certificates.obtain(urls[-1])
    assert certificates.find(urls[0], NOW_S)
    for url in urls:
        now[0] += 60
        certificates.obtain(url)
    assert len(certificates._known) == KEPT
    with pytest.raises(CertificateWanted):
        certificates.find(urls[0], NOW_S)


def test_a_name_that_led_nowhere_is_remembered_for_a_while_and_costs_nothing_more() -> None:
    asked, now = [], [0.0]

    def answer(url: str) -> bytes:
        asked.append(url)
        if url != CERTIFICATE_URL:
            raise UntrustedEvents("ses", "foreign")
        return sns_key().pem

    certificates = Certificates(fetch=answer, now=lambda: now[0])
    invented = CERTIFICATE_URL.replace("0123", "ffff")
    with pytest.raises(CertificateWanted):
        certificates.find(invented, NOW_S)
    for _ in range(FETCHES_PER_MINUTE * 2):
        with pytest.raises(UntrustedEvents):
            certificates.obtain(invented)
        with pytest.raises(UntrustedEvents):
            certificates.find(invented, NOW_S)
    certificates.obtain(CERTIFICATE_URL)
    assert asked == [invented, CERTIFICATE_URL]
    now[0] = NOT_THERE_FOR_S
    with pytest.raises(CertificateWanted):
        certificates.find(invented, NOW_S)


def test_when_amazon_cannot_be_reached_the_name_is_not_held_against_it() -> None:
    def away(url: str) -> bytes:
        raise EventsNotTaken("SNS could not be reached")

    certificates = Certificates(fetch=away)
    with pytest.raises(EventsNotTaken):
        certificates.obtain(CERTIFICATE_URL)
    with pytest.raises(CertificateWanted):
        certificates.find(CERTIFICATE_URL, NOW_S)


def test_names_that_led_nowhere_take_bounded_room() -> None:
    now = [0.0]
    certificates = Certificates(fetch=lambda url: b"<html>", now=lambda: now[0])
    for number in range(MOST_NOT_THERE + 10):
        now[0] += 60
        with pytest.raises(UntrustedEvents):
            certificates.obtain(CERTIFICATE_URL.replace("0123", f"{number:04}"))
    assert len(certificates._not_there) == MOST_NOT_THERE


@pytest.mark.parametrize("host", ["sns.us-east-1.amazonaws.com", "sns.eu-west-1.amazonaws.com.cn"])
def test_a_certificate_of_another_region_than_the_topics_is_not_asked_for(host: str) -> None:
    post = ses(ses_click(), SigningCertURL=f"https://{host}/{PEM}")
    assert refusal(sns_door(), post) == "foreign"


def test_an_answer_that_is_long_or_not_200_or_nobodys_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "/long": (httpx.Response(200, content=b"x" * (LARGEST_ANSWER + 1)), EventsNotTaken),
        "/broken": (httpx.Response(503), EventsNotTaken),
        "/moved": (httpx.Response(302, headers={"location": "https://example.org/"}), UntrustedEvents),
        "/none": (httpx.Response(404), UntrustedEvents),
    }

    def stream(method: str, url: str, **options: Any) -> Any:
        transport = httpx.MockTransport(lambda request: answers[request.url.path][0])
        return httpx.Client(transport=transport).stream(method, url, follow_redirects=options["follow_redirects"])

    monkeypatch.setattr(httpx, "stream", stream)
    for path, (_, error) in answers.items():
        with pytest.raises(error):
            fetch("https://sns.eu-west-1.amazonaws.com" + path)
    monkeypatch.undo()
    with pytest.raises(EventsNotTaken):
        fetch("http://127.0.0.1:9/")


@pytest.mark.parametrize("text", ["", "2026-11-23", "2026-11-23T08:15:00Z", "2026-11-23T08:15:00.000+00:00", "soon"])
def test_an_instant_is_written_as_sns_writes_it(text: str) -> None:
    with pytest.raises(ValueError):
        seconds_of(text)
    assert refusal(sns_door(), ses(ses_click(), Timestamp=text)) == "unsigned"


# --- Postmark, Brevo, Mailjet


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        ("basic:user:pass:word", basic("user", "pass:word")),
        ("basic:user:Zoë", basic("user", "Zoë")),
        ("bearer:token-123", {"Authorization": "Bearer token-123"}),
        ("bearer:abc==", {"authorization": "BEARER abc=="}),
        ("header:X-Webhook-Secret:a:b=c", {"X-WEBHOOK-SECRET": "a:b=c"}),
    ],
)
def test_whoever_brings_the_credential_passes(known: str, sent: dict[str, str]) -> None:
    door = SharedSecretDoor("brevo", [credential("bearer:another"), credential(known)])
    door.greet(dict(Post("brevo", b"", sent).raw_headers), NOW_S)
    assert door.check(arrived(Post("brevo", b"{}", sent))).body == b"{}"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({}, "unsigned"),
        ({"Authorization": ""}, "forged"),
        ({"Authorization": "Basic"}, "forged"),
        ({"Authorization": "Basic dXNlcjpwYXNz "}, "forged"),
        ({"Authorization": "Basic !!!"}, "forged"),
        ({"Authorization": "Bearer secret"}, "forged"),
        (basic("user", "secre"), "forged"),
        (basic("user", "secret2"), "forged"),
        (basic("other", "secret"), "forged"),
        ({"X-Webhook-Secret": ""}, "forged"),
        ({"X-Webhook-Secret": "SECRET"}, "forged"),
        ({"X-Webhook-Secre": "secret"}, "unsigned"),
    ],
)
def test_whoever_does_not_is_refused_before_a_byte_is_read(sent: dict[str, str], reason: str) -> None:
    door = SharedSecretDoor("postmark", [credential("basic:user:secret"), credential("header:X-Webhook-Secret:secret")])
    with pytest.raises(UntrustedEvents) as caught:
        door.greet(dict(Post("postmark", b"", sent).raw_headers), NOW_S)
    assert caught.value.reason == reason == refusal(door, Post("postmark", b"{}", sent))


# --- settings


def test_settings_never_show_a_secret() -> None:
    settings = ServingSettings(**configured())
    for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert not any(secret in text for secret in (*SECRETS, shown(sendgrid_key())))
    assert "correct-horse" not in repr(credential("basic:postmark:correct-horse"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("postmark_secret", "correct-horse"),
        ("postmark_secret", "basic:onlyuser"),
        ("brevo_secret", "bearer:"),
        ("mailjet_secret", "header:no spaces:x"),
        ("mailjet_secret", "header:X-Name"),
        ("sendgrid_public_key", "hello"),
        ("sendgrid_public_key", "AAAA"),
        ("sendgrid_public_key", "p384"),
        ("sendgrid_public_key", "rsa"),
        ("max_webhooks", "0"),
        ("webhook_max_age_hours", "0"),
        ("webhook_max_age_hours", "720.5"),
    ],
)
def test_an_unusable_secret_stops_the_start_and_is_not_quoted(name: str, value: str) -> None:
    made = {"p384": lambda: shown(ec.generate_private_key(ec.SECP384R1())), "rsa": rsa_shown}
    value = made[value]() if value in made else value
    with pytest.raises(ValidationError) as caught:
        ServingSettings(**{name: value})
    assert caught.value.errors()[0]["loc"] == (name,)
    assert value in ("0", "720.5", "bearer:") or value not in str(caught.value)


def rsa_shown() -> str:
    return shown(rsa.generate_private_key(65537, 2048))  # type: ignore[arg-type]
