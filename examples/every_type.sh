#!/usr/bin/env bash
# A release like the 2023 one: a model in all fourteen file types, measured against what they were made of, and its card.
#
#   examples/every_type.sh [MODEL] [FOLDER]
#
# MODEL is a file, a Hugging Face folder or a model's name (default: the built-in one), FOLDER where the files go
# (default: every_type). With the built-in model it needs 2 GB of disk and about a quarter of an hour on two cores; stopped,
# it goes on where it was. RULES, TEXT and CHUNKS may be set: RULES=2023-06-06 makes the files of June 2023.
set -euo pipefail

model=${1:-smollm2-135m}
folder=${2:-every_type}
text=${TEXT:-$(dirname "$0")/data/prose.txt}
types="q2_K q3_K_S q3_K_M q3_K_L q4_0 q4_1 q4_K_S q4_K_M q5_0 q5_1 q5_K_S q5_K_M q6_K q8_0"

mkdir -p "$folder"
name=$(basename "${model%.gguf}")
base=$folder/$name-f16.gguf
if [ ! -e "$model" ]; then selfee models pull "$model" > /dev/null; fi
[ -e "$base" ] || selfee convert "$model" "$base" --type f16
for type in $types; do
  file=$folder/$name-$type.gguf
  [ -e "$file" ] || selfee quantize "$base" "$file" "$type" --rules "${RULES:-current}"
done
selfee perplexity "$folder/$name"-*.gguf "$text" --kl "$base" --speed ${CHUNKS:+--chunks "$CHUNKS"} \
  --out "$folder/results.jsonl" --resume
selfee card "$folder" -o "$folder/README.md"
echo "$folder/README.md: the card" >&2
