"""The embedded benchmark and the embedded models, from nothing.

In: a seed. Out: rendered clips with questions, in TVBench's layout, and checkpoints in the published format, so that
the rest of the package meets them as it meets any other benchmark or model. `smol/` trains a Video LLM on a pretrained
language model. May import `inputs` and `models`.
"""
