#!/bin/sh
# Our model from nothing: examples/model/build.sh data|train|again|pack|evaluate, in this order, in a folder of work.
#   WORK       folder for everything that is made (default: build/model)
#   GSM8K      training rows of GSM8K (openai/grade-school-math, MIT)
#   GSM8K_TEST its test rows, for evaluate alone
#   SEEDS      seed_tasks.jsonl of Self-Instruct (Apache-2.0)
#   QUESTIONS  the 80 Vicuna questions (FastChat, Apache-2.0), for evaluate alone
# Takes about an hour on two cores; a step that was interrupted goes on where it stood.
set -eu
work=${WORK:-build/model}
mkdir -p "$work"

recipe="--learning-rate 1e-3 --warmup 0.06 --weights flawed=0,verdict=2 --max-length 512
  --batch-size 2 --global-batch 4 --no-gradient-checkpointing --save-minutes 4"

case ${1:-} in
data)
  selfee models pull smollm2-135m
  python -m examples.model.sample_answers -o "$work/answers.jsonl" --max-tokens 160
  python -m examples.model.make_chains --gsm8k "$GSM8K" --seeds "$SEEDS" --answers "$work/answers.jsonl" \
    -o "$work/chains"
  ;;
train)
  [ -d "$work/base" ] || selfee convert smollm2-135m "$work/base"
  # shellcheck disable=SC2086
  selfee train "$work/base" "$work/chains" -o "$work/run" $recipe --lora-rank 8 --max-steps 64
  selfee convert smollm2-135m "$work/first.gguf" --adapter "$work/run/adapter" --type q8_0 --allow-requantize
  ;;
again) # on-policy: the model's own answers to our arithmetic, checked, and put right where they are wrong
  python -m examples.model.sample_answers --arithmetic 240 --model "$work/first.gguf" --mode single-pass \
    --temperature 0.5 --max-tokens 100 --seed 1 -o "$work/attempts.jsonl"
  python -m examples.model.make_chains --gsm8k "$GSM8K" --seeds "$SEEDS" --answers "$work/answers.jsonl" \
    --attempts "$work/attempts.jsonl" --arithmetic 260 -o "$work/chains2"
  # shellcheck disable=SC2086
  selfee train "$work/run/model" "$work/chains2" -o "$work/run2" $recipe --lora-rank 4 --max-steps 80
  ;;
pack)
  python -m examples.model.pack_adapter "$work/run/adapter" "$work/run2/adapter" -o "$work/selfee-135m.safetensors" \
    --base "$(selfee models path smollm2-135m)"
  selfee convert smollm2-135m "$work/selfee-135m.gguf" --adapter "$work/selfee-135m.safetensors" --type q8_0 \
    --allow-requantize
  ;;
evaluate)
  sed -n 41,240p "$GSM8K_TEST" > "$work/gsm200.jsonl"
  for model in smollm2-135m "$work/selfee-135m.gguf"; do
    name=$(basename "$model" .gguf)
    selfee answer "$QUESTIONS" -m "$model" -o "$work/evaluation/vicuna" --name "$name" -r 1 --temperature 0 \
      --max-answer-tokens 384 --max-feedback-tokens 192 --max-revision-tokens 384 --parallel 8
    python -m examples.model.well_formed "$work/evaluation/vicuna/chains/$name.jsonl"
    python -m examples.model.evaluate "$work/chains/heldout.jsonl" --model "$model" --attempts 6 \
      -o "$work/evaluation/$name-heldout"
    python -m examples.model.evaluate "$work/gsm200.jsonl" --model "$model" -o "$work/evaluation/$name-gsm8k"
  done
  ;;
*)
  sed -n '2,8p' "$0"
  exit 2
  ;;
esac
