# Other servers under the same load, beside the limit and the gateway in each round. Sourced by
# scripts/bench.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
#
# nginx with nchan (Debian: libnginx-mod-nchan), and ws and Socket.IO, whose packages are put into
# target/bench/peers by npm. What is not there is left out.

peer_rows=()
for peer_load in steady saturated spread; do
  for peer_name in tidewire nchan ws socket.io; do
    peer_rows+=("$peer_name-$peer_load")
    against["$peer_name-$peer_load"]=bare-$peer_load
  done
done
peer_rows+=(bare-steady bare-saturated bare-spread)

nchan_module=/usr/lib/nginx/modules/ngx_nchan_module.so

# One worker that is the process itself, so that its CPU can be told. It prints where it listens as the
# others do.
start_nchan() {
  local port=$((30000 + RANDOM % 2000))
  cat >"$work/nchan.conf" <<END
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile $(ulimit -n);
pid $work/nchan.pid; error_log $work/nchan.log crit; load_module $nchan_module;
events { worker_connections 15000; }
http {
  access_log off; keepalive_requests 1000000000; nchan_shared_memory_size 256m;
  server {
    listen 127.0.0.1:$port backlog=4096;
    location ~ ^/sub/(.+)\$ { nchan_subscriber websocket eventsource; nchan_channel_id \$1; nchan_subscriber_first_message newest; }
    location ~ ^/pub/(.+)\$ { nchan_publisher http; nchan_channel_id \$1; nchan_message_buffer_length 1; }
  }
}
END
  # shellcheck disable=SC2016
  PATH=$PATH:/usr/sbin start bash -c '
    (until (: <"/dev/tcp/127.0.0.1/$2") 2>/dev/null; do sleep 0.02; done; echo "listening on 127.0.0.1:$2") &
    exec nginx -e stderr -c "$1"' nchan "$work/nchan.conf" "$port"
}

# Usage: peer NAME URL PUBLISH [ARGUMENT...]; on the server that was started last.
peer() {
  local name=$1 to=(--url "$2" --publish "$3" --pid "$pid" "${@:4}")
  fanout "$name-steady" "${to[@]}"
  fanout "$name-saturated" "${to[@]}" --saturate 8
  crowd "$name-spread" "$idle" --channels 1000 "${to[@]}" --saturate 64
}

beside_peers() {
  local folder=$PWD/target/bench/peers kind has_packages='' hello
  if command -v npm >/dev/null; then
    mkdir -p "$folder"
    echo '{"private":true,"dependencies":{"ws":"8","socket.io":"4"}}' >"$folder/package.json"
    npm install --prefix "$folder" --no-fund --no-audit --loglevel=error >&2 && has_packages=1
  fi
  for round in $(seq "$rounds"); do
    start_limit
    peer bare "ws://$at/ws?channel={channel}" "http://$at/publish?channel={channel}"
    stop_all
    start_gateway
    peer tidewire "${websocket/ADDRESS/$at}" "http://$at/v1/channels/{channel}/messages"
    stop_all
    if [[ -e $nchan_module ]]; then
      start_nchan
      peer nchan "ws://$at/sub/{channel}" "http://$at/pub/{channel}" --ready ''
      stop_all
    fi
    [[ -n $has_packages ]] || continue
    for kind in ws socket.io; do
      start node scripts/lib/peers.mjs "$kind" "$folder"
      if [[ $kind == ws ]]; then
        peer ws "ws://$at/?channel={channel}" "http://$at/?channel={channel}"
      else
        # Engine.IO's handshake is over before the session asks for its namespace.
        peer socket.io "ws://$at/socket.io/?EIO=4&transport=websocket&channel={channel}" \
          "http://$at/?channel={channel}" --hello 40
      fi
      stop_all
    done
  done
}
