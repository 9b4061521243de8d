"""The census of the installed transformers: what the page says is so, for five architectures and all that changed."""

import census
import census_table
import pytest

FIVE = ("qwen3_5_moe", "lfm3_vl", "glm46v", "muse_glimmer", "glm5_next")  # two hybrids, two plain ones, one refused


def chosen():
    """Five, and those whose source is not the one that the page was written with."""
    page = census_table.stored()
    return sorted({*FIVE, *(kind for kind in census.architectures() if page[kind][-1] != census.fingerprint(kind))})


def test_the_page_knows_every_architecture_and_none_fails():
    page = census_table.stored()
    assert page.keys() == census.architectures().keys()
    results = [cells[0] for cells in page.values()]
    assert all(result == "works" or result.startswith("refused: ") for result in results)
    assert results.count("works") >= 25
    assert f"{results.count('works')} of {len(results)} work." in census_table.FILE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings inside transformers are no errors to a user, and make none refused
@pytest.mark.parametrize("kind", chosen())
def test_an_architecture_does_what_the_page_says(kind, tmp_path):
    cells = [cell.strip() for cell in census_table.row(kind, tmp_path / kind).strip().strip("|").split(" | ")]
    stated = census_table.stored()[kind]
    assert cells[1:5] == stated[:4]  # differences of rounding are not stated twice alike
