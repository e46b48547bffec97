"""Events as email service providers post them: who may post, and how what they say gets into the inbox.

What it is for: ``POST /v1/events/{provider}``. What it never does: read a body it has no reason to trust, answer 200 before
the events are on disk, or wait for another machine on the event loop.

A ``Door`` per provider says whether a request comes from it, on the bytes as they arrived. ``Reception`` takes what a door
lets in, has it read by ``features.providers`` and written by the one ``Writer``. All work in threads of their own: scores have
the event loop to themselves. What was written is brought into the online store by ``live``, a process of its own that a
``Follower`` keeps running: it computes, and would take the interpreter from scores.

Weighed: a queue that answers before it writes would be faster and would lose what a crash finds in it; providers repeat
what was not answered with 200, so being slow is safe and being early is not. One transaction for everything that waits
costs one flush of the disk however many post. Weighed for certificates: the library that Amazon offers fetches whatever
address a message names, as often as it is named; here an address is looked at first, fetched within a deadline, and kept.
"""
