"""How good are the models on real lists? One command runs every set and prints the table.

What enters: directories in the input contract (``../shared/data`` beside a checkout, or your own), and lists simulated
here. What leaves: a table on the terminal and ``quality.json``: ours and the best baseline on the same later rows, with
intervals. The promise: each figure comes from ``inbox backtest``'s own code, on rows later than anything learnt from, or on
people nothing was learnt from, and the cut of each set was chosen before any figure was seen.

    .venv/bin/python -m benchmarks.quality [--quick] [--only NAME] [--data DIR] [--out DIR]
"""
