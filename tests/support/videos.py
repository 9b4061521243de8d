"""Made-up values of videos: noise with a level of its own for each."""

import numpy as np
import pandas as pd


def clustered(rng, n_videos=30, per_video=3, mean=0.0, between=1.0, within=0.3):
    """Values that share a video's own level."""
    video = np.repeat(np.arange(n_videos), per_video)
    value = mean + rng.normal(0, between, n_videos)[video] + rng.normal(0, within, video.size)
    return pd.DataFrame({"video": video, "sample_id": np.arange(video.size), "value": value})


def curves(rng, n_videos=20, layers=8, shift=None):
    """One noisy curve per video, correlated along the layers."""
    noise = rng.normal(size=(n_videos, layers)) + rng.normal(size=(n_videos, 1))
    noise = noise + (0 if shift is None else np.asarray(shift))
    frame = pd.DataFrame(noise, columns=range(1, layers + 1)).rename_axis("video")
    return frame.melt(ignore_index=False, var_name="layer", value_name="value").reset_index()
