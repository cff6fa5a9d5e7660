# watch FILE COMMAND...: waits until nobody else holds a lock on FILE, and holds it while COMMAND runs.
watch() {
  if command -v flock >/dev/null 2>&1; then
    exec flock -x "$@"
  fi
  # shellcheck disable=SC2016
  exec perl -e 'open(F, "<", shift) && flock(F, 2) or die "lock: $!\n"; exit(system(@ARGV) >> 8)' "$@"
}
command -v flock >/dev/null 2>&1 || command -v perl >/dev/null 2>&1 || exit 69
