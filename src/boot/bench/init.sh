#!/bin/busybox sh
# First process of `mimic boot bench-riscv64` and `bench-amd64`: runs the phases that the command line asks for
# (mimic.only=PATTERN[,PATTERN...], parts of their names), or a soak (mimic.soak=SECONDS), and powers off.

bb=/bin/busybox
export PATH=/usr/bin:/bin HOME=/tmp LC_ALL=C

$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev 2>/dev/null
$bb mkdir -p /dev/shm /run
$bb mount -t tmpfs tmpfs /tmp
$bb mount -t tmpfs tmpfs /dev/shm
$bb dmesg -n 1
echo BOOTED
for applet in cat chmod cp cut dd dmesg echo grep head mkdir rm seq sh sleep sort tail tr true truncate wc poweroff; do
    $bb ln -s $bb /usr/bin/$applet
done

soak=
for word in $(cat /proc/cmdline); do
    case $word in mimic.soak=*) soak=${word#mimic.soak=} ;; esac
done
if [ -n "$soak" ]; then
    . /bench/soak.sh
else
    . /bench/phases.sh
fi
poweroff -f
