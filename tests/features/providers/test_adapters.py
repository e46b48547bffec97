"""What each provider's records say: the real ones that may be shipped, and one of every kind that is documented."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.contract import EVENT_TYPES
from features.providers import PROVIDERS, Aside, Told, Unread, read
from tests.features.providers import documented as d

PAYLOADS = Path(__file__).parent / "payloads"
# Amazon's samples may not be shipped.
SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "esp_webhooks" / "ses"

REAL = {
    "brevo/blocked": d.ASIDE,
    "brevo/click": "click",
    "brevo/complaint": "complaint",
    "brevo/defered": d.ASIDE,
    "brevo/delivered": "delivered",
    "brevo/error": "hard_bounce",
    "brevo/hard_bounce": "hard_bounce",
    "brevo/invalid_email": "hard_bounce",
    "brevo/opened": "open",
    "brevo/proxy_open": "open",
    "brevo/request": "sent",
    "brevo/request_without_tags": "sent",
    "brevo/soft_bounce": "soft_bounce",
    "brevo/unique_opened": "open",
    "brevo/unsubscribed": "unsubscribe",
    "mailgun/accepted": "sent",
    "mailgun/clicks": "click",
    "mailgun/delivered_messages": "delivered",
    "mailgun/opens": "open",
    "mailgun/permanent_failure": "hard_bounce",
    "mailgun/permanent_failure_no_description": "hard_bounce",
    "mailgun/spam_complaints": "complaint",
    "mailgun/suppression_failure": d.ASIDE,
    "mailgun/temporary_failure": d.ASIDE,
    "mailgun/unsubscribes": "unsubscribe",
    "mailjet/blocked": d.ASIDE,
    "mailjet/bounce": "soft_bounce",
    "mailjet/click": "click",
    "mailjet/open": "open",
    "mailjet/sent": "sent",
    "mailjet/spam": "complaint",
    "mailjet/unsub": "unsubscribe",
    "postmark/bounce": "hard_bounce",
    "postmark/delivery": ("sent", "delivered"),
    "postmark/link_click": "click",
    "postmark/open": "open",
    "postmark/spam_complaint": "complaint",
    "postmark/subscription_change": "hard_bounce",
    "sendgrid/webhook": d.ASIDE,
}
SAMPLED = {
    "bounce": "hard_bounce",
    "click": "click",
    "complaint": "complaint",
    "delivery": "delivered",
    "deliverydelay": d.ASIDE,
    "open": "open",
    "reject": d.ASIDE,
    "rendering_failure": d.ASIDE,
    "send": "sent",
    "subscription": "unsubscribe",
}


def kinds(found: list[Any]) -> tuple[str, ...] | str:
    """Types of the events told, or that all is aside or unread."""
    if all(isinstance(record, Told) for record in found):
        return tuple(record.event_type for record in found)
    assert len(found) == 1
    return d.ASIDE if isinstance(found[0], Aside) else d.UNREAD


def told(provider: str, item: Any) -> Told:
    (record,) = PROVIDERS[provider](item)
    assert isinstance(record, Told)
    return record


def test_every_real_payload_that_is_here_is_tested() -> None:
    assert {f"{path.parent.name}/{path.stem}" for path in PAYLOADS.glob("*/*.json")} == set(REAL)
    assert all((PAYLOADS / provider / "LICENSE").exists() for provider in {name.split("/")[0] for name in REAL})


@pytest.mark.parametrize(("name", "expected"), REAL.items())
def test_a_real_payload_says_what_it_says(name: str, expected: str | tuple[str, ...]) -> None:
    found = read(name.split("/")[0], (PAYLOADS / f"{name}.json").read_bytes())
    assert kinds(found) == (expected if expected == d.ASIDE or isinstance(expected, tuple) else (expected,))


@pytest.mark.parametrize(("name", "expected"), SAMPLED.items())
def test_amazons_samples_say_what_they_say_raw_and_in_an_envelope(name: str, expected: str) -> None:
    path = SAMPLES / f"ses_{name}_record.json"
    if not path.exists():
        pytest.skip("Amazon's samples are not here")
    body = path.read_bytes()
    raw, wrapped = read("ses", body), read("ses", json.dumps(d.sns(body.decode())).encode())
    assert raw == wrapped
    assert kinds(raw) == (expected if expected == d.ASIDE else (expected,))


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_a_documented_record_says_what_it_says(provider: str, label: str, item: Any, expected: Any) -> None:
    assert kinds(read(provider, json.dumps([item]).encode())) == expected


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_times_addresses_and_evidence_are_the_records_own(provider: str, label: str, item: Any, expected: Any) -> None:
    for record in PROVIDERS[provider](item):
        if isinstance(record, Told):
            assert record.occurred_us == d.OCCURRED_US + (250_000 if provider == "mailgun" else 0)
            assert record.address in (d.ADDRESS, d.OTHER)
            assert record.event_type in EVENT_TYPES
            assert record.url == (d.URL if record.event_type == "click" else None)
            if record.event_type in ("open", "click") and provider != "brevo":
                assert record.user_agent and record.ip == d.IP
            elif record.event_type not in ("open", "click", "unsubscribe"):
                assert (record.user_agent, record.ip) == (None, None)


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_one_object_and_an_array_of_it_say_the_same(provider: str, label: str, item: Any, expected: Any) -> None:
    assert read(provider, json.dumps(item).encode()) == read(provider, json.dumps([item]).encode())


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_what_cannot_be_read_keeps_its_payload_without_addresses_and_evidence(
    provider: str, label: str, item: Any, expected: Any
) -> None:
    for record in PROVIDERS[provider](item):
        if isinstance(record, Unread):
            assert json.loads(record.payload)
            assert not any(secret in record.payload for secret in ("ann.lee", "bob@", d.IP, d.PERSON, d.URL))
            assert record.reason


def test_a_told_event_does_not_show_whose_it_is() -> None:
    shown = repr(told("mailgun", d.mailgun_seen("clicked")))
    assert not any(secret in shown for secret in (d.ADDRESS, d.IP, d.PERSON, d.URL))


def test_ids_look_like_no_address_and_belong_to_their_provider() -> None:
    for provider, _, item, _ in d.ROWS:
        for record in PROVIDERS[provider](item):
            if isinstance(record, Told):
                assert record.event_id.startswith(f"{provider}:")
                assert "@" not in record.event_id


def test_different_records_have_different_ids() -> None:
    for provider, rows in d.DOCUMENTED.items():
        seen: dict[str, set[Any]] = {}
        for _, item, _ in rows:
            for record in PROVIDERS[provider](item):
                if isinstance(record, Told) and record.of_recipient:
                    seen.setdefault(record.event_id, set()).add((record.event_type, record.url))
        assert all(len(told_of) == 1 for told_of in seen.values())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_everything_about_one_message_names_one_campaign(provider: str) -> None:
    campaigns = {
        record.campaign_id
        for label, item, _ in d.DOCUMENTED[provider]
        for record in PROVIDERS[provider](item)
        if isinstance(record, Told) and not label.startswith(("campaign:", "list_addition", "classic"))
    }
    assert len(campaigns) == 1
    assert None not in campaigns


# --- SendGrid ---------------------------------------------------------------------------------------------------------


def test_sendgrids_servers_add_to_a_messages_id_and_it_stays_one_message() -> None:
    ids = [
        "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",
        "LRzXl_NHStOGhQ4kofSm_A.recvd-5f54b5d587-pczjm-1-67BADEEA-6.0",
        "LRzXl_NHStOGhQ4kofSm_A",
    ]
    campaigns = {told("sendgrid", d.sendgrid("open", sg_message_id=message)).campaign_id for message in ids}
    delayed = d.sendgrid("bounce", **{"smtp-id": "<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>"})
    del delayed["sg_message_id"]
    assert campaigns == {told("sendgrid", delayed).campaign_id}


def test_sendgrids_old_ids_of_two_messages_are_not_one_message() -> None:
    first, second = (f"14c5d75ce93.dfd.{part}.filter0001.16648.5515E0B88.0" for part in ("64b469", "64b46a"))
    campaigns = [told("sendgrid", d.sendgrid("open", sg_message_id=given)).campaign_id for given in (first, second)]
    assert campaigns[0] != campaigns[1]


def test_sendgrids_campaigns_come_before_the_message() -> None:
    assert told("sendgrid", d.sendgrid("open", marketing_campaign_id=12345)).campaign_id == "12345"
    assert told("sendgrid", d.sendgrid("open", singlesend_id="27a1")).campaign_id == "27a1"
    assert told("sendgrid", d.sendgrid("open", singlesend_id="27a1", campaign_id="c1")).campaign_id == "c1"


def test_sendgrids_custom_arguments_name_the_subscriber() -> None:
    assert told("sendgrid", d.sendgrid("open", subscriber_id="s1")).own_id == "s1"
    assert told("sendgrid", d.sendgrid("open", unique_args={"subscriber_id": 7})).own_id == "7"


def test_sendgrid_says_which_opens_are_a_machines() -> None:
    assert told("sendgrid", d.sendgrid("open", sg_machine_open=True)).machine
    assert not told("sendgrid", d.sendgrid("open", sg_machine_open=False)).machine
    assert not told("sendgrid", d.sendgrid("open")).machine


def test_sendgrids_category_may_be_one_text() -> None:
    assert told("sendgrid", d.sendgrid("open", category="cat facts")).content == ("cat facts",)
    assert told("sendgrid", d.sendgrid("open", category=[" a ", "", None, "b"])).content == ("a", "b")


# --- Mailgun ----------------------------------------------------------------------------------------------------------


def test_mailguns_message_id_may_stand_between_angles() -> None:
    plain, angled = (
        mailgun_of("<20130503182626.18666.16540@a.example>"),
        mailgun_of("20130503182626.18666.16540@a.example"),
    )
    assert plain.campaign_id == angled.campaign_id


def mailgun_of(message_id: str) -> Told:
    return told("mailgun", d.mailgun("delivered", message={"headers": {"message-id": message_id}}))


def test_mailguns_ids_are_its_own_for_a_day_only() -> None:
    today, later = (told("mailgun", d.mailgun("opened", timestamp=d.SECONDS + days * 86400)) for days in (0, 2))
    assert today.event_id != later.event_id


@pytest.mark.parametrize(("bot", "machine"), [("apple", True), ("gmail", True), ("generic", True), ("", False)])
def test_mailgun_says_which_bot_it_was(bot: str, machine: bool) -> None:
    assert told("mailgun", d.mailgun_seen("opened", bot)).machine is machine


def test_mailguns_variables_name_subscriber_and_campaign() -> None:
    variables = {"subscriber_id": "s1", "campaign_id": "c1"}
    record = told("mailgun", d.mailgun("opened", **{"user-variables": variables}))
    assert (record.own_id, record.campaign_id) == ("s1", "c1")


# --- Postmark ---------------------------------------------------------------------------------------------------------


def test_postmarks_seventh_decimal_is_cut_off() -> None:
    record = d.postmark("Open", "ReceivedAt", ReceivedAt="2022-09-02T14:29:19.1234567Z")
    assert told("postmark", record).occurred_us % 1_000_000 == 123_456


def test_postmark_tells_of_no_send_so_a_delivery_is_one_too() -> None:
    sent, delivered = PROVIDERS["postmark"](d.postmark("Delivery", "DeliveredAt"))
    assert isinstance(sent, Told) and isinstance(delivered, Told)
    assert (sent.event_type, delivered.event_type) == ("sent", "delivered")
    assert sent == replace(delivered, event_id=sent.event_id, event_type="sent") and sent.event_id != delivered.event_id


def test_postmark_tells_one_hard_bounce_in_two_records() -> None:
    bounce = told("postmark", d.postmark_bounce("HardBounce"))
    change = told("postmark", d.postmark_change(True, "HardBounce", "Recipient"))
    assert bounce.event_id == change.event_id


def test_postmark_tells_soft_bounces_by_their_number() -> None:
    first, second = (d.postmark_bounce("SoftBounce") | {"ID": number} for number in (1, 2))
    assert told("postmark", first).event_id != told("postmark", second).event_id


def test_postmarks_metadata_names_subscriber_and_campaign() -> None:
    metadata = {"subscriber_id": "s1", "campaign_id": "c1"}
    record = told("postmark", d.postmark("Open", "ReceivedAt", Metadata=metadata))
    assert (record.own_id, record.campaign_id) == ("s1", "c1")


# --- Brevo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clock",
    [
        {"ts_epoch": d.SECONDS * 1000, "ts_event": 1, "ts": 1},
        {"ts_epoch": d.SECONDS, "ts_event": 1, "ts": 1},
        {"ts_epoch": None, "ts_event": d.SECONDS, "ts": 1},
        {"ts_epoch": "soon", "ts_event": str(d.SECONDS), "ts": 1},
    ],
)
def test_brevos_best_clock_is_taken_in_seconds_or_milliseconds(clock: dict[str, Any]) -> None:
    assert told("brevo", d.brevo("opened", **clock)).occurred_us == d.OCCURRED_US


@pytest.mark.parametrize("event", ["proxy_open", "unique_proxy_open"])
def test_brevo_says_which_opens_are_a_proxys(event: str) -> None:
    assert told("brevo", d.brevo(event)).machine
    assert not told("brevo", d.brevo("unique_opened")).machine


@pytest.mark.parametrize("written", ['{"subscriber_id": "s1", "campaign_id": "c1"}', "subscriber_id:s1|campaign_id:c1"])
def test_brevos_custom_header_names_subscriber_and_campaign(written: str) -> None:
    record = told("brevo", d.brevo("opened", **{"X-Mailin-custom": written}))
    assert (record.own_id, record.campaign_id) == ("s1", "c1")


def test_brevos_custom_header_may_say_nothing() -> None:
    assert told("brevo", d.brevo("opened", **{"X-Mailin-custom": "some_custom_header"})).own_id is None


def test_brevos_tag_may_be_a_list_written_as_text() -> None:
    untagged = {key: value for key, value in d.brevo("opened").items() if key != "tags"}
    assert told("brevo", untagged | {"tag": '["a","b"]'}).content == ("a", "b")
    assert told("brevo", untagged | {"tag": "a"}).content == ("a",)
    assert told("brevo", untagged | {"tag": ""}).content is None


def test_brevos_campaigns_have_a_number() -> None:
    assert told("brevo", d.brevo_campaign("opened")).campaign_id == "12"


# --- Mailjet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("custom", "own_id"),
    [
        ({"Payload": '{"subscriber_id": "s1"}'}, "s1"),
        ({"CustomID": "subscriber_id:s1"}, "s1"),
        ({"CustomID": "subscriber_id=s1&n=2"}, "s1"),
        ({"CustomID": '{"subscriber_id": "s1"}'}, "s1"),
        ({"CustomID": "s1"}, None),
        ({"Payload": "some text, with 10:30 in it"}, None),
    ],
)
def test_mailjets_payload_names_the_subscriber_and_its_custom_id_only_if_it_says_so(
    custom: dict[str, str], own_id: str | None
) -> None:
    assert told("mailjet", d.mailjet("open", **custom)).own_id == own_id


def test_mailjets_campaign_is_the_programs_name_for_it_then_mailjets_number_then_the_message() -> None:
    assert told("mailjet", d.mailjet("open", customcampaign="weekly")).campaign_id == "weekly"
    assert told("mailjet", d.mailjet("open")).campaign_id == "7257"
    assert str(told("mailjet", d.mailjet("open", mj_campaign_id=0)).campaign_id).startswith("m_")


# --- Amazon SES -------------------------------------------------------------------------------------------------------


def test_ses_tells_one_event_per_recipient() -> None:
    found = PROVIDERS["ses"](d.ses_bounce("Permanent", "General", d.ADDRESS, d.OTHER))
    assert [record.address for record in found if isinstance(record, Told)] == [d.ADDRESS, d.OTHER]


def test_ses_own_id_of_a_message_to_several_is_nobodys() -> None:
    record = d.ses("Send", (d.ADDRESS, d.OTHER), send={})
    record["mail"]["tags"]["subscriber_id"] = ["s1"]
    assert {found.own_id for found in PROVIDERS["ses"](record) if isinstance(found, Told)} == {None}
    bounced = d.ses_bounce("Permanent", "General")
    bounced["mail"]["destination"] = [d.ADDRESS, d.OTHER]
    bounced["mail"]["tags"]["subscriber_id"] = ["s1"]
    assert told("ses", bounced).own_id is None


def test_a_classic_notification_and_a_published_record_of_one_event_are_one_event() -> None:
    record = d.ses_bounce("Permanent", "General")
    record["mail"]["tags"] |= {"subscriber_id": ["s1"], "campaign_id": ["c1"], "content": ["shoes"]}
    assert told("ses", record) == told("ses", d.classic(record))


def test_ses_tags_name_subscriber_campaign_and_content() -> None:
    record = d.ses_seen("Open")
    record["mail"]["tags"] |= {"subscriber_id": ["s1"], "campaign_id": ["c1"]}
    found = told("ses", record)
    assert (found.own_id, found.campaign_id, found.content) == ("s1", "c1", ("shoes", "weekly"))


def test_the_reason_for_an_open_of_one_of_several_says_so() -> None:
    (record,) = PROVIDERS["ses"](d.ses_seen("Open", (d.ADDRESS, d.OTHER)))
    assert isinstance(record, Unread)
    assert "several recipients" in record.reason
