"""What people and renderers get, measured: rendered messages, the client's overhead, exports, the page of leads.

Run ``python -m benchmarks.people``. Never imported by what is served.
"""
