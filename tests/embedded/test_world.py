"""The rendered world: deterministic, in the frame, and balanced where text must not tell."""

import numpy as np
import pytest

from analysis_lib.embedded import world
from analysis_lib.embedded.quiz import TASKS
from analysis_lib.inputs.videos import load_clip

TIMES = world.video_times()


def scenario(task, seed=0):
    return world.make_scenario(np.random.default_rng(seed), task, TIMES)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_frames(task):
    def frames():
        return world.render([scenario(task)], 48, np.random.default_rng(1))

    assert np.array_equal(frames(), frames())
    assert frames().shape == (1, world.N_VIDEO_FRAMES, 48, 48, 3)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("task", TASKS)
def test_things_stay_in_the_frame_and_apart(task, seed):
    things = scenario(task, seed).things
    for i, thing in enumerate(things):
        assert 0 < thing.x.min() and thing.x.max() < 1 and 0 < thing.y.min() and thing.y.max() < 1
        for other in things[:i]:
            assert np.hypot(thing.x - other.x, thing.y - other.y).min() > world.MIN_GAP
    assert len({thing.colour for thing in things}) == len(things)


def test_short_actions_end_where_they_began():
    hero = scenario("action_sequence").things[0]
    assert len(set(hero.events)) == 2
    for name in ("x", "y", "radius", "opacity", "white"):
        values = getattr(hero, name)
        assert values[0] == values[-1] and len(values) == world.N_VIDEO_FRAMES


@pytest.mark.parametrize("event", ["jump", "blink", "swell", "flash"])
def test_every_short_action_is_seen_in_eight_frames(event):
    indices = [1, 5, 9, 13, 17, 20, 24, 28]
    for seed in range(200):
        clip = world.make_scenario(np.random.default_rng(seed), "action_sequence", world.video_times(np.array(indices)))
        hero = clip.things[0]
        if event in hero.events:
            seen = {
                "jump": np.ptp(hero.y),
                "blink": np.ptp(hero.opacity),
                "swell": np.ptp(hero.radius),
                "flash": np.ptp(hero.white),
            }
            assert seen[event] > 0.02


def test_a_scene_turns_into_another():
    clip = scenario("scene_transition")
    assert clip.mix[0] == 0 and clip.mix[-1] == 1 and clip.scenes[0] != clip.scenes[1]


def test_video_file_holds_the_frames(tmp_path):
    frames = world.render([scenario("moving_direction")], world.VIDEO_SIZE, np.random.default_rng(0))[0]
    world.write_video(tmp_path / "clip.mp4", frames)
    clip = load_clip(tmp_path / "clip.mp4", 8)
    assert clip.indices == (1, 5, 9, 13, 17, 20, 24, 28)
    assert np.abs(clip.frames.astype(int) - frames[list(clip.indices)]).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_video_file_has_the_same_bytes_each_time(tmp_path):
    blocks = np.random.default_rng(1).integers(0, 256, (24, 12, 12, 3), dtype=np.uint8)
    frames = blocks.repeat(8, 1).repeat(8, 2)  # (24, 96, 96, 3), on which rate control wavers
    for i in range(20):
        world.write_video(tmp_path / f"{i}.mp4", frames)
    assert len({file.read_bytes() for file in tmp_path.glob("*.mp4")}) == 1
