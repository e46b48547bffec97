"""The simulated list is what it says: repeatable, in the contract, messy like an export, and drawn from its truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.contract import (
    CAMPAIGN_COLUMNS,
    EVENT_TYPES,
    HOURS_OF_WEEK,
    RAW_EVENT_COLUMNS,
    SUBSCRIBER_COLUMNS,
    UTC_MICROSECONDS,
)
from features.errors import UnusableOption
from features.networks import network_of
from pipelines.simulator import ARCHETYPES, CATEGORIES, LEFT_BY, START, Simulation, simulate, write

TABLES = ("events", "subscribers", "campaigns", "truth_subscribers", "truth_events")
PEOPLE, DAYS = 2_500, 120


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(PEOPLE, DAYS, seed=3)


@pytest.fixture(scope="module")
def events(simulation: Simulation) -> pd.DataFrame:
    """Each event once, with its truth."""
    events: pd.DataFrame = simulation.events.to_pandas().drop_duplicates("event_id")
    return events.merge(simulation.truth_events.to_pandas(), on="event_id", validate="one_to_one")


@pytest.fixture(scope="module")
def truth(simulation: Simulation) -> pd.DataFrame:
    people: pd.DataFrame = simulation.truth_subscribers.to_pandas()
    return people.set_index("subscriber_id")


@pytest.fixture(scope="module")
def mails(events: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Mails delivered to people who were still there: the true chance of a click, and whether there was one."""
    mails = events[events.event_type == "delivered"].join(truth, on="subscriber_id")
    mails = mails[mails.churned_at.isna() | (mails.occurred_at < mails.churned_at)]
    clicks = events[(events.event_type == "click") & events.is_human][["subscriber_id", "campaign_id"]]
    mails = mails.merge(clicks.drop_duplicates(), how="left", indicator="click")
    hour = local_hour_of_week(mails.occurred_at, mails.timezone)
    chance = np.stack(mails.click_probability.to_list())[np.arange(len(mails)), hour]
    return mails.assign(chance=chance, is_clicked=mails.click == "both")


def local_hour_of_week(at: pd.Series[pd.Timestamp], timezone: pd.Series[str]) -> npt.NDArray[np.int64]:
    hours = np.zeros(len(at), dtype=np.int64)
    for zone in timezone.unique():
        local = at.dt.tz_convert(zone)
        hours = np.where(timezone == zone, local.dt.dayofweek * 24 + local.dt.hour, hours)
    return hours


def test_the_same_arguments_give_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(simulate(200, 40, seed=5), tmp_path / name)
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_another_seed_gives_another_list() -> None:
    assert not simulate(100, 20, seed=5).events.equals(simulate(100, 20, seed=6).events)


def test_events_are_the_raw_contract(simulation: Simulation) -> None:
    types = {name: pa.string() for name in RAW_EVENT_COLUMNS}
    types |= {"occurred_at": UTC_MICROSECONDS, "received_at": UTC_MICROSECONDS}
    types |= {"content": pa.list_(pa.string()), "value": pa.float64()}
    schema = simulation.events.schema
    assert tuple(schema.names) == RAW_EVENT_COLUMNS
    assert {name: schema.field(name).type for name in schema.names} == types
    for name in ("event_id", "subscriber_id", "event_type", "occurred_at", "received_at"):
        assert simulation.events[name].null_count == 0


def test_every_event_type_of_the_contract_occurs(events: pd.DataFrame) -> None:
    assert set(events.event_type) == set(EVENT_TYPES)


def test_subscribers_and_campaigns_are_the_contract_with_attributes(simulation: Simulation) -> None:
    assert tuple(simulation.subscribers.schema.names[:5]) == SUBSCRIBER_COLUMNS
    assert tuple(simulation.campaigns.schema.names[:4]) == CAMPAIGN_COLUMNS
    assert simulation.subscribers.schema.field("created_at").type == UTC_MICROSECONDS
    assert simulation.subscribers.schema.field("company_size").type == pa.float64()
    assert simulation.subscribers.num_rows == simulation.truth_subscribers.num_rows == PEOPLE


def test_every_event_belongs_to_a_subscriber_and_a_campaign_that_exist(
    simulation: Simulation, events: pd.DataFrame
) -> None:
    assert set(events.subscriber_id) <= set(simulation.subscribers["subscriber_id"].to_pylist())
    assert set(events.campaign_id.dropna()) == set(simulation.campaigns["campaign_id"].to_pylist())


