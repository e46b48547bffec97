"""Leads for people: the book of an export, its columns and cells, and the page that shows them.

What it is for: ``GET /leads`` in a browser, and ``/v1/leads``, ``/v1/leads/{subscriber_id}`` and ``/v1/leads.csv`` behind it.
What it never does: make a ranking of its own (a page shows the newest book that ``inbox export leads`` wrote), show a row of
a person who has withdrawn consent since, keep an id or a search word in a log, or write a look at the page into the
prediction log: that log is what models are judged by, and nobody was sent anything because somebody looked.

Whoever has withdrawn consent is in no row and no download; asked for by their id, only that is said. In a selection
of at most 1,000 and in a narrowed one in order of ids they are not counted either: ``total``, places and
``withheld`` are those of the others, so none of the three tells their grade, churn band, movement or attributes. In any
other selection of more than 1,000 they are counted in ``total``, keep an empty place and are told as ``withheld``, without a
name. Gaps in ``rank`` stay: ranks are the export's. So it is not kept from everybody: who knows from elsewhere that one
particular person alone has withdrawn, or the moment they last engaged, can read from a gap where they stood.

The way of a question: ``serving.guard`` (a key, or the cookie of ``session``) -> ``routes`` -> ``query`` (text to a checked
selection) -> ``desk`` (threads of their own, bounded) -> ``reader`` (which rows, in DuckDB over the book's Parquet) -> the live
consent of everybody on them -> JSON, or ``cells`` for a download.

The page is one file of HTML with its style and script inside, no framework and nothing from elsewhere. Anybody may load it:
it holds nobody's data and begins by asking the API, which answers with rows or with 401. So a link that comes in by mail
works although the cookie is not sent along with it (``SameSite=Strict``): the page's own requests carry it.

Weighed:

- The book in memory would answer faster and take half a gigabyte for a million leads. A page needs one narrow scan for
  which rows and in which order, and a few row groups for the rows.
- Downloads come in order of rank, like the exported file, whatever the page is sorted by: one pass over the book, a row
  group in memory, and two downloads can be compared line by line.
"""
