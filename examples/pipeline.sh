#!/usr/bin/env bash
# The whole road of SelFee on a small model: from raw questions to a quantised file that answers one.
#
#   examples/pipeline.sh [FOLDER] [QUESTION]
#
# FOLDER is where everything goes (default: pipeline); it must be new. With the built-in model it takes two or three minutes on two
# cores, 3 GB of memory and 2 GB of disk. The settings and the data are tiny: they show the road, not a good model.
# May be set: BASE, the model to train (default: the built-in one); TEACHER, the model that writes the chains, with its
# words PROMPTS (default: a script that ships with the examples, so that nothing random stands at the beginning); STEPS,
# how long to train. Needs: pip install 'selfee[data,train]'.
set -euo pipefail

folder=${1:-pipeline}
question=${2:-Name two fruits.}
base=${BASE:-smollm2-135m}
data=$(cd "$(dirname "$0")" && pwd)/data
teacher=${TEACHER:-script:$data/teacher.jsonl}
prompts=${PROMPTS:-$data/teacher.toml}

mkdir -p "$folder"
cd "$folder"

say() { echo "== $*" >&2; }

say "1. raw rows to questions"
selfee data collect "alpaca:$data/questions.json" -o samples.jsonl
say "2. chains of answer, feedback and revision, written by $teacher"
selfee data augment samples.jsonl -o chains.jsonl -m "$teacher" --prompts "$prompts" --max-revisions 2
say "3. one training set"
selfee data merge chains.jsonl -o training --validation 0.1
say "4. training, with LoRA"
selfee convert "$base" base
selfee train base training -o run --preset tiny --max-length 256 --lora-rank 8 --learning-rate 1e-3 \
  --max-steps "${STEPS:-24}"
say "5. the delta: what leads from the base to the trained model, to be passed on"
selfee delta make base run/model delta
selfee delta apply base delta trained
say "6. one quantised file"
selfee convert trained model-f16.gguf --type f16
selfee quantize model-f16.gguf model-q8_0.gguf q8_0
say "7. a question"
selfee ask -m model-q8_0.gguf --template selfee --mode single-pass --temperature 0 "$question"
