# Watches over a Postgres that runs already and has lost its watcher.
#
#   sh adopt.sh  users-lock  pid-file  log  socket-dir  stop-script  postgres-pid
#
# Standard input is watched.lock, locked, as for supervise.sh.
exec 9<&0 </dev/null >>"$3" 2>&1 || exit 1
watch "$1" /bin/sh -c "$5" stop "$6" "$2" "$4" ""
