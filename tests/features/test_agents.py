"""What a user agent says on its own."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.agents import APPLE_PREFETCH, GMAIL_PREFETCH, LONGEST, agent_of, classify_agents
from features.contract import AGENTS

EXAMPLES = {
    None: "unknown",
    "": "unknown",
    "  ": "unknown",
    APPLE_PREFETCH: "prefetch",
    f" {APPLE_PREFETCH}\n": "prefetch",
    GMAIL_PREFETCH: "prefetch",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)": "image_proxy",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html": "image_proxy",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": "scanner",
    "Mozilla/5.0 (compatible; Barracuda Sentinel (EE))": "scanner",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/100.0 Safari/537.36": "scanner",
    "Proofpoint URL Defense": "scanner",
    "python-requests/2.31.0": "scanner",
    "curl/8.5.0": "scanner",
    "Go-http-client/1.1": "scanner",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)": "person",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:115.0) Gecko/20100101 Thunderbird/115.3.1": "person",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.5422; Pro)": "person",
    "Outlook-iOS/709.2189947.prod.iphone (3.24.1)": "person",
    "Mozilla/5.0 (Linux; Android 15; CPH2557 Build/AP3A.240617.008; wv) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Version/4.0 Chrome/142.0.7444.142 Mobile Safari/537.36 Instagram 406.0.0.58.159 Android": "person",
}


@pytest.mark.parametrize(("user_agent", "agent"), EXAMPLES.items())
def test_a_known_user_agent_has_its_class(user_agent: str | None, agent: str) -> None:
    assert classify_agents(pa.array([user_agent], pa.string())).to_pylist() == [agent]


@given(st.lists(st.sampled_from(list(EXAMPLES)), max_size=30))
def test_the_class_depends_on_nothing_but_the_value(user_agents: list[str | None]) -> None:
    assert classify_agents(pa.array(user_agents, pa.string())).to_pylist() == [EXAMPLES[one] for one in user_agents]


@given(st.text())
def test_any_text_has_a_class_of_the_contract(user_agent: str) -> None:
    assert classify_agents(pa.array([user_agent])).to_pylist()[0] in AGENTS


# Arrow compiles its patterns at every call.
@settings(deadline=None, max_examples=25)
@given(st.one_of(st.sampled_from(list(EXAMPLES)), st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_one_is_classed_as_many_are(user_agent: str | None) -> None:
    assert agent_of(user_agent) == classify_agents(pa.array([user_agent], pa.string()))[0].as_py()


def test_a_user_agent_longer_than_any_is_looked_at_in_part() -> None:
    endless = "Mozilla/5.0 (X11) " + "x" * LONGEST + " curl Googlebot"
    assert agent_of(endless) == classify_agents(pa.array([endless]))[0].as_py() == "person"


def test_nothing_but_nulls_is_unknown() -> None:
    assert classify_agents(pa.nulls(2)).to_pylist() == ["unknown", "unknown"]
