# Runs Postgres and makes sure that it ends when the last process that uses the cluster is gone, however that ended.
#
#   sh supervise.sh  users-lock  pid-file  log  socket-dir  stop-script  postgres  argument...
#
# Standard input is watched.lock, locked. It stays locked for as long as the watcher lives.
users=$1 pid_file=$2 log=$3 socket_dir=$4 stop=$5
shift 5

if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 10485760 ]; then
  mv -f "$log" "$log.1"
fi
exec 9<&0 </dev/null >>"$log" 2>&1 || exit 1

"$@" 9<&- &
postgres=$!
watch "$users" /bin/sh -c "$stop" stop "$postgres" "$pid_file" "$socket_dir" "$$" &
watcher=$!
exec 9<&-

# A service manager may signal every process at once. Postgres decides when it is over, and this shell has to be
# there to say goodbye to it.
trap '' HUP INT TERM
wait "$postgres"
code=$?

# If Postgres ended by itself, the watcher still waits. It must not: the next process to come starts Postgres anew.
kill "$watcher" 2>/dev/null
case $socket_dir in
  /tmp/claviger-*) rm -f "$socket_dir"/.s.PGSQL.* && rmdir "$socket_dir" 2>/dev/null ;;
esac
exit "$code"
