"""What the project makes for itself: checkpoints and clips that need no download of weights or videos."""
