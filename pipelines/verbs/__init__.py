"""One file per verb: its options, its help, its summary line. What a verb does is a function one floor up.

Each file is loaded only when its verb is called: importing MLflow and Feast takes seconds, and `--help` should not.
"""
