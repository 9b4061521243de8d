"""The census of the installed transformers: what the page says is so, for some architectures and all that changed."""

import census
import census_table
import pytest

from analysis_lib.reports import reproduce

# Two hybrids, two plain ones, one of images, one refused.
SOME = ("qwen3_5_moe", "lfm3_vl", "glm46v", "muse_glimmer", "gemma3", "glm5_next")


def chosen():
    """Some, and those whose source is not the one that the page was written with."""
    page, kinds = census_table.stored(), [*census.architectures(), *census.image_architectures()]
    return sorted({*SOME, *(kind for kind in kinds if page[kind][-1] != census.fingerprint(kind))})


def test_the_page_knows_every_architecture_and_none_fails():
    page = census_table.stored()
    videos, images = census.architectures(), census.image_architectures()
    assert [*page] == [*videos, *images] and not videos.keys() & images.keys()
    text = census_table.FILE.read_text(encoding="utf-8")
    for kinds, works, at_least in ((videos, "works", 37), (images, "works, frames as images", 13)):
        results = [page[kind][0] for kind in kinds]
        untried = [kind for kind in kinds if page[kind][0] == "not tried"]
        assert results.count(works) >= at_least and f"{results.count(works)} of {len(results)} work." in text
        assert all(result in (works, "not tried") or result.startswith("refused: ") for result in results)
        ran = {page[kind][6] for kind in kinds if page[kind][0] == works}
        assert ran == {f"{len(reproduce.select())} of {len(reproduce.select())}"}
        assert untried == [kind for kind in kinds if kind in census.UNTRIED]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings inside transformers are no errors to a user, and make none refused
@pytest.mark.parametrize("kind", chosen())
def test_an_architecture_does_what_the_page_says(kind, tmp_path, monkeypatch):
    stated = census_table.stored()[kind]
    if stated[-1] == census.fingerprint(kind):  # notebooks are for what changed; test_notebooks_on_families has others
        monkeypatch.setattr(census_table, "notebooks", lambda model: (stated[6], ""))
    cells = [cell.strip() for cell in census_table.row(kind, tmp_path / kind).strip().strip("|").split(" | ")]
    assert cells[1:5] == stated[:4] and cells[7] == stated[6]  # differences of rounding are not stated twice alike
