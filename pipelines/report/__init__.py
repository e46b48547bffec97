"""The report a marketer opens: one self-contained page, a file for each of its parts.

``gather`` finds what is on disk and asks for the page; ``page`` puts the parts in order; each part takes what it tells from
``people`` (sums over the newest lead book, never its rows) or from what training and the monitor found, and makes HTML of it.

The page runs one script of its own, for the slider; the browser is told its hash and will run no other. Without scripts every
number is still there, in tables.
"""
