"""The study as a site of static files, made from what is stored: pages, an explorer of the tables, and their check.

`build` lays the sources of the pages into build/site/source, in the layout of the repository so that links hold, and
lets Sphinx make HTML of them. `explorer` writes the explorer's data. `check` looks at the result in a browser."""
