#!/usr/bin/env bash
# What is worth measuring while a GPU is at hand, the most worth first. Results are in
# docs/performance.md and docs/results.md.
#
#     benchmarks/gpu_lease.sh [--rehearse] [speed] [peer] [short] [cifar10] [resume] [seeds] [more]
#
# No part named: all of them. A part takes minutes, and goes on where it was interrupted: what has
# its log in $RESULTS is not measured again. --rehearse runs all of it on the CPU, with tiny sizes.
# It needs neither a network nor TensorFlow. The environment can say:
#   PYTHON       with JAX and what pyproject.toml needs (python3)
#   PEER         the command of the PyTorch peer (python3 ../shared/peers/torch_ssl.py)
#   TORCH        a Python with PyTorch, for benchmarks/torch_peer.py (python3)
#   SEEDS        of each short run ("0 1")
#   RESULTS      where logs and runs go (runs/gpu)
#   DATA         CIFAR-10 as TFDS prepares it (../shared/data/tfds/cifar10/3.0.2)
#   STEPS        of the training on CIFAR-10 (15000)
#   BFLOAT16     whether that is in bfloat16 (true)
set -u
cd "$(dirname "$0")/.."

rehearse=false device=cuda
[ "${1:-}" = --rehearse ] && { rehearse=true; shift; }
PYTHON=${PYTHON:-python3}
PEER=${PEER:-python3 ../shared/peers/torch_ssl.py}
TORCH=${TORCH:-python3}
SEEDS=${SEEDS:-0 1}
RESULTS=${RESULTS:-runs/gpu$($rehearse && echo .rehearsal)}
DATA=${DATA:-../shared/data/tfds/cifar10/3.0.2}
STEPS=${STEPS:-15000}
BFLOAT16=${BFLOAT16:-true}
mkdir -p "$RESULTS"
export PYTHONUNBUFFERED=1
# Programs that differ little share what was found out about their convolutions.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$RESULTS/programs}

steps=192 images=50000 tiny=() short=() peer_size=(--batch=64 --steps=30 --warmup=10) eval_every=1000 limit=()
seeds=(--seeds 1 5 --steps 100 --turns 3)
if $rehearse; then
  export JAX_PLATFORMS=cpu device=cpu
  steps=2 images=1000 STEPS=4 eval_every=2 limit=(--limit=1000)
  tiny=(--config.batch_size=4 --config.model_args.filters=4 --config.model_args.repeat=1)
  short=(--config.num_steps=4 --config.eval_every=2 --config.batch_size=2)
  peer_size=(--batch=4 --steps=2 --warmup=1 --filters=4 --repeat=1)
  seeds=(--seeds 1 2 --steps 2 --turns 1)
fi
failed=0

# measure <name> <command …>: runs it, unless <name>.log is there; says the last line.
measure() {
  local name=$1 log=$RESULTS/$1.log start=$SECONDS
  shift
  if [ ! -e "$log" ]; then
    if ! { echo "$*" && "$@"; } >"$log.begun" 2>&1 </dev/null; then
      failed=1
      echo "== $name FAILED after $((SECONDS - start)) s: $*"
      tail -n 15 "$log.begun"
      return 1
    fi
    mv "$log.begun" "$log"
  fi
  echo "== $name, $((SECONDS - start)) s: $(tail -n 1 "$log")"
}

train() { # <name> <recipe> <flag …>
  local name=$1 recipe=$2
  shift 2
  measure "$name" "$PYTHON" -m benchmarks.train --config="configs/$recipe.py" --json --steps=$steps "$@"
}

speed() { # images per second of the recipes, and their share of the matrix peak
  train fixmatch.bfloat16 fixmatch_cifar10 --images=$images "${tiny[@]}" --config.bfloat16=true
  train fixmatch.float32 fixmatch_cifar10 --images=$images "${tiny[@]}"
  train digits fixmatch_digits
}

peer() { # the same training in PyTorch, eager
  local workers
  workers=$(nproc)
  for method in fixmatch mixmatch; do
    measure "peer.$method" $PEER --method=$method --workers="$workers" "${peer_size[@]}"
    measure "peer.$method.amp" $PEER --method=$method --workers="$workers" "${peer_size[@]}" \
      --amp --channels-last
  done
}

pixels() {
  if [ ! -d "$DATA" ]; then
    echo "== no $DATA"
    return 1
  fi
  measure cifar10.data "$PYTHON" -m benchmarks.tfrecords_npz "$DATA" "$RESULTS/cifar10.npz" "${limit[@]}"
}

