#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in two runs of at most ten minutes each:
#
#   benchmarks/on_gpu.sh first  [--quick] [--output FOLDER] [--only PART]
#   benchmarks/on_gpu.sh second [--quick] [--output FOLDER] [--only PART]
#
# first:  tests    the tests marked gpu
#         kernels  launches of a step and how busy the GPU is, beside a plain loop
#         speed    BERT-base 12 to 6 beside TextBrewer, a plain loop in bf16 and the student alone; share of the peak
# second: many     small trainings at the same time, steps a second together; with MPS also where there is any
#         study    the same as a whole study, from its start to its table
#         launches operations and host reads of a step, counted on the CPU
#
# A part has a limit of its own. When it is done, OUTPUT/PART.json has what it found; a part that fails or takes too long
# has its error there, and the next one follows. OUTPUT is $OUT, or runs/on_gpu. The exit status is 1 if any part failed.
# --quick takes tiny models and works without a GPU: two minutes on one core, which show that everything runs.
#
# It needs a Python that has what pyproject.toml depends on, pytest, and for the tests what extra `dev` has of them; the
# project itself may be a folder on PYTHONPATH. No network. What else it takes, all of it optional, from the environment:
#   PYTHON      that Python; otherwise .venv/bin/python, or python3
#   TEXTBREWER  a Python that has TextBrewer 0.2.1; otherwise PYTHON. Without TextBrewer its arms are left out.
#   GLUE        a folder in the GLUE layout with RTE, and
#   MODEL       a BERT whose tokenizer cuts it; without these two, speed is measured on random tokens of RTE's lengths.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit "$1"; }
run=""; quick=(); output=${OUT:-runs/on_gpu}; only=""
while [ $# -gt 0 ]; do
  case $1 in
    first | second) run=$1 ;;
    --quick) quick=(--quick) ;;
    --output) output=${2:?--output: a folder}; shift ;;
    --only) only=${2:?--only: a part}; shift ;;
    -h | --help) usage 0 ;;
    *) echo "on_gpu.sh: unknown word $1" >&2; usage 2 >&2 ;;
  esac
  shift
done
[ -n "$run" ] || usage 2 >&2
python=${PYTHON:-}
[ -n "$python" ] || { [ -x .venv/bin/python ] && python=.venv/bin/python || python=python3; }
mkdir -p "$output"
output=$(cd "$output" && pwd)
export PYTHONPATH=$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
failed=0

# part NAME SECONDS COMMAND...: the command writes its findings to $output/NAME.found.json, if it has any.
part() {
  local name=$1 limit=$2 begun=$SECONDS status
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  echo "== $name (at most $limit s)"
  rm -f "$output/$name.found.json" "$output/$name.json"
  timeout -k 10 "$limit" "$@" >"$output/$name.log" 2>&1
  status=$?
  "$python" - "$output" "$name" "$status" $((SECONDS - begun)) "$limit" "${#quick[@]}" "$@" <<'P'
import json, os, sys
folder, name, status, seconds, limit, quick, *command = sys.argv[1:]
status = int(status)
said = open(f"{folder}/{name}.log", encoding="utf-8", errors="replace").read().splitlines()
found = None
if os.path.exists(path := f"{folder}/{name}.found.json"):
    found = json.load(open(path, encoding="utf-8"))
    os.remove(path)
word = {0: "done", 124: "over its limit", 137: "over its limit"}.get(status, "failed")
record = {"part": name, "state": word, "status": status, "seconds": int(seconds), "limit": int(limit)}
record |= {"quick": bool(int(quick)), "command": command, "found": found, "said": said[-40:]}
with open(f"{folder}/{name}.json.new", "w", encoding="utf-8") as file:
    json.dump(record, file, indent=1)
os.replace(f"{folder}/{name}.json.new", f"{folder}/{name}.json")
print(f"   {word} after {seconds} s: {folder}/{name}.json")
if status:
    print("   " + "\n   ".join(said[-5:]))
P
  [ "$status" -eq 0 ] || failed=1
}

# With an MPS server of its own, which ends with the part.
with_mps() {
  [ -z "$only" ] || [ "$only" = many-mps ] || return 0
  command -v nvidia-cuda-mps-control >/dev/null || { echo "   many-mps is left out: there is no MPS here"; return 0; }
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  trap 'echo quit | nvidia-cuda-mps-control' EXIT  # also when the run is interrupted
  if nvidia-cuda-mps-control -d; then
    "$@"
    echo quit | nvidia-cuda-mps-control
    trap - EXIT
  else
    trap - EXIT
    echo "   many-mps is left out: its server does not start"
  fi
  rm -rf "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

data=()
[ -z "${GLUE:-}" ] || [ -z "${MODEL:-}" ] || data=(--data "$GLUE" --model "$MODEL")
if [ "$run" = first ]; then
  tests=(tests/gpu -q -p no:cacheprovider)
  # Without a GPU the CPU's half of some of them, since those of a GPU are skipped.
  if [ ${#quick[@]} -gt 0 ]; then tests+=(-k "cache or steps"); else tests+=(-m gpu); fi
  part tests 220 "$python" -m pytest "${tests[@]}"
  part kernels 60 "$python" benchmarks/gpu_launches.py --record "$output/kernels.found.json" "${quick[@]}"
  part speed 270 "$python" benchmarks/speed/card.py --record "$output/speed.found.json" --seconds 180 \
    --textbrewer "${TEXTBREWER:-$python}" "${data[@]}" "${quick[@]}"
else
  some=(--workers 1 4 8 16); studies=(--workers 12)
  [ ${#quick[@]} -eq 0 ] || { some=(--workers 1 2); studies=(--workers 1); }
  part many 150 "$python" benchmarks/speed/many.py --record "$output/many.found.json" "${some[@]}" "${quick[@]}"
  with_mps part many-mps 120 "$python" benchmarks/speed/many.py --record "$output/many-mps.found.json" "${some[@]}" "${quick[@]}"
  part study 180 "$python" benchmarks/speed/many.py --study --record "$output/study.found.json" "${studies[@]}" "${quick[@]}"
  counted=(); [ ${#quick[@]} -eq 0 ] || counted=(--only time --steps 24)
  part launches 100 env CUDA_VISIBLE_DEVICES= "$python" benchmarks/launches.py --record "$output/launches.found.json" "${counted[@]}"
fi
exit $failed