def test_nothing_looks_like_an_address_and_whoever_is_nobody_known_has_a_reserved_one(events: pd.DataFrame) -> None:
    assert events.subscriber_id.str.fullmatch(r"s\d{6}").all()
    assert events.event_id.str.fullmatch(r"e\d{10}").all()
    addresses = events.ip.dropna()
    networks = addresses.map({ip: network_of(ip) for ip in addresses.unique()})
    assert set(networks) == {"public", "image_proxy", "prefetch", "datacentre", "scanner"}
    assert addresses[networks == "public"].str.match(r"(192\.0\.2|203\.0\.113)\.\d+$").all()
    assert events.url.dropna().str.startswith("https://example.com/").all()


def test_everything_happens_and_is_learnt_of_within_the_log(events: pd.DataFrame) -> None:
    assert (events.received_at >= events.occurred_at).all()
    assert events.occurred_at.min() >= START
    assert events.received_at.max() < START + pd.Timedelta(days=DAYS)


def test_nobody_acts_before_joining(simulation: Simulation, events: pd.DataFrame) -> None:
    created = simulation.subscribers.to_pandas().set_index("subscriber_id").created_at
    assert (events.occurred_at >= events.subscriber_id.map(created)).all()


def test_one_row_in_a_hundred_is_an_exact_repeat(simulation: Simulation) -> None:
    rows = simulation.events.to_pandas().astype({"content": str})
    assert 0.008 < rows.duplicated("event_id").mean() < 0.012
    assert (rows.duplicated() == rows.duplicated("event_id")).all()


def test_two_events_in_a_hundred_come_late_and_rows_are_in_no_order(
    simulation: Simulation, events: pd.DataFrame
) -> None:
    late = (events.received_at - events.occurred_at) > pd.Timedelta(minutes=20)
    assert 0.015 < late.mean() < 0.025
    backwards = np.diff(simulation.events["occurred_at"].to_numpy().astype(np.int64)) < 0
    assert 0.45 < backwards.mean() < 0.55


def test_some_zones_are_missing_and_some_unknown(simulation: Simulation, truth: pd.DataFrame) -> None:
    recorded = simulation.subscribers.to_pandas().timezone
    assert 0.03 < recorded.isna().mean() < 0.1
    assert 0 < (~recorded.dropna().isin(truth.timezone)).sum() < 0.02 * PEOPLE


def test_consent_is_mostly_given_and_sometimes_refused_or_not_asked(simulation: Simulation) -> None:
    for column in ("consent_profiling", "consent_open_tracking"):
        answers = simulation.subscribers[column].to_pandas()
        assert (answers == True).mean() > 0.8  # noqa: E712  the column holds nulls as well
        assert 0.005 < (answers == False).mean() < 0.04  # noqa: E712
        assert answers.isna().mean() > 0.05


def test_who_refuses_open_tracking_has_no_opens(simulation: Simulation, events: pd.DataFrame) -> None:
    answers = simulation.subscribers.to_pandas().set_index("subscriber_id").consent_open_tracking
    refusing = set(answers[answers == False].index)  # noqa: E712
    assert refusing.isdisjoint(events[events.event_type == "open"].subscriber_id)
    assert not refusing.isdisjoint(events.subscriber_id)


def test_the_empirical_click_rate_follows_the_true_probability(mails: pd.DataFrame) -> None:
    fifths = mails.groupby(pd.qcut(mails.chance, 5), observed=True)
    expected, found = fifths.chance.mean(), fifths.is_clicked.mean()
    spread = 4 * np.sqrt(expected / fifths.size())
    assert found.is_monotonic_increasing
    assert ((found - expected).abs() < spread + 0.1 * expected).all()


def test_people_click_mails_of_their_best_hours_more_than_their_others(mails: pd.DataFrame) -> None:
    with_rhythm = mails[mails.archetype != "flat"]
    mean = np.stack(with_rhythm.click_probability.to_list()).mean(axis=1)
    good = with_rhythm.chance > 1.3 * mean
    poor = with_rhythm.chance < 0.7 * mean
    assert with_rhythm[good].is_clicked.mean() > 2 * with_rhythm[poor].is_clicked.mean()


