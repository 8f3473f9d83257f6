# A soak: rounds of stress-ng, sysbench and fork storms for mimic.soak=SECONDS, run by init.sh. Every round ends with a line
# `SOAK round N ok` or `SOAK round N FAILED: WHAT`, the soak with `SOAK passed, N rounds` or `SOAK FAILED, ...`.

cpus=$(grep -c ^processor /proc/cpuinfo)
end=$(($(cut -d. -f1 /proc/uptime) + soak))
round=0
failures=0

# try NAME COMMAND...
try() {
    name=$1
    shift
    if ! "$@" >/tmp/out 2>&1 </dev/null; then
        failures=$((failures + 1))
        failed="$failed $name (status $?: $(tail -n 1 /tmp/out))"
    fi
}

# together SECONDS OPTION...: stressors at the same time, which check their own results.
together() {
    seconds=$1
    shift
    stress-ng --quiet --verify --temp-path /tmp --timeout "$seconds" "$@"
}

# Generations of short-lived shells, each of which forks further ones.
fork_storm() {
    sum=0
    i=0
    while [ $i -lt 40 ]; do
        n=$(dash -c 'for i in 1 2 3 4 5; do (dash -c "exit 0") & done; wait; echo 7') || return 1
        sum=$((sum + n))
        i=$((i + 1))
    done
    [ $sum -eq 280 ]
}

# The digest of zeros that FIPS 180-4's algorithm gives is the same every time.
digest() {
    truncate -s 3000000 /tmp/zeros
    openssl dgst -sha256 /tmp/zeros >/tmp/digest
    [ -e /tmp/digest.first ] || cp /tmp/digest /tmp/digest.first
    [ "$(cat /tmp/digest)" = "$(cat /tmp/digest.first)" ]
}

while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
    round=$((round + 1))
    failed=
    try cpu together 20 --cpu "$cpus" --cpu-method all
    try memory together 15 --vm 2 --vm-bytes 32M --malloc 1 --mmap 1 --mmap-bytes 8M
    try processes together 15 --fork 2 --vfork 1 --clone 1 --exec 1 --switch 1
    try messages together 10 --pipe 1 --futex 2 --mutex 1 --sigsuspend 1 --timer 1
    try numbers together 10 --matrix 1 --hash 1 --qsort 1 --crypt 1 --bsearch 1
    try fork-storm fork_storm
    try digest digest
    try primes sysbench cpu --threads="$cpus" --time=5 run
    try blocks sysbench memory --threads="$cpus" --time=5 run
    try threads sysbench threads --threads=8 --time=5 run
    try mutex sysbench mutex --threads=4 run
    if [ -z "$failed" ]; then
        echo "SOAK round $round ok, $(cut -d. -f1 /proc/uptime) s up, $(grep MemFree /proc/meminfo | tr -cd 0-9) KiB free"
    else
        echo "SOAK round $round FAILED:$failed"
    fi
done
[ $failures -eq 0 ] && echo "SOAK passed, $round rounds" || echo "SOAK FAILED, $failures failures in $round rounds"
