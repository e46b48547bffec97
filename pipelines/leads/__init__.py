"""Leads for people: the book of everybody's standing, what changed in it, and the files made from it.

Scored parts stream into one ranked book per export (``book``), which knows its predecessor; ``changes`` says what moved,
``selection`` picks rows in rank order, and each format's module writes them. Nothing here holds a list in memory, and
nothing here scores: the numbers are the scorer's, the same as over HTTP.

Weighed: writing files straight from the scores. Then nothing is known of the last export but a file that somebody may
have sorted, and every format would rank and filter by itself.
"""
