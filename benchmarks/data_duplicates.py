"""Find near-duplicates among the texts of a file, with selfee or with datatrove; see data.py.

    python data_duplicates.py selfee|datatrove questions.jsonl

Writes how many texts were dropped to selfee.count or datatrove.count beside the file. Imports only what it runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

THRESHOLD, GROUP = 0.8, 3


def with_selfee(path: Path) -> int:
    from selfee.data.duplicates import Duplicates

    seen, dropped = Duplicates(THRESHOLD), 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            dropped += seen.add(row["id"], row["text"], near=True) is not None
    return dropped


def with_datatrove(path: Path) -> int:
    """Its four steps of MinHash with 14 bands of 8 hashes, its default, in one process."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    work = path.parent / "datatrove"
    config = MinhashConfig(n_grams=GROUP)
    reader = JsonlReader(str(path.parent), glob_pattern=path.name)
    kept = JsonlWriter(str(work / "kept"), compression=None, output_filename="${rank}.jsonl")
    steps = [
        [reader, MinhashDedupSignature(str(work / "signatures"), config=config)],
        [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)],
        [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)],
        [reader, MinhashDedupFilter(str(work / "remove")), kept],
    ]
    for number, pipeline in enumerate(steps):
        tasks = config.num_buckets if number == 1 else 1
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / f"logs{number}")).run()
    read = sum(1 for line in path.open(encoding="utf-8") if line.strip())
    return read - sum(1 for file in (work / "kept").glob("*.jsonl") for _ in file.open(encoding="utf-8"))


def main() -> None:
    which, path = sys.argv[1], Path(sys.argv[2])
    dropped = {"selfee": with_selfee, "datatrove": with_datatrove}[which](path)
    (path.parent / f"{which}.count").write_text(str(dropped))


if __name__ == "__main__":
    main()
