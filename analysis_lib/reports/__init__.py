"""What runs and sums up the study: executed notebooks, the numbers in README.md, the cost of a sweep, the site.

In: settings of the command line. Out: executed notebooks, blocks of README.md, data/bench, build/site. May import
every other room."""
