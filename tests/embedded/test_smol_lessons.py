"""What smol is asked, and rows of questions as trees."""

import numpy as np
import pytest
from smol_base import write_tiny_base

from analysis_lib.embedded import quiz, world
from analysis_lib.embedded.smol import facts as facts_of
from analysis_lib.embedded.smol import lessons, score
from analysis_lib.embedded.smol.base import load_tokenizer
from analysis_lib.embedded.smol.rows import Prompts, Row, lay_out
from analysis_lib.embedded.smol.wording import HELD_OUT, STATEMENTS, WORDINGS, reworded
from analysis_lib.inputs.records import Question
from analysis_lib.models.prompts import build_prompt


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return Prompts(load_tokenizer(write_tiny_base(tmp_path_factory.mktemp("base"))))


def path(half, row, place, system):
    """Ids that a place sees of its own row."""
    return half["ids"][row][half["mask"][row, 0, place, system:] == 0].tolist()


def kinds_and_rows(half):
    rows = half["places"] // half["ids"].shape[1]
    return [(kind, rows[numbers[0]]) for kind, _, numbers in half["asked"]]


def test_a_path_of_a_row_is_the_published_prompt(prompts):
    text, options = "What does the red circle do in the video?", ("grows", "shrinks")
    row = Row.start(160, 9)
    assert row.add(prompts.letter("k", text, options, 1)) and row.add(prompts.words("k", text, "shrinks"))
    assert row.add(prompts.letter("k", text, options[::-1], 0))
    half, system = lay_out([row], prompts.system), len(prompts.system)
    whole = prompts.tokenizer(build_prompt(Question(text, options), "mvbench").text)["input_ids"]
    at = whole.index(prompts.image)
    (_, (place,)), (_, places), _ = row.asked
    assert [*prompts.system, *[0] * 9, *whole[at + 1 :]] == [*prompts.system, *path(half, 0, place, system)]
    assert half["positions"][0, place] == len(whole) + 8 - 1
    assert half["places"].tolist() == [place, *places, *row.asked[2][1]] and half["said"][0] == prompts.letters[1]
    said = half["said"][half["asked"][1][2]].tolist()
    assert prompts.tokenizer.decode(said) == "shrinks</s>" and said[-1] == prompts.end
    asked = prompts.tokenizer.decode(path(half, 0, places[0], system)[9:])
    assert asked.endswith(f"Question: {text} ASSISTANT:")
    shared = [i for i, parent in enumerate(row.parents) if row.parents.count(i) > 1]
    assert len(shared) == 2 and half["lettered"].tolist() == [True, *[False] * len(said), True]


def test_a_branch_that_does_not_fit_is_left_out_whole(prompts):
    row = Row.start(20, 9)
    assert not row.add(prompts.words("k", "What does the red circle do in the video?", "grows"))
    assert len(row.ids) == 9 and row.asked == []


def test_places_without_a_token_see_the_system_text_alone(prompts):
    half = lay_out([Row.start(20, 9), Row.start(20, 12)], (1, 2, 3, 4, 5))
    assert half["ids"].shape == (2, 12) and (half["mask"][0, 0, 9:] == 0).sum(-1).tolist() == [5, 5, 5]


def test_halves_are_a_function_of_their_seed_and_hold_what_the_plan_says(prompts):
    plan = lessons.Plan(clips=2, drills=1, length=230, video=True)
    one, same = (lessons.make_half(np.random.default_rng(3), prompts, plan) for _ in range(2))
    assert one.keys() == same.keys() and one["asked"] == same["asked"]
    assert all(np.array_equal(one[key], same[key]) for key in ("images", "ids", "said", "mask"))
    assert one["images"].shape == (2, 8, 48, 48, 3) and one["video"] == 72 and one["ids"].shape[1] <= 230
    assert {kind for kind, row in kinds_and_rows(one) if row == 2} == {"drill"}
    few = lessons.make_half(np.random.default_rng(3), prompts, lessons.Plan(2, 0, 230, True, lettered=0.0))
    assert not any(letter for _, letter, *_ in few["asked"])


def test_stills_show_one_frame_or_it_eight_times(prompts):
    plan = lessons.Plan(clips=1, drills=0, length=180, video=False)
    halves = [lessons.make_half(np.random.default_rng(i), prompts, plan) for i in range(30)]
    assert {half["video"] for half in halves} == {9, 72}
    assert all((half["images"] == half["images"][:, :1]).all() for half in halves)
    assert not {kind for half in halves for kind, *_ in half["asked"]} & set(quiz.TASKS)


def test_facts_answer_as_the_benchmark_does():
    for task in quiz.TASKS:
        for i in range(20):
            clip = world.make_scenario(np.random.default_rng([1, i]), task, lessons.TIMES)
            asked = quiz.ask(clip, task, np.random.default_rng(i))
            put = {
                WORDINGS[fact.kind][0].format(**fact.names): fact
                for fact in facts_of.video_facts(clip) if fact.kind == task
            }  # fmt: skip
            fact = put[asked.question]
            assert fact.answer == asked.options[asked.answer] and set(asked.options) == set(fact.pool)


