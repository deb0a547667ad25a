"""What `guira export` writes, read by NumPy and by the safetensors library.

usage: test_export.py GUIRA    (numpy and safetensors installed; `make test-python` does that)
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
from safetensors import safe_open

CONFIGURATION = """
cluster: {name: export, durability: none}
features: [{name: user_id}, {name: item_id}, {name: category}, {name: hour}]
tasks: [{name: click}, {name: like}]
models: [{name: main, kind: deepfm, dimension: 4, hidden: [8]}]
shards: {count: 3}
sync: {sparseEvery: 1s, denseEvery: 1s}
replicas: {count: 1, port: 28571}
"""


def main(guira):
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)

        def run(*arguments):
            done = subprocess.run([guira, *arguments], cwd=root, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
            return done.stdout

        (root / "cluster.yaml").write_text(CONFIGURATION)
        run("events", "generate", "--output", "traffic", "--impressions", "3000", "--users", "200", "--items", "100")
        run("up", "cluster.yaml", "--events", "traffic", "--speed", "max", "--state", "state", "--report", "report.json")
        said = run("export", "--state", "state", "--output", "model.safetensors")
        run("export", "--state", "state", "--format", "npy", "--output", "arrays")

        with safe_open(root / "model.safetensors", framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}
            notes = file.metadata()
        for table in ["user_id", "item_id", "category", "hour"]:
            ids, weights = arrays[f"main.{table}.ids"], arrays[f"main.{table}.weights"]
            assert ids.dtype == numpy.uint64 and weights.dtype == numpy.float32, table
            assert weights.shape == (len(ids), 2 + 4), (table, weights.shape)
            assert numpy.all(ids[:-1] < ids[1:]), f"{table}: ids are not sorted, or one is there twice"
            assert numpy.all(numpy.isfinite(weights)) and numpy.any(weights != 0), table
            assert f"main.{table}: {len(ids)} rows" in said, said
            assert notes[f"main.{table}.columns"], table
        assert len(arrays["main.user_id.ids"]) <= 200 and len(arrays["main.item_id.ids"]) <= 100
        assert any(key.startswith("main/") and value.ndim == 2 for key, value in arrays.items()), list(arrays)

        for key, value in arrays.items():
            other = numpy.load(root / "arrays" / f"{key.replace('/', '.')}.npy")
            assert other.dtype == value.dtype and other.shape == value.shape, key
            assert other.tobytes() == value.tobytes(), key
        columns = json.loads((root / "arrays" / "columns.json").read_text())
        assert columns == notes, (columns, notes)
        report = json.loads((root / "report.json").read_text())
        assert report["examples"] == 3000, report
    print(f"export: {len(arrays)} arrays, the same bits as safetensors and as npy")


main(str(pathlib.Path(sys.argv[1]).resolve()))
