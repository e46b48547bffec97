"""What changed between a book and the one before it, in numbers and one sentence.

What enters: a book. What leaves: how many moved between which grades, came or went, and the commonest reasons. The promise:
the counts add up to the book's rows, and are of the book alone: the one before it may be gone by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any

import duckdb

from pipelines.leads.book import scan
from pipelines.leads.movement import MACROS
from serving.leads.book import Book, moment_of
from serving.leads.columns import GRADES

REASONS_TOLD = 10

_CONFIG: dict[str, Any] = {
    # Counting needs little, and nothing of it may lie about on a disk.
    "memory_limit": "500MB",
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@dataclass(frozen=True)
class Changes:
    """What moved since the book before. ``since`` is that one's moment; up and down are by grade."""

    since: datetime
    new: int
    gone: int
    up: int
    down: int
    same: int
    rescored: int
    """Whose score is another; those who moved between grades included."""
    moved: Mapping[tuple[str, str], int]
    """How many stood in one grade and stand in another, for all pairs (before, now)."""
    reasons: Sequence[tuple[str, int]]
    """The commonest reasons why a score moved, without their numbers and dates, commonest first."""

    def in_words(self) -> str:
        """One sentence, such as "312 leads changed grade since 14 Nov 2026 (201 up, 111 down), 40 are new, 12 are gone"."""
        crossed = self.up + self.down
        return (
            f"{crossed:,} {'lead' if crossed == 1 else 'leads'} changed grade since {self.since.astimezone(UTC):%-d %b %Y} "
            f"({self.up:,} up, {self.down:,} down), {self.new:,} {_are(self.new)} new, {self.gone:,} {_are(self.gone)} gone"
        )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def changes_of(book: Book) -> Changes | None:
    """What changed since the book before; None when there was none."""
    if book.previous_id is None:
        return None
    with duckdb.connect(config=_CONFIG) as con:
        for macro in MACROS:
            con.execute(macro)
        con.execute(f"create temp view book as {scan(book.path)}")
        movements = dict(con.execute("select movement, count(*) from book group by movement").fetchall())
        pairs = con.execute(_PAIRS).fetchall()
        ((rescored,),) = con.execute("select count(*) from book where score_change <> 0").fetchall()
        reasons = con.execute(_REASONS).fetchall()
    return Changes(
        since=moment_of(book.previous_id),
        gone=book.gone,
        **{movement: movements.get(movement, 0) for movement in ("new", "up", "down", "same")},
        rescored=rescored,
        moved=dict.fromkeys(product(GRADES, GRADES), 0) | {(then, now): count for then, now, count in pairs},
        reasons=reasons,
    )


_PAIRS = "select grade_before, grade, count(*) from book where grade_before is not null group by all"
_REASONS = f"""
    select if(starts_with(said, 'the model changed'), said, part.label || fact(one)) as reason, count(*) as leads
    from (
        select said, part, unnest(if(part.label = '', [part.words], string_split(part.words, ', '))) as one
        from (
            select unnest(string_split(change_reason, '; ')) as said,
                regexp_extract(
                    said, '(?s)^(now a reason: |no longer a reason: )?(.*?)(, last on .*)?$', ['label', 'words', 'date']
                ) as part
            from book where change_reason is not null
        )
    ) group by reason order by leads desc, reason limit {REASONS_TOLD}
"""
"""Each reason by itself, though a score may have moved for two. A value of an attribute with a comma in it counts in parts."""
