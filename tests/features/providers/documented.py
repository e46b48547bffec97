"""One record of every kind that a provider documents, written from its documentation, with what it is to us.

``DOCUMENTED`` maps a provider to rows of label, record and expectation: the types of the events it tells, ``ASIDE`` or
``UNREAD``. Addresses and ids are made up; every record happened to ``ADDRESS`` at ``OCCURRED_US``.
"""

from __future__ import annotations

import json
from typing import Any

ADDRESS = "ann.lee@shop.example"
OTHER = "bob@shop.example"
SECONDS = 1_700_000_000
OCCURRED_US = SECONDS * 1_000_000
ISO = "2023-11-14T22:13:20Z"
PERSON = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:115.0) Gecko/20100101 Thunderbird/115.3.1"
IP = "84.180.1.2"
URL = "https://shop.example/shoes?to=ann.lee@shop.example"
ASIDE, UNREAD = "aside", "unread"

Row = tuple[str, Any, tuple[str, ...] | str]


def sendgrid(event: str, **more: Any) -> dict[str, Any]:
    return {
        "email": ADDRESS,
        "timestamp": SECONDS,
        "event": event,
        "category": ["shoes", "weekly"],
        "sg_event_id": f"aWQ-{event}",
        "sg_message_id": "14c5d75ce93kjHG65rtfgh.filter0001.16648.5515E0B88.0",
        "smtp-id": "<14c5d75ce93kjHG65rtfgh@ismtpd-555>",
        **more,
    }


def mailgun(event: str, **more: Any) -> dict[str, Any]:
    data = {
        "event": event,
        "id": f"DACSsAdVSeGpLid7TN03WA-{event}",
        "timestamp": SECONDS + 0.25,
        "recipient": ADDRESS,
        "tags": ["shoes", "weekly"],
        "user-variables": {},
        "flags": {"is-test-mode": False, "is-routed": False},
        "message": {"headers": {"to": f"Ann <{ADDRESS}>", "message-id": "20130503182626.18666.16540@shop.example"}},
        **more,
    }
    return {"signature": {"token": "t", "timestamp": str(SECONDS), "signature": "s"}, "event-data": data}


def mailgun_failed(severity: str, reason: str, **status: Any) -> dict[str, Any]:
    return mailgun("failed", severity=severity, reason=reason, **{"delivery-status": status})


def mailgun_seen(event: str, bot: str = "", agent: str = PERSON) -> dict[str, Any]:
    return mailgun(event, ip=IP, url=URL, **{"client-info": {"user-agent": agent, "bot": bot}})


def postmark(record_type: str, stamp: str, **more: Any) -> dict[str, Any]:
    return {
        "RecordType": record_type,
        "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
        "MessageStream": "broadcast",
        "ServerID": 23,
        "Tag": "shoes",
        "Metadata": {},
        "Recipient": ADDRESS,
        stamp: "2023-11-14T22:13:20.0000009Z",
        **more,
    }


def postmark_bounce(kind: str) -> dict[str, Any]:
    record = postmark("Bounce", "BouncedAt", ID=4323372036854775807, Type=kind, Email=ADDRESS, Details=f"to {ADDRESS}")
    del record["Recipient"]
    return record


def postmark_change(suppressed: Any, reason: str | None, origin: str) -> dict[str, Any]:
    said = {"SuppressSending": suppressed, "SuppressionReason": reason, "Origin": origin}
    return postmark("SubscriptionChange", "ChangedAt", **said)


def brevo(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "email": ADDRESS,
        "id": 814119,
        "date": "2023-11-14 23:13:20",
        "ts": SECONDS + 3600,
        "ts_event": SECONDS,
        "ts_epoch": SECONDS * 1000,
        "message-id": "<202305311400.29297141656@smtp-relay.mailin.fr>",
        "subject": "Ann, your shoes",
        "tags": ["shoes", "weekly"],
        **more,
    }


def brevo_campaign(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "email": ADDRESS,
        "id": 7,
        "camp_id": 12,
        "campaign name": "Weekly",
        "date_sent": "2023-11-14 00:00:00",
        "date_event": "2023-11-14 23:13:20",
        "ts_sent": SECONDS - 60,
        "ts_event": SECONDS,
        "tag": "",
        **more,
    }


