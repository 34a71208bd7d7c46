#!/bin/bash
#SBATCH --job-name=rv-train
#SBATCH --partition=gpu-a6000
#SBATCH --account=mygroup
#SBATCH --time=02:59:00
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --gres=gpu:a6000:2
#SBATCH --output=/scratch/abc1de/.rv/logs/%x-%j.out
#SBATCH --error=/scratch/abc1de/.rv/logs/%x-%j.err
#SBATCH --comment=rvstate:20260102-030405-0a1b2c3d
#SBATCH --export=NONE
# rvstate run 20260102-030405-0a1b2c3d: project app, branch main, commit none
# shellcheck source=/dev/null disable=SC1003,SC1018,SC1110,SC1111,SC1112,SC2016,SC2088
. /scratch/abc1de/.rv/lib/0123456789abcdef/job.sh || exit 1
rv_begin /scratch/abc1de/.rv /scratch/abc1de/.rv/runs/20260102-030405-0a1b2c3d rv-train
rv_modules cuda/12.8.0 miniforge/24.11.3-py3.12
rv_environment /scratch/abc1de/.rv/envs/app/.generations/main/0f
export HF_HOME=/scratch/abc1de/.cache/huggingface
rv_variables /scratch/abc1de/.rv/env/user.env
rv_directory /scratch/abc1de/rv-workspaces/app/main/snapshots/app-1 'experiments/first one' src
. /scratch/abc1de/.rv/lib/0123456789abcdef/stage.sh || exit 1
rv_stage /scratch/abc1de/rv-workspaces/app/main/data train 'code 0f' 'command 1f' 'environment none' 'variables 2f'
rv_stage_env 'A=b c'
rv_after prepare
rv_inputs 'data/it'"'"'s' /project/shared
rv_outputs 'out put/model' data/x
rv_folders data/x
rv_links data 'out put'
rv_enter
rv_stage_begin /scratch/abc1de/.rv/lib/0123456789abcdef
rv_read_only
rv_keep results '-odd name'
rv_run torchrun --nproc_per_node=2 'train it.py' --note 'it'"'"'s $HOME'
