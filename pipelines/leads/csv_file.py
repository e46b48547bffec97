"""Leads as one CSV file, for a person with a spreadsheet.

What enters: leads in rank order. What leaves: the file. The promise: see ``serving.leads.cells``, which the service's
download uses as well.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.leads.tally import Leads
from serving.leads.cells import csv_block, csv_header


def write_csv(leads: Leads, beside: Path) -> None:
    with beside.open("wb") as file:
        file.write(csv_header(leads.columns))
        for piece in leads.pieces():
            file.write(csv_block(piece, leads.columns))
