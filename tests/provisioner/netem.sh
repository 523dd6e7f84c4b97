#!/bin/sh
# The only program of a Linux in user mode (see netem.py): routes what comes to its device out of it again, so that it passes the
# device's queueing discipline; does what it is told, a line at a time, and says how that went. It ends with its input.
stty -echo
mount -t proc proc /proc
insmod "/usr/lib/uml/modules/$(uname -r)/kernel/net/sched/sch_netem.ko"
for name in all default vec0; do
    echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
    echo 0 >/proc/sys/net/ipv4/conf/$name/send_redirects
done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set vec0 address "$address" arp off up
ip route add default dev vec0
dmesg -n 1
echo ready
while read -r line; do
    eval "$line" </dev/null
    echo "status $?"
done
echo o >/proc/sysrq-trigger
