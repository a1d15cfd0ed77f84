"""The configuration files of the private Slurm, as templates."""

from __future__ import annotations

from string import Template

SLURM_CONF = Template("""\
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
SlurmctldPidFile=$folder/run/slurmctld.own
SlurmdPidFile=$folder/run/slurmd.%n.own
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
KillWait=5
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$accounting_port
AccountingStoragePass=$folder/run/munge.sock
AccountingStorageTRES=gres/gpu
MailProg=/bin/true
$nodes
PartitionName=DEFAULT Nodes=ALL DefMemPerCPU=1000 State=UP
PartitionName=GPU MaxTime=18:00:00 DefaultTime=01:00:00 PriorityTier=10 Default=YES
PartitionName=debug MaxTime=00:30:00 DefaultTime=00:10:00 PriorityTier=10
PartitionName=preempt MaxTime=18:00:00 DefaultTime=01:00:00 PriorityTier=1
""")
NODE_LINE = Template(
    "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port"
    " CPUs=24 RealMemory=250000 Gres=gpu:V100:2 State=UNKNOWN"
)
GRES = ("/dev/null", "/dev/zero")
"""Slurm wants a device behind each GPU, or it sets no CUDA_VISIBLE_DEVICES. It does not open them."""
GRES_LINE = Template("NodeName=$node Name=gpu Type=V100 File=$device")
SLURMDBD_CONF = Template("""\
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$accounting_port
SlurmUser=$user
LogFile=$folder/log/slurmdbd.log
PidFile=$folder/run/slurmdbd.own
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=lab
StorageLoc=slurm_acct_db
""")
SQL = (
    "create database if not exists slurm_acct_db;"
    "create user if not exists 'slurm'@'localhost' identified by 'lab';"
    "grant all on slurm_acct_db.* to 'slurm'@'localhost'"
)
