#!/usr/bin/env bash
# The README's grid: every method on bundled data with its defaults, five paired seeds; about half an hour on 2 cores.
set -euo pipefail

for seed in 0 1 2 3 4; do
  sslrun seed=$seed "$@"
  sslrun method=rotation reference=null seed=$seed "$@"
  sslrun method=kmeans seed=$seed "$@"
  sslrun method=supervised labels=40 seed=$seed "$@"
  sslrun method=fixmatch labels=40 seed=$seed "$@"
  sslrun data=breast_cancer seed=$seed "$@"
  sslrun method=denoising_autoencoder data=breast_cancer reference=null seed=$seed "$@"
done

python - <<'PY'
import json, statistics
from pathlib import Path

cells = {}
for path in Path("outputs").glob("*/*/*/metrics.json"):
    run = json.loads(path.read_text())
    for subject, found in run["results"].items():
        for metric, value in found.items():
            cells.setdefault((run["method"], run["data"], subject, metric), []).append(value)
for key, values in sorted(cells.items()):
    if not key[-1].endswith(("balanced_accuracy", "macro_f1", "silhouette")):
        print(*key, f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f} ({len(values)} seeds)")
PY