def test_human_clicks_come_soon_after_the_true_best_hour(events: pd.DataFrame, truth: pd.DataFrame) -> None:
    seen = events[events.event_type.isin(["click", "page_view"]) & events.is_human].join(truth, on="subscriber_id")
    seen = seen[seen.archetype.isin(["commuter", "evening"])]
    hour = local_hour_of_week(seen.occurred_at, seen.timezone)
    hours_after = (hour - seen.best_hour_of_week.to_numpy()) % 24
    assert (hours_after <= 6).mean() > 1.5 * 7 / 24


def test_the_true_best_hour_is_where_the_true_profile_is_highest(truth: pd.DataFrame) -> None:
    profiles = np.stack(truth.click_probability.to_list())
    assert profiles.shape == (PEOPLE, HOURS_OF_WEEK)
    assert ((profiles >= 0) & (profiles <= 1)).all()
    assert (profiles[np.arange(PEOPLE), truth.best_hour_of_week] == profiles.max(axis=1)).all()


def test_flat_people_have_no_best_hour(truth: pd.DataFrame) -> None:
    profiles = np.stack(truth[truth.archetype == "flat"].click_probability.to_list())
    assert np.allclose(profiles, profiles[:, :1])
    assert set(truth.archetype) == set(ARCHETYPES)


def test_nobody_acts_after_leaving_but_machines_do(events: pd.DataFrame, truth: pd.DataFrame) -> None:
    afterwards = events[events.occurred_at > events.subscriber_id.map(truth.churned_at)]
    assert not afterwards.is_human.any()
    assert (afterwards.event_type == "open").any()


def test_leaving_has_a_way_and_a_time_or_neither(truth: pd.DataFrame) -> None:
    assert (truth.churned_at.isna() == truth.left_by.isna()).all()
    assert set(truth.left_by.dropna()) <= set(LEFT_BY)
    assert 0.15 < truth.churned_at.notna().mean() < 0.4


@pytest.mark.parametrize("kind", ["unsubscribe", "complaint", "hard_bounce"])
def test_who_opted_out_or_bounced_hard_gets_no_more_mail(events: pd.DataFrame, kind: str) -> None:
    ended = events[events.event_type == kind].groupby("subscriber_id").occurred_at.min()
    sends = events[events.event_type == "sent"]
    assert len(ended) > 0
    assert not (sends.occurred_at > sends.subscriber_id.map(ended)).any()


def test_one_send_in_ten_goes_out_at_a_random_hour(events: pd.DataFrame) -> None:
    sends = events[events.event_type == "sent"]
    assert 0.09 < sends.is_random_hour.astype(bool).mean() < 0.11
    at_random = sends[sends.is_random_hour.astype(bool)].occurred_at.dt.hour.value_counts(normalize=True)
    assert len(at_random) == 24
    assert at_random.max() < 2 * at_random.min()
    assert events[events.event_type != "sent"].is_random_hour.isna().all()


def test_a_mail_is_delivered_seconds_after_it_was_sent(events: pd.DataFrame) -> None:
    key = ["subscriber_id", "campaign_id"]
    sent, delivered = (events[events.event_type == kind].set_index(key).occurred_at for kind in ("sent", "delivered"))
    waited = (delivered - sent).dropna().dt.total_seconds()
    assert waited.between(0.5, 120).all()
    assert len(waited) > 0.95 * len(sent)


def test_prefetching_opens_the_mail_whatever_the_interest(events: pd.DataFrame, truth: pd.DataFrame) -> None:
    opens = events[(events.event_type == "open") & ~events.is_human]
    assert 0.8 < (opens.user_agent == "Mozilla/5.0").mean() < 0.95
    assert truth.loc[opens.subscriber_id, "is_prefetching"].all()
    assert 0.3 < truth.is_prefetching.mean() < 0.4
    delivered = events[events.event_type == "delivered"].subscriber_id.value_counts()
    share = (opens.subscriber_id.value_counts() / delivered).dropna()
    interest = truth.base_open_rate.reindex(share.index)
    assert abs(share.corr(interest)) < 0.1


def test_image_proxy_opens_are_human(events: pd.DataFrame) -> None:
    proxied = events[events.user_agent.str.contains("GoogleImageProxy", na=False)]
    assert len(proxied) > 100
    assert proxied.is_human.all()


