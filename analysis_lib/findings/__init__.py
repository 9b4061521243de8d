"""From stored tables to verdicts.

In: tables of a results folder. Out: intervals over videos, and the paper's findings as claims, each reproduced, not
reproduced or undecided; a run beside the record, or beside the paper's own numbers. Reads tables only: no model, no
torch. May import the tables and names of `study`."""

# isort: off
from analysis_lib.findings.claims import Claim, by_task, effective_ranges, neighbours, pathway_answers, summary, table
from analysis_lib.embedded.door import DESIGNED
from analysis_lib.findings.control import positive_control
from analysis_lib.findings.paper import (
    above_chance, answer_after_integration, answer_in_second_half, cross_frame_early, early_half_accuracy,
    integration_before_answer, integration_in_the_middle, lost_answers, margin_changes, most_edges_closed,
    pathway_beats_random, pathway_keeps_accuracy, temporal_evidence, temporal_words_later, true_option_dominates,
    video_training,
)  # fmt: skip
from analysis_lib.findings.robustness import fragility, other_trainings
from analysis_lib.findings.stats import mcnemar, split_videos
from analysis_lib.findings.stored import across_models, stored_claims, stored_folders
