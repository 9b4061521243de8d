"""What runs and sums up the study: notebooks, agreement with the record, README.md, costs, drift, and the site.

In: settings of the command line. Out: executed notebooks, a report, blocks of README.md, tables in data, build/site.
May import every other room."""