def mailjet(event: str, **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "time": SECONDS,
        "MessageID": 19421777835146490,
        "Message_GUID": "1ab23cd4-e567-8901-2345-6789f0gh1i2j",
        "email": ADDRESS,
        "mj_campaign_id": 7257,
        "mj_contact_id": 4,
        "customcampaign": "",
        "CustomID": "helloworld",
        "Payload": "",
        **more,
    }


def ses(event: str, to: tuple[str, ...] = (ADDRESS,), **more: Any) -> dict[str, Any]:
    return {
        "eventType": event,
        "mail": {
            "timestamp": "2023-11-14T22:13:20.000Z",
            "source": "Shop <news@shop.example>",
            "messageId": "0000014a-f4d4-4f89-9d2b-example-000000",
            "destination": list(to),
            "tags": {"ses:configuration-set": ["C"], "content": ["shoes", "weekly"]},
        },
        **more,
    }


def ses_bounce(kind: str, subtype: str, *to: str) -> dict[str, Any]:
    recipients = [{"emailAddress": address, "status": "5.1.1"} for address in to or (ADDRESS,)]
    said = {"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": recipients, "feedbackId": "f"}
    return ses("Bounce", to or (ADDRESS,), bounce={**said, "timestamp": "2023-11-14T22:13:20.000Z"})


def ses_complaint(feedback: str | None, subtype: str | None = None) -> dict[str, Any]:
    said = {"complainedRecipients": [{"emailAddress": ADDRESS}], "complaintSubType": subtype}
    return ses("Complaint", complaint={**said, "complaintFeedbackType": feedback, "timestamp": ISO})


def ses_seen(event: str, to: tuple[str, ...] = (ADDRESS,), **more: Any) -> dict[str, Any]:
    return ses(event, to, **{event.lower(): {"ipAddress": IP, "timestamp": ISO, "userAgent": PERSON, **more}})


def ses_topics(unsubscribed: bool, *statuses: str) -> dict[str, Any]:
    topics = [{"topicName": f"topic{i}", "subscriptionStatus": status} for i, status in enumerate(statuses)]
    return {"unsubscribeAll": unsubscribed, "topicSubscriptionStatus": topics}


def ses_subscription(before: Any, after: Any, to: tuple[str, ...] = (ADDRESS,)) -> dict[str, Any]:
    said = {"contactList": "list", "timestamp": ISO, "source": "UnsubscribeHeader"}
    return ses("Subscription", to, subscription={**said, "oldTopicPreferences": before, "newTopicPreferences": after})


def sns(message: Any, kind: str = "Notification") -> dict[str, Any]:
    written = message if isinstance(message, str) else json.dumps(message)
    return {
        "Type": kind,
        "MessageId": "m",
        "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": written,
        "Timestamp": ISO,
    }


def classic(record: dict[str, Any]) -> dict[str, Any]:
    """The same as a notification that was set up without event publishing."""
    told = {"notificationType" if key == "eventType" else key: value for key, value in record.items()}
    tags = {"name": "X-SES-MESSAGE-TAGS", "value": "content=shoes, subscriber_id=s1, campaign_id=c1"}
    mail = {key: value for key, value in record["mail"].items() if key != "tags"} | {"headers": [tags]}
    return {**told, "mail": mail}


