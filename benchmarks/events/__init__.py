"""Events from the real world, measured: adapters, the webhook endpoint, live updates, and what they cost the scores.

Run ``python -m benchmarks.events``. Never imported by what is served.
"""
