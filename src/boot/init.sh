#!/bin/busybox sh
# First process of `mimic boot debian-riscv64`: prepares the system, then keeps a shell on the console.

bb=/bin/busybox
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root
export TERM="${TERM:-vt100}"

$bb mkdir -p /proc /sys /dev /run /tmp /root /sbin /usr/bin /usr/sbin
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev 2>/dev/null
$bb mkdir -p /dev/pts
$bb mount -t devpts devpts /dev/pts
$bb mount -t tmpfs tmpfs /tmp
$bb --install -s
hostname mimic
ip link set lo up 2>/dev/null

# The kernel's own messages stay out of the shell's way (dmesg shows them).
dmesg -n 4

# busybox's poweroff asks process 1 to do it, by these signals.
trap 'umount -a -r 2>/dev/null; exec poweroff -f' USR1 USR2
trap 'umount -a -r 2>/dev/null; exec reboot -f' TERM

cat <<GREETING

Welcome to Linux $(uname -r) on RISC-V, with a busybox shell.
$(grep -c ^processor /proc/cpuinfo) hart, $(($(awk '/MemTotal/ { print $2 }' /proc/meminfo) / 1024)) MB of memory, up $(cut -d' ' -f1 /proc/uptime) s.
\`poweroff\` ends the machine, \`reboot\` resets it, \`busybox\` lists the commands.

GREETING

# A serial line does not know the size of the terminal behind it; the command line may tell.
[ -n "$COLUMNS" ] && [ -n "$LINES" ] && stty cols "$COLUMNS" rows "$LINES" </dev/console
unset COLUMNS LINES

cd /root
while true; do
    # A session of its own with the console as its terminal, so that Ctrl-C and job control work.
    # In the background and waited for: a shell looks at signals only between commands.
    setsid cttyhack sh -l &
    wait $!
    echo "The shell has ended; starting another one."
done
