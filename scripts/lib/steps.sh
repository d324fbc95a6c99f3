# Runs named steps one after the other, times them and tells the outcome. Sourced by scripts/test.
# shellcheck shell=bash
#
# A step is a function step_NAME. It fails by its status, and is skipped when it ends well and one
# of its lines reads "NAME: skipped, REASON". After the failure of a step that `needs` names, those
# that need it are skipped, too. The output of each is kept in the folder $logs.

declare -a outcomes=()
declare -A failed=()
passed_count=0 failed_count=0 skipped_count=0

# Usage: run_step NAME WHAT [NEEDS]
run_step() {
  local name=$1 what=$2 needs=${3-} log=${logs:?}/$1.log started=$SECONDS status outcome note=''
  if [[ -n $needs && -n ${failed[$needs]-} ]]; then
    skipped_count=$((skipped_count + 1))
    outcomes+=("$(printf '%-10s %-8s %5s  %s' "$name" skipped - "$needs failed")")
    return
  fi
  printf '\n==> %s: %s\n' "$name" "$what"
  # In a pipeline of its own and not as a condition, where `set -e` would have no effect.
  set +e
  (set -e; "step_$name") </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  set -e
  if ((status != 0)); then
    outcome=FAILED note="status $status" failed[$name]=1
    failed_count=$((failed_count + 1))
  elif note=$(grep -m1 -oE '^[a-z-]+: skipped, .*' "$log"); then
    outcome=skipped note=${note#*: skipped, }
    skipped_count=$((skipped_count + 1))
  else
    outcome=passed note=$(counted "$log")
    passed_count=$((passed_count + 1))
  fi
  outcomes+=("$(printf '%-10s %-8s %5d  %s' "$name" "$outcome" $((SECONDS - started)) "$note")")
}

# How many tests a step's log tells of, as nextest, libtest, node:test, vitest and our own scripts count.
counted() {
  sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
    /^ *Summary \[.*tests? run: / { match($0, /[0-9]+ tests? run: [0-9]+ passed/); found = substr($0, RSTART, RLENGTH) }
    /^test result: ok\. / { libtest += $4 }
    /^ℹ pass / { found = $3 " passed" }
    /^ *Tests  .* passed/ { match($0, /[0-9]+ passed/); found = substr($0, RSTART, RLENGTH) }
    /^[0-9]+ passed, [0-9]+ failed/ { found = $0 }
    END { if (found == "" && libtest > 0) found = libtest " passed"; print found }'
}

# The table and the closing line; the status tells whether all is well.
tell_outcome() {
  printf '\n%-10s %-8s %5s\n' step outcome sec.
  printf '%s\n' "${outcomes[@]}"
  printf '\n%d passed, %d failed, %d skipped\n' "$passed_count" "$failed_count" "$skipped_count"
  ((failed_count == 0))
}
