"""Templates, in every kind of environment Jinja has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inbox_client import AsyncScoresClient, Context, Defaults, ScoresClient, SendTimeAnswer
from inbox_client.jinja import ScoresExtension, use
from jinja2 import (
    ChainableUndefined,
    DictLoader,
    Environment,
    FileSystemBytecodeCache,
    StrictUndefined,
    TemplateRuntimeError,
    TemplateSyntaxError,
    Undefined,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

from tests.client.conftest import KEY
from tests.client.service import Service, answer, http, nowhere, says, serving, well


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(well) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[ScoresClient]:
    with ScoresClient(service.url, KEY, deadline_ms=5000) as client:
        yield client


def rendered(client: ScoresClient, text: str, **values: Any) -> str:
    return use(Environment(autoescape=True), client).from_string(text).render(**values)


def test_the_tag_sets_scores_for_what_follows(client: ScoresClient) -> None:
    text = "{% scores person %}{{ scores.churn.band }} {{ scores.lead_score.grade }} {{ scores.subscriber_id }}"
    assert rendered(client, text, person="s1") == "high B s1"


def test_the_tag_sets_another_name(client: ScoresClient) -> None:
    text = "{% scores one as a %}{% scores two as b %}{{ a.subscriber_id }}{{ b.subscriber_id }}{{ scores is defined }}"
    assert rendered(client, text, one="s1", two="s2") == "s1s2False"


def test_the_filters_say_one_thing_each(client: ScoresClient) -> None:
    assert rendered(client, "{{ person | churn_band }} {{ person | lead_grade }}", person="s1") == "high B"
    assert rendered(client, "{{ person | send_time }}", person="s1") == "2026-11-24 07:00:00+00:00"
    assert rendered(client, "{{ (person | send_time).hour }}", person="s1") == "7"
    assert rendered(client, "{{ person | send_time('%H:%M', 'Europe/Berlin') }}", person="s1") == "08:00"
    for zone in ("Nowhere/At_All", "../../etc/passwd", "", None, 7):
        assert rendered(client, "{{ person | send_time('%H:%M', zone) }}", person="s1", zone=zone) == "07:00"


@pytest.mark.parametrize("undefined", [Undefined, StrictUndefined, ChainableUndefined])
def test_a_zone_that_is_missing_is_utc(client: ScoresClient, undefined: type[Undefined]) -> None:
    template = use(Environment(undefined=undefined), client).from_string("{{ s | send_time('%H:%M', s.tz) }}")
    assert template.render(s={"id": "s1"}) == "07:00"


def test_a_moment_that_another_zone_has_no_year_for_is_in_utc() -> None:
    never = Defaults(send_time=SendTimeAnswer(datetime(9999, 12, 31, 23, 30, tzinfo=UTC)))
    with ScoresClient(nowhere(), KEY, defaults=never) as client:
        assert rendered(client, "{{ 's1' | send_time('%H:%M %Z', 'Asia/Tokyo') }}") == "23:30 UTC"


class Closed:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("the database is gone")


class Raising:
    @property
    def subscriber_id(self) -> str:
        raise RuntimeError("the database is gone")

    id = "s9"


@pytest.mark.parametrize(
    ("subscriber", "name"),
    [
        ("s1", "s1"),
        (17, "17"),
        ({"subscriber_id": "s1", "id": 4}, "s1"),
        ({"id": 4}, "4"),
        (SimpleNamespace(subscriber_id="s1"), "s1"),
        (SimpleNamespace(id=4), "4"),
        (Raising(), "s9"),
    ],
)
def test_a_subscriber_is_an_id_or_carries_one(client: ScoresClient, subscriber: object, name: str) -> None:
    text = "{% scores person %}{{ scores.subscriber_id }} {{ scores.status }}"
    assert rendered(client, text, person=subscriber) == f"{name} ok"


@pytest.mark.parametrize(
    "subscriber", [None, "", {}, [], object(), "x" * 300, {"id": 10**5000}, SimpleNamespace(id=[])]
)
def test_a_subscriber_who_is_none_is_a_fallback(client: ScoresClient, service: Service, subscriber: object) -> None:
    text = "{% scores person %}{{ scores.status }} {{ person | churn_band }}"
    assert rendered(client, text, person=subscriber) == "fallback low"
    assert service.asked == []


def test_a_subscriber_who_answers_nothing_is_a_fallback_in_utc(client: ScoresClient, service: Service) -> None:
    text = "{% scores person %}{{ scores.status }} {{ person | send_time('%Z', person) }}"
    assert rendered(client, text, person=Closed()) == "fallback UTC"
    assert service.asked == []


@pytest.mark.parametrize("undefined", [{}, {"undefined": StrictUndefined}])
def test_an_undefined_subscriber_is_a_fallback(client: ScoresClient, undefined: dict[str, Any]) -> None:
    environment = use(Environment(**undefined), client)
    text = "{% scores nobody %}{{ scores.status }} {{ nobody | churn_band }}"
    assert environment.from_string(text).render() == "fallback low"


def test_a_service_that_is_gone_leaves_the_message_whole() -> None:
    with ScoresClient(nowhere(), KEY) as client:
        text = (
            "Hello {% scores person %}{{ scores.churn.band }} {{ person | send_time('%Y') }} {{ scores.churn.reasons }}"
        )
        assert rendered(client, text, person="s1") == f"Hello low {datetime.now(UTC):%Y} None"


def test_it_works_in_loops_macros_blocks_and_includes(client: ScoresClient) -> None:
    templates = {
        "base": "<{% block body %}{% endblock %}>",
        "part": "{{ scores.subscriber_id }}",
        "macros": "{% macro card(person) %}{% scores person %}[{{ scores.subscriber_id }}]{% endmacro %}",
        "main": "{% extends 'base' %}{% import 'macros' as m %}{% block body %}{% import 'macros' as m %}"
        "{% for person in people %}{% scores person %}{% include 'part' %}{{ m.card(person) }}{% endfor %}"
        "{{ scores is defined }}{% endblock %}",
    }
    environment = use(Environment(loader=DictLoader(templates)), client)
    assert environment.get_template("main").render(people=["s1", {"id": 2}]) == "<s1[s1]2[2]False>"


@pytest.mark.parametrize("kind", [Environment, SandboxedEnvironment, ImmutableSandboxedEnvironment])
@pytest.mark.parametrize("is_async", [False, True])
def test_it_works_in_every_kind_of_environment(client: ScoresClient, kind: type[Environment], is_async: bool) -> None:
    environment = use(kind(enable_async=is_async, autoescape=True), client)
    text = "{% scores person %}{{ scores.churn.band }} {{ person | lead_grade }} {{ 's2' | send_time('%H') }}"
    assert environment.from_string(text).render(person="s1") == "high B 07"


@pytest.mark.parametrize("kind", [Environment, SandboxedEnvironment])
def test_an_asynchronous_client_is_awaited(service: Service, kind: type[Environment]) -> None:
    async def run() -> str:
        async with AsyncScoresClient(service.url, KEY, deadline_ms=5000) as client:
            environment = use(kind(enable_async=True), client, prefetched=await client.prefetch(["s3"]))
            text = (
                "{% for person in people %}{% scores person as one %}{{ one.subscriber_id }}{{ person | churn_band }}"
                "{{ person | send_time('%H') }} {% endfor %}{{ 's3' | lead_grade }}"
            )
            return await environment.from_string(text).render_async(people=["s1", "s3"])

    assert asyncio.run(run()) == "s1high07 s3high07 B"


def test_an_asynchronous_client_in_a_synchronous_environment_is_refused(service: Service) -> None:
    with pytest.raises(TypeError, match="enable_async"):
        use(Environment(), AsyncScoresClient(service.url, KEY))


def test_a_client_or_a_context_that_is_none_is_refused_at_once(client: ScoresClient) -> None:
    with pytest.raises(TypeError, match="ScoresClient"):
        use(Environment(), "http://127.0.0.1:3000")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Context"):
        use(Environment(), client, context={"campaign_id": "c12"})  # type: ignore[arg-type]


def test_who_was_prefetched_is_not_asked_for(client: ScoresClient, service: Service) -> None:
    ready = client.prefetch(["s1", 2])
    environment = use(Environment(), client, prefetched=ready)
    template = environment.from_string("{% scores person %}{{ scores.status }}{{ person | churn_band }}")
    assert [template.render(person=one) for one in ("s1", 2, {"id": "2"})] == ["okhigh"] * 3
    assert len(service.asked) == 1
    assert template.render(person="s3") == "okhigh"
    assert len(service.asked) == 3


def test_the_context_of_the_message_goes_along(client: ScoresClient, service: Service) -> None:
    environment = use(Environment(), client, context=Context(campaign_id="c12"))
    other = use(environment.overlay(), client, context=Context(campaign_id="c13"))
    text = "{% scores person %}{{ scores.status }}{{ person | churn_band }}"
    assert environment.from_string(text).render(person="s1") == "okhigh"
    assert other.from_string(text).render(person="s1") == "okhigh"
    assert [asked.json["context"]["campaign_id"] for asked in service.asked] == ["c12", "c12", "c13", "c13"]


def test_nothing_is_asked_while_a_template_is_compiled(client: ScoresClient, service: Service) -> None:
    use(Environment(), client).from_string("{% scores 's1' %}{{ 's1' | churn_band }}")
    assert service.asked == []


def test_compiled_templates_may_be_kept_and_used_with_another_client(service: Service, tmp_path: Path) -> None:
    templates = {"main": "{% scores person %}{{ scores.churn.band }}{{ person | churn_band }}"}
    for url, band in ((service.url, "highhigh"), (nowhere(), "lowlow")):
        kept = Environment(loader=DictLoader(templates), bytecode_cache=FileSystemBytecodeCache(str(tmp_path)))
        with ScoresClient(url, KEY, deadline_ms=2000) as client:
            assert use(kept, client).get_template("main").render(person="s1") == band
    assert len(list(tmp_path.iterdir())) == 1


def test_what_the_service_says_is_escaped() -> None:
    row = {"probability": 0.1, "band": "low", "percentile": 3, "reasons": ["<script>alert(1)</script>"]}
    with (
        serving(says(lambda asked: http(200, answer(asked, churn=row)))) as service,
        ScoresClient(service.url, KEY, deadline_ms=5000) as client,
    ):
        text = rendered(client, "{% scores person %}{{ scores.churn.reasons[0] }}", person="s1")
    assert text == "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{% scores %}", "scores needs a subscriber"),
        ("{% scores person them %}", "nothing but: as name"),
        ("{% scores person as %}", "expected token 'name'"),
        ("{% scores person as a.b %}", "nothing but: as name"),
        ("{% scores person, other %}", "nothing but: as name"),
        ("{% scores | upper %}", "unexpected"),
        ("{% scores person", "unexpected end of template"),
        ("{% endscores %}", "unknown tag 'endscores'"),
        ("{{ person | send_tme }}", "No filter named 'send_tme'"),
    ],
)
def test_a_broken_template_is_said_with_its_line(client: ScoresClient, text: str, words: str) -> None:
    with pytest.raises(TemplateSyntaxError, match=words) as raised:
        use(Environment(), client).from_string(f"Hello\n\n{text}\n")
    assert raised.value.lineno in (3, 4)


def test_an_environment_nobody_gave_a_client_says_what_to_do() -> None:
    template = Environment(extensions=[ScoresExtension]).from_string("{% scores 's1' %}")
    with pytest.raises(TemplateRuntimeError, match="use"):
        template.render()
