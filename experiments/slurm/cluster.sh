#!/bin/bash
# cluster.sh start|stop DIR [NODES]: a SLURM of this machine alone, from Debian's packages slurm-wlm and munge, as root.
# It has no accounting, as small clusters have none. Each of its nodes is a slurmd and runs one job at a time.
# Partitions: low, whose jobs are requeued when one of high needs their node. SLURM_CONF=DIR/slurm.conf selects it.
set -euo pipefail
dir=$(realpath -m "$2") nodes=${3:-2}
export SLURM_CONF=$dir/slurm.conf

stop() {
    for file in "$dir"/run/*.pid; do
        [ -e "$file" ] && kill "$(cat "$file")" 2> /dev/null || true
    done
}

start() {
    for program in munged slurmctld slurmd; do
        command -v $program > /dev/null || { echo "no $program: apt-get install slurm-wlm munge" >&2; exit 1; }
    done
    mkdir -p "$dir"/{run,state,log,munge}
    chown munge: "$dir/munge"
    chmod 755 "$dir/munge"
    runuser -u munge -- munged --socket "$dir/munge/socket" --pid-file "$dir/munge/pid" \
        --log-file "$dir/munge/log" --seed-file "$dir/munge/seed" --key-file /etc/munge/munge.key --force
    cp "$dir/munge/pid" "$dir/run/munged.pid"
    cat > "$SLURM_CONF" << END
ClusterName=one
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=17100
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=30
MinJobAge=300
UnkillableStepTimeout=120
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
OverTimeLimit=0
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd_%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd_%n.log
END
    for ((i = 1; i <= nodes; i++)); do
        mkdir -p "$dir/spool/node$i"
        echo "NodeName=node$i NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((17100 + i)) CPUs=1 RealMemory=64000" >> "$SLURM_CONF"
    done
    echo "PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE" >> "$SLURM_CONF"
    echo "PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=INFINITE PreemptMode=OFF" >> "$SLURM_CONF"
    slurmctld
    for ((i = 1; i <= nodes; i++)); do
        slurmd -N "node$i" -n 5
    done
    for _ in {1..30}; do
        [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = "$nodes" ] && break
        sleep 1
    done
    sinfo
}

"$1"
