"""From tables and verdicts to figures.

In: stored tables, and claims that give the titles. Out: a figure, with the table of the numbers in it. One function a
figure: `figures/<model>/02_keywords.png` is drawn by `keywords`, and so for all. `save` writes picture and table. May
import `findings`, and the tables of `study`."""

# isort: off
from analysis_lib.figures.bars import accuracy, bench, fragility, keywords, open_layers, pathways, verdicts
from analysis_lib.figures.curves import (
    CURVE_NOTE, answer_by_layer, cross_frame, frame_distance, halves, knockout_curves, options_to_last,
    store_growth, to_true_option, video_question_last, window_sizes,
)  # fmt: skip
from analysis_lib.figures.maps import MAP_NOTE, frame_pairs, heads_to_last, heads_video_last
from analysis_lib.figures.pictures import STEPS, attention, flow, query_word, trainings, words_on_frames
from analysis_lib.figures.style import save
