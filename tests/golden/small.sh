#!/bin/bash
#SBATCH --job-name=rv-train
#SBATCH --time=01:00:00
#SBATCH --export=NONE
# rvstate run 20260102-030405-0a1b2c3d
# shellcheck source=/dev/null disable=SC1003,SC1018,SC1110,SC1111,SC1112,SC2016,SC2088
. /scratch/abc1de/.rv/lib/0123456789abcdef/job.sh || exit 1
rv_begin /scratch/abc1de/.rv /scratch/abc1de/.rv/runs/20260102-030405-0a1b2c3d rv-train
rv_enter
rv_run python train.py
