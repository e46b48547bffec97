"""Who moved since the book before, and why: the words, as SQL over all rows at once.

What enters: a lead as it stands, and as it stood in the book before. What leaves: the columns of a book that compare the two.
The promise: each reason is a fact that can be checked in the two books, and the same facts give the same words.

What moved a score most is looked for in this order, and at most two are said: another model; an engagement since, where the
score did not fall; reasons that are among the strongest now and were not, or no longer are. Where the model changed, reasons
are not compared: two models weigh the same facts differently. What this cannot tell: which of two facts weighed more; whether
a fact that is not among the strongest reasons moved the score (mail that was sent, an attribute of the profile, the pool of
all others); and that something was bound to happen: "time passed without a new engagement" says no more than that.
"""

from __future__ import annotations

AGO = "…"
"""Stands for a number where reasons are compared: "last click 12 days ago" is no other fact than "13 days ago"."""

_NUMBER = r"[0-9][0-9.,]*(?: (?:days?|months?|years?))?"
_PLURAL = rf"{AGO} ([a-z]+?)s\b"

MACROS = (
    rf"""create or replace temp macro without_numbers(words) as
    regexp_replace(
        regexp_replace(replace(words, 'within the last day', '1 day ago'), '{_NUMBER}', '{AGO}', 'g'),
        '{_PLURAL}', '{AGO} \1', 'g'
    )""",
    # What is said of an attribute of the list ("plan: gold 2") is another fact with another number.
    """create or replace temp macro fact(words) as
        case when contains(words, ': ') then words else without_numbers(words) end""",
    """create or replace temp macro listed(label, words) as
        case when len(words) > 0 then label || array_to_string(words, ', ') end""",
    # A list of one struct, because nothing else gives an intermediate result a name.
    """create or replace temp macro came_and_went(these, those) as list_transform(
        [{
            'these': list_transform(these, lambda one: fact(one)),
            'those': list_transform(those, lambda one: fact(one))
        }],
        lambda bare: [
            listed('now a reason: ', list_filter(these, lambda one, i: not list_contains(bare.those, bare.these[i]))),
            listed('no longer a reason: ', list_filter(those, lambda one, i: not list_contains(bare.these, bare.those[i])))
        ]
    )[1]""",
)
"""What the expressions below need."""

MOVED = """case when was.subscriber_id is null then 'new'
    when lead.grade < was.grade then 'up' when lead.grade > was.grade then 'down' else 'same' end"""
"""By grade. ``lead`` and ``was`` are rows of two books, ``was`` null for somebody who was not in the earlier."""

_MODEL = """case when lead.model_version <> was.model_version
    then 'the model changed: version ' || was.model_version || ' to ' || lead.model_version end"""
_ENGAGED = """case when lead.last_engagement_at > coalesce(was.last_engagement_at, '-infinity'::timestamptz)
    then if(was.last_engagement_at is null, 'engaged', 'engaged again') || ', last on '
        || strftime(make_timestamp(epoch_us(lead.last_engagement_at)), '%-d %b %Y') end"""
_REASONS = "case when lead.model_version = was.model_version then came_and_went(lead.words, was.words) end"

_FACTS = f"""if(lead.score < was.score,
    list_concat([{_MODEL}], {_REASONS}), list_concat([{_MODEL}, {_ENGAGED}], {_REASONS}))"""

WHY = f"""case when was.subscriber_id is null then 'new in this list'
    when lead.score <> was.score or lead.grade <> was.grade then coalesce(
        nullif(array_to_string(list_filter({_FACTS}, lambda said: said is not null)[1:2], '; '), ''),
        'scored lower although ' || {_ENGAGED},
        'time passed without a new engagement'
    ) end"""
"""Null where neither score nor grade moved. ``words`` are all reasons of a row, for and against."""
