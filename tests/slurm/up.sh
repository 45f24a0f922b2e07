#!/bin/bash
# A SLURM of one node in DIR, on the loopback interface, with a munge key and socket of its own. Usage: up.sh DIR
set -eu
DIR=$1
HOST=$(hostname -s)
mkdir -p "$DIR"/{munge,state,spool,log}
chmod 755 "$DIR" "$DIR/munge"
dd if=/dev/urandom of="$DIR/munge/key" bs=1 count=1024 2>/dev/null
chmod 700 "$DIR/munge" && chmod 400 "$DIR/munge/key" && chmod 755 "$DIR/munge"
munged --force --socket="$DIR/munge/sock" --key-file="$DIR/munge/key" --pid-file="$DIR/munge/pid" \
  --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed"
# NoInAddrAny: listen on the loopback interface alone. cred_expire: a requeued job waits that long before it starts.
cat > "$DIR/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld
SlurmdLogFile=$DIR/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
MailProg=/bin/true
InactiveLimit=0
KillWait=5
MinJobAge=3600
NodeName=$HOST NodeAddr=127.0.0.1 NodeHostname=$HOST CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$DIR/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 300); do
  sinfo -h -o %T 2>/dev/null | grep -q idle && exit 0
  sleep 0.2
done
tail "$DIR"/log/* >&2
exit 1
