# Stops Postgres while holding the lock that keeps new users away.
#
#   sh -c stop.sh  stop  postgres-pid  pid-file  socket-dir  supervisor-pid
postgres=$1 pid_file=$2 socket_dir=$3 supervisor=$4

# As long as the supervisor lives, the number cannot have gone to another process. After that, the pid file tells.
alive() {
  kill -0 "$postgres" 2>/dev/null || return 1
  [ -n "$supervisor" ] && kill -0 "$supervisor" 2>/dev/null && return 0
  { read -r named <"$pid_file"; } 2>/dev/null && [ "$named" = "$postgres" ]
}

# Fast shutdown; then at once, which the next start recovers from; then by force.
for signal in INT QUIT KILL; do
  alive || break
  kill -s "$signal" "$postgres"
  waited=0
  while alive && [ "$waited" -lt 100 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
done
case $socket_dir in
  /tmp/claviger-*) rm -f "$socket_dir"/.s.PGSQL.* && rmdir "$socket_dir" 2>/dev/null ;;
esac
