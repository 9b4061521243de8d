"""From a merged prompt and what is to be cut to logits, with the proof that it was cut.

In: `Inputs` of a loaded `VideoLLM`, and conditions: edge sets in windows of layers, or pathways. Out: logits at the
last position, readings of the residual stream, and a `Receipt` for every run. It stores nothing and knows no benchmark.
May import `models` and `inputs`."""