def test_most_scanners_click_within_seconds_and_many_look_like_browsers(
    events: pd.DataFrame, truth: pd.DataFrame
) -> None:
    key = ["subscriber_id", "campaign_id"]
    scans = events[(events.event_type == "click") & ~events.is_human].set_index(key)
    delivered = events[events.event_type == "delivered"].set_index(key).occurred_at
    waited = (scans.occurred_at - delivered.reindex(scans.index)).dt.total_seconds().dropna()
    assert 0.75 < waited.between(0.99, 8.01).mean() < 0.95
    assert waited.between(0.99, 909).all()
    clicks = scans.groupby(key).size()
    assert clicks.median() >= 2
    assert 0.1 < (clicks == 1).mean() < 0.4
    assert 0.4 < (~scans.user_agent.str.contains("Barracuda|Mimecast|proofpoint")).mean() < 0.8
    assert 0.03 < truth.is_scanned.mean() < 0.09
    assert 0.06 < ((scans.received_at - scans.occurred_at) > pd.Timedelta(minutes=20)).mean() < 0.14


def test_some_people_answer_within_a_minute(events: pd.DataFrame) -> None:
    key = ["subscriber_id", "campaign_id"]
    opens = events[(events.event_type == "open") & events.is_human].set_index(key)
    delivered = events[events.event_type == "delivered"].set_index(key).occurred_at
    waited = (opens.occurred_at - delivered.reindex(opens.index)).dt.total_seconds().dropna()
    assert 0.005 < (waited < 60).mean() < 0.08


def test_interests_drive_what_people_view(events: pd.DataFrame, truth: pd.DataFrame) -> None:
    interests = truth[[f"interest_{name}" for name in CATEGORIES]]
    assert np.allclose(interests.sum(axis=1), 1)
    views = events[events.event_type == "page_view"]
    column = views.content.str[0].map(CATEGORIES.index).to_numpy(dtype=np.int64)
    liked = interests.loc[views.subscriber_id].to_numpy()[np.arange(len(views)), column]
    assert liked.mean() > 2 / len(CATEGORIES)


def test_likely_leads_convert_more_often(events: pd.DataFrame, truth: pd.DataFrame) -> None:
    converted = truth.index.isin(events[events.event_type == "conversion"].subscriber_id)
    likely = truth.conversion_propensity > truth.conversion_propensity.quantile(0.75)
    assert 0.03 < converted.mean() < 0.15
    assert converted[likely].mean() > 3 * converted[~likely].mean()


def test_money_is_on_purchases_and_conversions_only(events: pd.DataFrame) -> None:
    has_value = events.value.notna()
    assert (has_value == events.event_type.isin(["purchase", "conversion"])).all()
    assert (events.value.dropna() > 0).all()


def test_files_say_that_they_are_simulated(tmp_path: Path) -> None:
    simulation = simulate(50, 10, seed=1)
    write(simulation, tmp_path / "made" / "here")
    written = {path.name for path in (tmp_path / "made" / "here").iterdir()}
    assert written == {*(f"{name}.parquet" for name in TABLES), "README.txt", "list.toml"}
    readme = (tmp_path / "made" / "here" / "README.txt").read_text()
    assert "SIMULATED" in readme
    assert "inbox simulate --subscribers 50 --days 10 --seed 1" in readme
    for name in TABLES:
        table = pq.read_table(tmp_path / "made" / "here" / f"{name}.parquet")
        assert table.equals(getattr(simulation, name))
        assert b"SIMULATED" in table.schema.metadata[b"origin"]


def test_writing_where_a_file_is_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UnusableOption, match="cannot be written"):
        write(simulate(5, 2, seed=1), tmp_path / "taken")


@pytest.mark.parametrize(("subscribers", "days"), [(1, 1), (1, 30), (30, 1), (3, 400)])
def test_the_smallest_lists_have_the_same_columns(simulation: Simulation, subscribers: int, days: int) -> None:
    small = simulate(subscribers, days, seed=0)
    for name in TABLES:
        assert getattr(small, name).schema.equals(getattr(simulation, name).schema), name
    assert pc.count_distinct(small.events["event_id"]).as_py() == small.truth_events.num_rows


@pytest.mark.parametrize(("subscribers", "days", "seed"), [(0, 10, 1), (10, 0, 1), (10, 10, -1)])
def test_impossible_sizes_are_refused(subscribers: int, days: int, seed: int) -> None:
    with pytest.raises(UnusableOption, match="too small"):
        simulate(subscribers, days, seed)


def test_progress_rises_to_one() -> None:
    shares: list[float] = []
    simulate(20, 30, seed=1, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
