"""Sharding per core: checking and writing images, against decoding them alone.

Photos are tiles of those that installed packages ship; both sides use one process.
"""

import io
import statistics
import tempfile
import time
from pathlib import Path

from form import Figure, report
from PIL import Image

from hvc.base.stage import Provenance, never
from hvc.data_prep.shard import ShardConfig, run
from hvc.demo.photos import collect_photos

COUNT, SIDE, RUNS = 400, 512, 3


def main() -> None:
    """Shard the same photos several times, in turn with a bare decode."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        collect_photos(photos, side=SIDE, count=COUNT)
        ours, bare = [], []
        for number in range(RUNS):
            config = ShardConfig(input=str(photos), output=f"{folder}/set-{number}", target_mb=8, workers=1)
            start = time.perf_counter()
            result = run(config, never, Provenance())
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            for path in sorted(photos.iterdir()):
                Image.open(io.BytesIO(path.read_bytes())).load()
            bare.append(time.perf_counter() - start)
        images = result.report["samples"]
    sharding, decoding = statistics.median(ours), statistics.median(bare)
    report(
        "shard",
        [
            Figure("shard.images_per_second", images / sharding, "images/s", note=f"{SIDE} px, 1 process"),
            Figure("shard.vs_decode", sharding / decoding, "x", "decoding the same files, nothing else"),
        ],
        packages=("webdataset", "pillow"),
    )


if __name__ == "__main__":
    main()
