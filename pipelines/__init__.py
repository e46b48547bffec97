"""The verbs: what `inbox` can be told to do, and the only room that knows all the others.

Arguments enter and leave as files, registered versions, a running service, one line of summary and an exit code. Nothing is
computed here that another room could compute: a verb opens the log, calls ``features``, ``training``, ``models`` and
``serving`` in order, and says what happened.

Weighed: an orchestrator of our own was rejected. Every verb can be run twice with the same result, so cron or any
orchestrator can run them.
"""
