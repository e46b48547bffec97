"""The serving benchmark: our hot path beside the stock stack and the floor, in one run, on the same data.

::

    python -m benchmarks.serving --quick            # a few minutes, 5,000 subscribers
    python -m benchmarks.serving                    # 50,000 subscribers
    python -m benchmarks.serving --only http_bulk   # one measure; what was prepared before is used again

What enters: a simulated list, made once and kept under ``--work``. What leaves: one table, and JSON with every run. The
promise: contenders take turns within one run (A B C A B C …), what is compared is medians and the ratios of each
round, and nothing is asserted: the goals of issue 3 are printed beside what was found.

- ``data``    the list, its states, three real models of 300 trees, as bundles
- ``stock``   Feast SDK, MLflow, one ``@bentoml.api``, as the vendors' documentation shows
- ``ours``    the service as it is shipped, in homes of its own
- ``floor``   what no code above the database, the trees and the server could undercut
- ``load``    the load generator, a process of its own
- ``measures``, ``report``   what is compared, and how it is shown

Weighed: a subprocess for each measured read. The readers share one process instead, so that caches and clocks are the
same for all; the services and the load generator have processes of their own, as in life.
"""
