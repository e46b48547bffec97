"""What is measured instead of asserted: each benchmark prints a table and writes JSON.

What enters: a work directory. What leaves: numbers with the machine they were taken on. The promise: nothing here is
imported by the service, and no test depends on a number from here.
"""
