# Servers for measurements, and their ends. Sourced by scripts/bench and scripts/resume.
# shellcheck shell=bash
# shellcheck disable=SC2034
#
# Sets gateway and bench (the binaries), work (a folder that is removed), pids. Servers run on core 0,
# what measures them on core 1.

# Usage: prepare_servers [FOLDER]; builds the binaries, or takes those of the folder.
prepare_servers() {
  local target
  (($(nproc) >= 2)) || { echo "two cores are needed, one for the servers, one for the load" >&2; return 1; }
  command -v taskset >/dev/null || { echo "taskset is needed (util-linux)" >&2; return 1; }
  ulimit -n "$(ulimit -Hn)"
  if [[ -n ${1-} ]]; then
    gateway=$1/tidewire bench=$1/tidewire-bench
  else
    cargo build --release --package tidewire --package tidewire-bench
    target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    gateway=$target/release/tidewire bench=$target/release/tidewire-bench
  fi
  work=$(mktemp -d)
  pids=()
  trap 'stop_all; rm -rf "$work"' EXIT
  local name
  for name in "${!TIDEWIRE_@}"; do unset "$name"; done
  # What is named live:… is not kept, all else is, by default.
  printf '[namespaces.live]\nhistory_size = 0\n' >"$work/tidewire.toml"
}

stop_all() {
  ((${#pids[@]} == 0)) || kill -9 "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
  pids=()
}

# Starts a server on core 0 and reads the line that says where it listens: sets pid and at.
start() {
  local output=$work/${#pids[@]}.out line
  : >"$output"
  taskset -c 0 "$@" >"$output" 2>"$work/${#pids[@]}.err" &
  pid=$!
  pids+=("$pid")
  for _ in $(seq 100); do
    line=$(grep -m1 -oE '(listens|listening) on (http://)?[0-9.:]+' "$output" || true)
    if [[ -n $line ]]; then
      at=${line##*[/ ]}
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  echo "$1 does not start:" >&2
  cat "$work"/*.err >&2
  return 1
}

# Usage: start_gateway [ARGUMENT...]; further settings come from the environment.
start_gateway() {
  start "$gateway" serve --config "$work/tidewire.toml" --listen 127.0.0.1:0 --admin 127.0.0.1:0 "$@"
}

# A Redis on the load's core: sets redis_port.
start_redis() {
  for _ in 1 2 3; do
    redis_port=$((20000 + RANDOM % 10000))
    taskset -c 1 redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --appendonly no \
      --dir "$work" >"$work/redis.log" 2>&1 &
    pids+=("$!")
    for _ in $(seq 50); do
      [[ $(redis-cli -p "$redis_port" ping 2>/dev/null) == PONG ]] && return
      kill -0 "$!" 2>/dev/null || break
      sleep 0.1
    done
  done
  echo "redis-server does not start" >&2
  return 1
}

# What was measured, on what.
tell_machine() {
  local redis
  redis=$( (redis-server --version 2>/dev/null || echo "no Redis") | cut -d' ' -f1-3)
  echo "- $(date -u +%F), Tidewire $("$gateway" --version | cut -d' ' -f2) at $(git describe --always --dirty 2>/dev/null || echo "an unknown commit")"
  echo "- $(rustc --version 2>/dev/null | cut -d' ' -f1-2), Linux $(uname -r | cut -d- -f1), $redis"
  echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n1), $(nproc) cores, $(free -g | awk '/^Mem:/ {print $2}') GiB; load at the end $(cut -d' ' -f1 /proc/loadavg)"
  echo
}
