"""The room in one walk: a request, what is missing of it, one sample's rows, stored tables; a sweep does it all."""

import pytest
from conftest import GOLDEN

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.errors import StudyError
from analysis_lib.study import examples, provenance, sweep
from analysis_lib.study.folders import missing
from analysis_lib.study.measure import measure_sample
from analysis_lib.study.parts import to_part
from analysis_lib.study.request import check_request
from analysis_lib.study.store import Store
from analysis_lib.study.tables import keys, read_manifest, read_table


def test_from_a_request_to_stored_tables(root, tiny_vlm, tmp_path):
    asked = {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "tasks": "object_count", "samples": 1}
    asked |= {"edges": "cross-frame,video->last", "window": 3, "keep": "all", "measure": "knockout,emergence"}
    request = check_request(**asked)  # names and numbers are checked before anything is loaded
    samples, skipped = load_benchmark(request.benchmark, tasks=request.tasks, samples=request.samples)
    assert len(samples) == 1 and not skipped

    with Store(tmp_path) as store:
        todo = missing(store, samples, request)  # of an empty folder: everything
        assert todo[samples[0].sample_id].edges == {"knockout": ("cross-frame", "video->last")}
        assert todo[samples[0].sample_id].measures == {"emergence"}
        store.begin(request.fixed() | provenance.of_model(tiny_vlm), provenance.of_run(tiny_vlm, "tvbench"))
        rows = measure_sample(tiny_vlm, samples[0], todo[samples[0].sample_id], request)
        assert {table: len(found) for table, found in rows.items()} == {
            "baseline": 1, "knockout": 2 * 12, "emergence": 12 * 4, "receipts": 1,
        }  # fmt: skip
        store.add(samples[0].sample_id, to_part(rows))  # one file, complete or not there at all
        store.finish(provenance.summary, tables=request.measure)
        assert not missing(store, samples, request)

    knockout = read_table(tmp_path, "knockout")
    assert keys("knockout") == ["task", "sample_id", "edge_set", "layer"] and len(knockout) == 24
    assert knockout["layer"].max() == 12  # layers are counted from 1
    receipt = read_manifest(tmp_path)["receipts"]["knockout"]
    assert receipt["max_blocked_weight"] == 0 and receipt["fired"] == receipt["expected"]

    found = sweep(**asked, out=tmp_path, compute=False)  # the same in one call; here everything is stored
    assert found.knockout.frame().equals(knockout) and len(found.baseline) == 1 and not len(found.lens)
    assert not examples.file_of(found.dir, samples[0].sample_id).exists()  # examples come with the lens
    with pytest.raises(StudyError, match="lacks rows that are asked for; measure them: python -m analysis_lib sweep"):
        sweep(**(asked | {"measure": "lens"}), out=tmp_path, compute=False)
