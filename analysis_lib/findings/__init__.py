"""From stored tables to verdicts.

In: tables of a results folder. Out: intervals over videos, and the paper's findings as claims, each reproduced, not
reproduced or undecided. Reads tables only: no model, no torch. May import the tables and names of `study`.
"""
