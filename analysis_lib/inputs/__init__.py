"""From a benchmark's folder to questions with their clips.

In: a benchmark as published, in a folder or the hub's cache. Out: a `Sample` for each question that can be asked, a
`Skip` with its reason for each that cannot, and the `Clip` of a sample: the frames that a model sees. Nothing here
knows a model. May import nothing of the package but `errors` and `paths`."""
