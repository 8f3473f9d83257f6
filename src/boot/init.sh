#!/bin/busybox sh
# First process of `mimic boot @GUEST@`: prepares the system, then becomes busybox's init,
# which keeps a shell on the console and knows how to power off and reboot.

bb=/bin/busybox
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root
# The kernel sets TERM=linux when its command line names none.
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

# Disks and their file system, if the machine has any.
while read -r module; do
    insmod "/lib/modules/$module"
done </lib/modules/order

# The kernel's own messages stay out of the shell's way (dmesg shows them).
dmesg -n 4

# A serial line does not know the size of the terminal behind it; the command line may tell.
[ -n "$COLUMNS" ] && [ -n "$LINES" ] && stty cols "$COLUMNS" rows "$LINES"
unset COLUMNS LINES

cat <<GREETING

Welcome to Linux $(uname -r) on @ISA@, with a busybox shell.
$(grep -c ^processor /proc/cpuinfo) @HART@, $(($(awk '/MemTotal/ { print $2 }' /proc/meminfo) / 1024)) MB of memory, up $(cut -d' ' -f1 /proc/uptime) s.
\`poweroff\` ends the machine, \`reboot\` resets it, \`busybox\` lists the commands.

GREETING

# The shell needs the console's own name: /dev/console cannot be a controlling terminal.
console=$(awk '{ print $NF }' /sys/class/tty/console/active)
cat >/etc/inittab <<INITTAB
$console::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/umount -a -r 2>/dev/null
INITTAB
exec init
