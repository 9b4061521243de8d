"""From a checkpoint's folder and a sample to one merged prompt.

In: a checkpoint folder or hub id, a `Sample` and its `Clip`. Out: a loaded `VideoLLM`, and `Inputs`: prompt and video
tokens merged, with the role of every position. All that differs between model families is known here and nowhere else.
May import `inputs`."""
