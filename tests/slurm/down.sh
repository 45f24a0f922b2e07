#!/bin/bash
# Ends the daemons that up.sh started. Usage: down.sh DIR
for signal in TERM KILL; do
  for file in "$1"/slurmd.pid "$1"/slurmctld.pid "$1"/munge/pid; do
    [ -f "$file" ] && kill -$signal "$(cat "$file")" 2>/dev/null
  done
  sleep 1
done
exit 0
