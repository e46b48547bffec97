"""What pandas does with a lead book: the alternative that exports are measured beside. Run through ``aside``.

What enters: a book. What leaves: one file, written by pandas as its documentation shows. The promise: the frame has the
same rows and columns that ours writes, reasons joined into one text as ours joins them; reading it is not counted.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.people.aside import Account


def to_csv(account: Account, book: str, out: str) -> None:
    frame = _frame(account, book)
    with account.measured():
        frame.to_csv(out, index=False)
    _note(account, frame, out)


def to_parquet(account: Account, book: str, out: str) -> None:
    frame = _frame(account, book)
    with account.measured():
        frame.to_parquet(out, index=False)
    _note(account, frame, out)


def to_excel(account: Account, book: str, out: str) -> None:
    frame = _frame(account, book)
    # Excel has no time zones, and pandas refuses to guess.
    for name in frame.select_dtypes("datetimetz").columns:
        frame[name] = frame[name].dt.tz_localize(None)
    with account.measured():
        frame.to_excel(out, engine="xlsxwriter", index=False)
    _note(account, frame, out)


def _frame(account: Account, book: str) -> pd.DataFrame:
    table = pq.read_table(book)
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            table = table.set_column(place, field.name, pc.binary_join(table[field.name], "; "))
    frame: pd.DataFrame = table.to_pandas()
    account.facts["frame_mb"] = frame.memory_usage(deep=True).sum() / 2**20
    return frame


def _note(account: Account, frame: pd.DataFrame, out: str) -> None:
    account.facts |= {"rows": len(frame), "columns": len(frame.columns), "file_mb": Path(out).stat().st_size / 2**20}
