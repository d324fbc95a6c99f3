# Other servers under the same load. Sourced by scripts/bench.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
peer_rows=()
beside_peers() { :; }
