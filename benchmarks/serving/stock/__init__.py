"""The stock stack, written as its vendors' documentation shows it, tuned in nothing.

What enters: the same subscribers, the same derived features, the same trees as ours. What leaves: a Feast repository on
SQLite or Redis, three models logged with MLflow, a Bento that joins the two. The promise: each piece follows the page
cited in its file, with no option set that the page does not set, and nothing left out that would make it faster.

Where a page leaves a choice, the stock stack gets the faster one: all features of a request in one
``get_online_features``, models in memory, the trees read once per process.
"""
