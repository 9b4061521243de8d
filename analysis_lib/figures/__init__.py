"""From tables and verdicts to figures.

In: stored tables, and claims that give the titles. Out: one figure, with the table of the numbers in it. One function
a figure. May import `findings`, and the tables of `study`.
"""
