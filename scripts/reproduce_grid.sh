#!/usr/bin/env bash
# The README's numbers: five paired seeds on bundled data, with defaults; about half an hour on 2 cores.
# Run it again after an interruption, and it goes on.
set -euo pipefail

sslrun experiment=label_efficiency sweep.name=label_efficiency "$@"
sslrun experiment=seeds sweep.name=seeds "$@"
sslrun -m method=kmeans data=digits 'seed=range(0,5)' sweep.name=kmeans "$@"
sslrun -m method=simclr,denoising_autoencoder data=breast_cancer 'seed=range(0,5)' sweep.name=tables "$@"
sslrun report outputs/sweeps/label_efficiency --out outputs/report/label_efficiency
sslrun report outputs/sweeps/seeds outputs/sweeps/kmeans outputs/sweeps/tables --out outputs/report/others