short_run() { # <method> <labelled set> <seed>
  local name=$1.$2.$3
  measure "short.$name" "$PYTHON" launch.py --config="configs/$1_cifar10_short.py" "${short[@]}" \
    --config.dataset="npz:$RESULTS/cifar10.npz.$2@250-500" --config.seed="$3" \
    --workdir="$RESULTS/runs/short/$name"
}

short_peer() { # <log's name> <seed> <flag …>: on labelled set 1
  local name=$1 seed=$2
  shift 2
  measure "short.$name" "$TORCH" benchmarks/torch_peer.py --device="$device" --seed="$seed" \
    --run="$RESULTS/runs/short/fixmatch.1.0" --data="$RESULTS/cifar10.npz" \
    --workdir="$RESULTS/runs/short/torch.1.$seed" "$@"
}

# The recipes <method>_cifar10_short on three labelled sets, one run after another, because runs that
# share a GPU are no faster than that; then the peer, whose runs are bound by processors.
short() {
  local method number seed
  pixels || return
  short_run fixmatch 1 0
  short_peer peer.alone 0 --until=$((eval_every / 2)) # nothing beside it: its time is compared
  for seed in $SEEDS; do
    for number in 1 2 3; do
      for method in fixmatch mixmatch supervised; do
        short_run $method $number "$seed"
      done
    done
  done
  for seed in $SEEDS; do
    short_peer "torch.1.$seed" "$seed" &
  done
  wait
  if compgen -G "$RESULTS/short.torch.*.begun" >/dev/null; then
    failed=1
  fi
}

cifar10() { # FixMatch on CIFAR-10 with 250 labels, for as many steps as there is time
  pixels &&
    measure cifar10 "$PYTHON" launch.py --config=configs/fixmatch_cifar10.py "${tiny[@]}" \
      --config.dataset="npz:$RESULTS/cifar10.npz.3@250-1" --config.num_steps="$STEPS" \
      --config.eval_every=$eval_every --config.bfloat16="$BFLOAT16" --workdir="$RESULTS/runs/cifar10"
}

# A run of 200 steps, and one that goes on from the checkpoint of its step 100: equal to the bit?
resume_with() { # <name> <flags of XLA>
  local name=$1 whole=$RESULTS/runs/$1.whole resumed=$RESULTS/runs/$1.resumed
  shift
  local run=(env -u JAX_COMPILATION_CACHE_DIR XLA_FLAGS="$*" "$PYTHON" launch.py
    --config=configs/fixmatch_digits.py --config.num_steps=200 --config.eval_every=100)
  measure "$name.whole" "${run[@]}" --workdir="$whole" || return
  if [ ! -e "$resumed" ]; then
    cp -r "$whole" "$resumed"
    rm -r "$resumed/checkpoints/200" "$resumed/results.json"
  fi
  measure "$name.resumed" "${run[@]}" --workdir="$resumed" || return
  measure "$name" "$PYTHON" -m benchmarks.gpu_checks runs "$whole" "$resumed"
}

resume() { # what is computed: beside the CPU, and after an interruption
  export XLA_PYTHON_CLIENT_PREALLOCATE=false # others may use the GPU
  measure views "$PYTHON" -m benchmarks.gpu_checks views
  resume_with resume
  resume_with resume.deterministic --xla_gpu_deterministic_ops=true
  measure step "$PYTHON" -m benchmarks.gpu_checks step --config=configs/fixmatch_cifar10.py \
    --config.batch_size=16 "${tiny[@]}"
}

seeds() { # five seeds in one program
  measure seeds.digits "$PYTHON" -m benchmarks.seeds "${seeds[@]}"
}

more() { # the other recipes, where the time goes, and what exact repetition costs
  local flags=(--images=$images "${tiny[@]}") bfloat16=--config.bfloat16=true
  train mixmatch.bfloat16 mixmatch_cifar10 "${flags[@]}" $bfloat16
  train mixmatch.float32 mixmatch_cifar10 "${flags[@]}"
  train fixmatch.bfloat16.breakdown fixmatch_cifar10 "${flags[@]}" $bfloat16 --breakdown
  XLA_FLAGS=--xla_gpu_deterministic_ops=true \
    train fixmatch.bfloat16.deterministic fixmatch_cifar10 "${flags[@]}" $bfloat16
  train fixmatch.float32.breakdown fixmatch_cifar10 "${flags[@]}" --breakdown
  # Compiles for minutes.
  train remixmatch.bfloat16 remixmatch_cifar10 "${flags[@]}" $bfloat16
  train remixmatch.float32 remixmatch_cifar10 "${flags[@]}"
}

for part in "${@:-speed peer short cifar10 resume seeds more}"; do
  for name in $part; do
    echo "=== $name"
    "$name"
  done
done
exit $failed