SENDGRID: list[Row] = [
    ("processed", sendgrid("processed"), ("sent",)),
    ("deferred", sendgrid("deferred", response="400 try again later", attempt="5"), ASIDE),
    ("delivered", sendgrid("delivered", response="250 OK"), ("delivered",)),
    ("open", sendgrid("open", useragent=PERSON, ip=IP, sg_machine_open=False), ("open",)),
    ("open by a machine", sendgrid("open", useragent=PERSON, ip=IP, sg_machine_open=True), ("open",)),
    ("click", sendgrid("click", useragent=PERSON, ip=IP, url=URL, url_offset={"index": 0, "type": "html"}), ("click",)),
    ("bounce", sendgrid("bounce", type="bounce", status="5.1.1", reason=f"550 {ADDRESS} unknown"), ("hard_bounce",)),
    ("blocked", sendgrid("bounce", type="blocked", reason="500 refused"), ("soft_bounce",)),
    ("expired", sendgrid("bounce", type="expired", status="5.0.0"), ("soft_bounce",)),
    ("bounce without a type", sendgrid("bounce", status="4.2.2"), ("soft_bounce",)),
    ("bounce without anything", sendgrid("bounce"), ("hard_bounce",)),
    *(
        (f"dropped: {reason}", sendgrid("dropped", reason=reason), ASIDE)
        for reason in (
            "Bounced Address",
            "Unsubscribed Address",
            "Spam Reporting Address",
            "Invalid SMTPAPI header",
            "Spam Content",
            "Recipient List over Package Quota",
        )
    ),
    ("dropped: Invalid", sendgrid("dropped", reason="Invalid"), ("hard_bounce",)),
    ("spamreport", sendgrid("spamreport"), ("complaint",)),
    ("unsubscribe", sendgrid("unsubscribe"), ("unsubscribe",)),
    ("group_unsubscribe", sendgrid("group_unsubscribe", url=URL, asm_group_id=10), ("unsubscribe",)),
    ("group_resubscribe", sendgrid("group_resubscribe", url=URL, asm_group_id=10), ("subscribe",)),
    ("account_status_change", {"event": "account_status_change", "type": "compliance_suspend"}, ASIDE),
    ("unknown", sendgrid("teleported"), UNREAD),
    ("no time", sendgrid("open", timestamp=None), UNREAD),
]
MAILGUN: list[Row] = [
    ("accepted", mailgun("accepted"), ("sent",)),
    ("accepted to pass on", mailgun("accepted", flags={"is-routed": True}), ASIDE),
    ("rejected", mailgun("rejected", reject={"reason": "Sandbox"}), ASIDE),
    ("delivered", mailgun("delivered"), ("delivered",)),
    ("passed on", mailgun("delivered", flags={"is-routed": True}), ASIDE),
    ("test mode", mailgun("delivered", flags={"is-test-mode": True}), ASIDE),
    ("failed for good", mailgun_failed("permanent", "bounce", code=550), ("hard_bounce",)),
    ("failed for good, generic", mailgun_failed("permanent", "generic", code=550), ("hard_bounce",)),
    (
        "failed by policy",
        mailgun_failed("permanent", "generic", code=550, **{"enhanced-code": "5.7.1"}),
        ("soft_bounce",),
    ),
    ("given up", mailgun_failed("permanent", "old", code=602), ("soft_bounce",)),
    ("blocked by the receiver", mailgun_failed("permanent", "espblock", code=550), ("soft_bounce",)),
    ("failed for now", mailgun_failed("temporary", "generic", code=452), ASIDE),
    ("greylisted", mailgun_failed("temporary", "greylisted", code=450), ASIDE),
    *(
        (f"suppressed: {what}", mailgun_failed("permanent", f"suppress-{what}", code=605), ASIDE)
        for what in (
            "bounce",
            "complaint",
            "unsubscribe",
        )
    ),
    ("suppressed by code", mailgun_failed("permanent", "generic", code="607"), ASIDE),
    ("opened", mailgun_seen("opened"), ("open",)),
    ("opened by Apple", mailgun_seen("opened", "apple", "Mozilla/5.0"), ("open",)),
    ("clicked", mailgun_seen("clicked"), ("click",)),
    ("clicked by a scanner", mailgun_seen("clicked", "generic"), ("click",)),
    ("unsubscribed", mailgun_seen("unsubscribed"), ("unsubscribe",)),
    ("complained", mailgun("complained"), ("complaint",)),
    ("stored", mailgun("stored"), ASIDE),
    ("list_member_uploaded", mailgun("list_member_uploaded"), ASIDE),
    ("list_member_upload_error", mailgun("list_member_upload_error"), ASIDE),
    ("list_uploaded", mailgun("list_uploaded"), ASIDE),
    ("an event of the Events API", mailgun("delivered")["event-data"], ("delivered",)),
    ("unknown", mailgun("teleported"), UNREAD),
    ("unknown in test mode", mailgun("teleported", flags={"is-test-mode": True}), UNREAD),
    ("no time", mailgun("opened", timestamp="yesterday"), UNREAD),
]
POSTMARK: list[Row] = [
    ("delivery", postmark("Delivery", "DeliveredAt"), ("sent", "delivered")),
    ("open", postmark("Open", "ReceivedAt", UserAgent=PERSON, Geo={"IP": IP}, FirstOpen=True), ("open",)),
    ("click", postmark("Click", "ReceivedAt", UserAgent=PERSON, Geo={"IP": IP}, OriginalLink=URL), ("click",)),
    ("spam complaint", postmark("SpamComplaint", "BouncedAt", ID=42, Email=ADDRESS), ("complaint",)),
    *(
        (f"bounce: {kind}", postmark_bounce(kind), expected)
        for kind, expected in {
            "HardBounce": ("hard_bounce",),
            "Transient": ASIDE,
            "Unsubscribe": ("unsubscribe",),
            "Subscribe": ("subscribe",),
            "AutoResponder": ASIDE,
            "AddressChange": ASIDE,
            "DnsError": ASIDE,
            "SpamNotification": ("soft_bounce",),
            "OpenRelayTest": ASIDE,
            "Unknown": ("soft_bounce",),
            "SoftBounce": ("soft_bounce",),
            "VirusNotification": ASIDE,
            "ChallengeVerification": ASIDE,
            "BadEmailAddress": ("hard_bounce",),
            "SpamComplaint": ("complaint",),
            "ManuallyDeactivated": ASIDE,
            "Unconfirmed": ASIDE,
            "Blocked": ("soft_bounce",),
            "SMTPApiError": ASIDE,
            "InboundError": ASIDE,
            "DMARCPolicy": ASIDE,
            "TemplateRenderingFailed": ASIDE,
            "Teleported": UNREAD,
        }.items()
    ),
    ("the person leaves", postmark_change(True, "ManualSuppression", "Recipient"), ("unsubscribe",)),
    ("the sender suppresses", postmark_change(True, "ManualSuppression", "Customer"), ASIDE),
    ("Postmark suppresses", postmark_change(True, "ManualSuppression", "Admin"), ASIDE),
    ("suppressed by a bounce", postmark_change(True, "HardBounce", "Recipient"), ("hard_bounce",)),
    ("suppressed by a complaint", postmark_change(True, "SpamComplaint", "Recipient"), ("complaint",)),
    ("reactivated", postmark_change(False, None, "Customer"), ("subscribe",)),
    ("suppressed by something new", postmark_change(True, "Moon", "Recipient"), UNREAD),
    ("suppressed by somebody new", postmark_change(True, "ManualSuppression", "Moon"), UNREAD),
    ("neither suppressed nor not", postmark_change("yes", None, "Recipient"), UNREAD),
    ("SMTP API error", postmark("SMTPApiError", "At"), ASIDE),
    ("mail that came in", {"FromFull": {"Email": ADDRESS}, "Subject": "Hello"}, ASIDE),
    ("unknown", postmark("Teleport", "At"), UNREAD),
    ("no zone", postmark("Open", "ReceivedAt", ReceivedAt="2023-11-14T22:13:20"), UNREAD),
]
BREVO: list[Row] = [
    ("request", brevo("request"), ("sent",)),
    ("delivered", brevo("delivered"), ("delivered",)),
    ("deferred", brevo("deferred"), ASIDE),
    ("opened", brevo("opened"), ("open",)),
    ("unique_opened", brevo("unique_opened"), ("open",)),
    ("proxy_open", brevo("proxy_open"), ("open",)),
    ("unique_proxy_open", brevo("unique_proxy_open"), ("open",)),
    ("click", brevo("click", link=URL), ("click",)),
    ("hard_bounce", brevo("hard_bounce", reason=f"550 {ADDRESS}"), ("hard_bounce",)),
    ("soft_bounce", brevo("soft_bounce"), ("soft_bounce",)),
    ("invalid_email", brevo("invalid_email"), ("hard_bounce",)),
    ("blocked", brevo("blocked", reason="blocked : due to unsubscribed user"), ASIDE),
    ("error", brevo("error"), ASIDE),
    ("spam", brevo("spam"), ("complaint",)),
    ("complaint", brevo("complaint"), ("complaint",)),
    ("unsubscribed", brevo("unsubscribed"), ("unsubscribe",)),
    ("unsubscribe", brevo("unsubscribe"), ("unsubscribe",)),
    *(
        (f"campaign: {event}", brevo_campaign(event, URL=URL), (kind,))
        for event, kind in {
            "delivered": "delivered",
            "opened": "open",
            "proxy_open": "open",
            "click": "click",
            "hard_bounce": "hard_bounce",
            "soft_bounce": "soft_bounce",
            "spam": "complaint",
            "unsubscribe": "unsubscribe",
        }.items()
    ),
    ("list_addition", {"event": "list_addition", "email": ADDRESS, "list_id": [8], "ts": SECONDS}, ("subscribe",)),
    ("list_addition of two", {"event": "list_addition", "email": [ADDRESS, OTHER], "ts": SECONDS}, ("subscribe",) * 2),
    ("contact_updated", {"event": "contact_updated", "email": ADDRESS, "content": [{"name": "Ann"}]}, ASIDE),
    ("contact_deleted", {"event": "contact_deleted", "email": [ADDRESS]}, ASIDE),
    ("mail that came in", {"items": [{"From": {"Address": ADDRESS}}]}, ASIDE),
    ("unknown", brevo("teleported"), UNREAD),
    ("only a date", {"event": "opened", "email": ADDRESS, "date": "2023-11-14 23:13:20"}, UNREAD),
]
MAILJET: list[Row] = [
    ("sent", mailjet("sent", smtp_reply="250 OK"), ("sent",)),
    ("open", mailjet("open", ip=IP, geo="DE", agent=PERSON), ("open",)),
    ("click", mailjet("click", ip=IP, geo="DE", agent=PERSON, url=URL), ("click",)),
    ("hard bounce", mailjet("bounce", blocked=True, hard_bounce=True, error="user unknown"), ("hard_bounce",)),
    ("soft bounce", mailjet("bounce", blocked=False, hard_bounce=False, error="quota exceeded"), ("soft_bounce",)),
    ("greylisted", mailjet("bounce", blocked=False, hard_bounce=False, error="greylisted"), ASIDE),
    *(
        (f"blocked: {error}", mailjet("blocked", error_related_to="mailjet", error=error), ASIDE)
        for error in (
            "preblocked",
            "duplicate in campaign",
            "spam preblocked",
            "bad or empty template",
            "sender blocked",
        )
    ),
    ("blocked: typofix", mailjet("blocked", error_related_to="domain", error="typofix"), ("hard_bounce",)),
    ("spam", mailjet("spam", source="JMRPP"), ("complaint",)),
    ("unsub", mailjet("unsub", mj_list_id=1, ip=IP, geo="DE", agent=PERSON), ("unsubscribe",)),
    ("unknown", mailjet("teleported"), UNREAD),
    ("no time", mailjet("open", time="2023-11-14"), UNREAD),
]
_IN, _OUT = ses_topics(False, "OptIn"), ses_topics(False, "OptOut")
SES: list[Row] = [
    ("send", ses("Send", send={}), ("sent",)),
    ("send to two", ses("Send", (ADDRESS, OTHER), send={}), ("sent", "sent")),
    ("send to nobody", ses("Send", (), send={}), UNREAD),
    ("delivery", ses("Delivery", delivery={"timestamp": ISO, "recipients": [ADDRESS]}), ("delivered",)),
    ("bounce", ses_bounce("Permanent", "General"), ("hard_bounce",)),
    ("bounce: NoEmail", ses_bounce("Permanent", "NoEmail"), ("hard_bounce",)),
    ("bounce: Suppressed", ses_bounce("Permanent", "Suppressed"), ("hard_bounce",)),
    ("bounce: OnAccountSuppressionList", ses_bounce("Permanent", "OnAccountSuppressionList"), ASIDE),
    ("bounce: UnsubscribedRecipient", ses_bounce("Permanent", "UnsubscribedRecipient"), ASIDE),
    *(
        (f"bounce: {subtype}", ses_bounce("Transient", subtype), ("soft_bounce",))
        for subtype in (
            "General",
            "MailboxFull",
            "MessageTooLarge",
            "ContentRejected",
            "AttachmentRejected",
            "CustomTimeoutExceeded",
        )
    ),
    ("bounce: Undetermined", ses_bounce("Undetermined", "Undetermined"), ("soft_bounce",)),
    ("bounce of two", ses_bounce("Permanent", "General", ADDRESS, OTHER), ("hard_bounce", "hard_bounce")),
    ("complaint", ses_complaint("abuse"), ("complaint",)),
    ("complaint without a kind", ses_complaint(None), ("complaint",)),
    ("complaint: fraud", ses_complaint("fraud"), ("complaint",)),
    ("complaint: other", ses_complaint("other"), ("complaint",)),
    ("complaint: not-spam", ses_complaint("not-spam"), ASIDE),
    ("complaint: auth-failure", ses_complaint("auth-failure"), ASIDE),
    ("complaint: virus", ses_complaint("virus"), ASIDE),
    ("complaint of before", ses_complaint("abuse", "OnAccountSuppressionList"), ASIDE),
    ("reject", ses("Reject", reject={"reason": "Bad content"}), ASIDE),
    ("rendering failure", ses("Rendering Failure", failure={"templateName": "t"}), ASIDE),
    ("delivery delay", ses("DeliveryDelay", deliveryDelay={"delayedRecipients": []}), ASIDE),
    ("open", ses_seen("Open"), ("open",)),
    ("click", ses_seen("Click", link=URL), ("click",)),
    ("open of one of two", ses_seen("Open", (ADDRESS, OTHER)), UNREAD),
    ("click of one of two", ses_seen("Click", (ADDRESS, OTHER), link=URL), UNREAD),
    ("leaves everything", ses_subscription(_IN, ses_topics(True, "OptIn")), ("unsubscribe",)),
    ("leaves a topic", ses_subscription(_IN, _OUT), ("unsubscribe",)),
    ("joins a topic", ses_subscription(_OUT, _IN), ("subscribe",)),
    ("comes back", ses_subscription(ses_topics(True), ses_topics(False)), ("subscribe",)),
    ("changes nothing", ses_subscription(_OUT, _OUT), ASIDE),
    ("somebody of two leaves", ses_subscription(_IN, _OUT, (ADDRESS, OTHER)), UNREAD),
    ("received", {"notificationType": "Received", "mail": {}}, ASIDE),
    ("topic tried", sns("Successfully validated SNS topic for Amazon SES event publishing."), ASIDE),
    ("topic tried, classic", sns({"notificationType": "AmazonSnsSubscriptionSucceeded"}), ASIDE),
    ("SNS: subscription", sns("confirm", "SubscriptionConfirmation"), ASIDE),
    ("SNS: unsubscription", sns("confirm", "UnsubscribeConfirmation"), ASIDE),
    ("SNS: a message of no kind", sns("hello"), UNREAD),
    ("in an envelope", sns(ses_seen("Click", link=URL)), ("click",)),
    ("classic, in an envelope", sns(classic(ses_bounce("Permanent", "General"))), ("hard_bounce",)),
    ("classic", classic(ses_complaint("abuse")), ("complaint",)),
    (
        "classic delivery",
        classic(ses("Delivery", delivery={"timestamp": ISO, "recipients": [ADDRESS]})),
        ("delivered",),
    ),
    ("unknown", ses("Teleport"), UNREAD),
    ("no time", ses("Delivery", delivery={"recipients": [ADDRESS]}), UNREAD),
]
DOCUMENTED: dict[str, list[Row]] = {
    "sendgrid": SENDGRID,
    "ses": SES,
    "mailgun": MAILGUN,
    "postmark": POSTMARK,
    "brevo": BREVO,
    "mailjet": MAILJET,
}
ROWS = [(provider, *row) for provider, rows in DOCUMENTED.items() for row in rows]
LABELS = [f"{provider}: {label}" for provider, label, _, _ in ROWS]