def test_every_wording_can_be_put_and_held_out_ones_are_new():
    names = {"thing": "red circle", "when": "first", "colour": "red", "shape": "circle", "answer": "red"}
    names |= {"moment": "at the end"}
    for wordings in (WORDINGS, HELD_OUT):
        assert all("{" not in text.format(**names) for texts in wordings.values() for text in texts)
    assert not {t for texts in HELD_OUT.values() for t in texts} & {t for texts in WORDINGS.values() for t in texts}
    assert set(HELD_OUT) == set(quiz.TASKS) and set(STATEMENTS) < set(WORDINGS)
    text = "What does the red circle do first in the video?"
    assert reworded("action_sequence", text, HELD_OUT["action_sequence"][1]) == "First, what does the red circle do?"
    with pytest.raises(ValueError, match="is not the benchmark's question of object_count"):
        reworded("object_count", text, HELD_OUT["object_count"][0])


def test_in_a_busy_clip_things_act_apart_from_each_other():
    clips = [lessons.busy_clip(np.random.default_rng(i)) for i in range(30)]
    for clip in clips:
        assert len({thing.colour for thing in clip.things}) == len(clip.things) in (2, 3)
        assert all(len(thing.x) == len(lessons.TIMES) == len(clip.mix) for thing in clip.things)
    acting = [sum(thing.behaviour != "static" for thing in clip.things) for clip in clips]
    assert max(acting) == 3 and {bool(clip.mix.any()) for clip in clips} == {True, False}


def test_captions_tell_what_each_thing_does():
    clip = world.make_scenario(np.random.default_rng(5), "action_sequence", lessons.TIMES)
    hero = clip.things[0]
    first, last = (quiz.VERBS[event] for event in hero.events)
    assert f"{hero.name} {quiz.place(hero)} {first} then {last}" in facts_of.caption(clip, True)
    assert first not in facts_of.caption(lessons.one_frame(clip, 0), False)


def test_validation_is_the_same_however_it_is_shared(prompts):
    def asked(parts):
        halves = [half for part in range(parts) for half in score.validation(prompts, 4, part, parts)]
        return sorted((kind, half["images"][row].sum()) for half in halves for kind, row in kinds_and_rows(half))

    assert asked(1) == asked(2) and {kind for kind, _ in asked(1)} == set(score.KINDS)


def test_where_a_thing_begins_and_ends_is_asked_too():
    clip = world.make_scenario(np.random.default_rng(4), "moving_direction", lessons.TIMES)
    hero = clip.things[0]
    hero.x, hero.y = np.linspace(0.2, 0.6, 8), np.linspace(0.6, 0.2, 8)
    hero.behaviour = "northeast"
    facts = {fact.kind: fact.answer for fact in facts_of.thing_facts(hero)}
    assert (facts["start"], facts["end"], facts["moves"]) == ("bottom left", "top right", "yes")
    assert (facts["across"], facts["upward"], facts["moving_direction"]) == ("right", "up", "northeast")
    assert f"{hero.name} bottom left to top right moves northeast" in facts_of.caption(clip, True)
    for what, answers in {"grow": ("small", "large"), "disappear": ("yes", "no")}.items():
        hero.behaviour = what
        assert tuple(fact.answer for frame in (0, -1) for fact in facts_of.moment_facts(hero, frame)) == answers
    hero.x, hero.behaviour = np.linspace(0.2, 0.53, 8), "northeast"
    assert "end" not in {fact.kind for fact in facts_of.thing_facts(hero)}


def test_less_than_one_drill_is_one_in_so_many_halves(prompts):
    plan = lessons.Plan(clips=1, drills=0.25, length=180, video=False)
    halves = [lessons.make_half(np.random.default_rng(i), prompts, plan) for i in range(40)]
    assert 4 <= sum(len(half["ids"]) == 2 for half in halves) <= 16


@pytest.mark.parametrize("video", [False, True])
def test_a_told_clip_says_what_its_questions_ask(prompts, video):
    plan = lessons.Plan(clips=1, drills=1, length=260, video=video, read=1.0)
    half = lessons.make_half(np.random.default_rng(5), prompts, plan)
    assert {kind for kind, row in kinds_and_rows(half) if row == 1} == {"read"}
    row = lessons._read_row(np.random.default_rng(6), prompts, plan)
    for branch, places in row.asked:
        ids, node = [], places[0]
        while node >= 0:
            ids, node = [row.ids[node], *ids], row.parents[node]
        text = prompts.tokenizer.decode(ids)
        assert text.count("Question:") == 1 and any(scene in text for scene in world.SCENES)
        assert branch.letter == ("Best option" in text)
