"""Two Video LLMs on a pretrained language model, trained the ordinary way: `smol-image` and `smol`.

`base` brings the language model, `wording` and `lessons` say what is asked about a clip, `rows` lays questions out,
`network` is the model while it learns, `projector` its start, `train` the loop, `folder` the finished checkpoints.
"""
