# The phases of bench guests, run by init.sh: each is a fixed amount of work, whatever the machine's speed.
# The prefix of a name is its group: int (integer programs), fp (floating point), mem (memory), sys (the kernel).

export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 OPENSSL_CONF=/dev/null PERL_HASH_SEED=0
python=$(echo /usr/bin/python3.*)

only=
for word in $(cat /proc/cmdline); do
    case $word in mimic.only=*) only=${word#mimic.only=} ;; esac
done

# wanted NAME...: whether one of these phases is asked for.
wanted() {
    [ -z "$only" ] && return 0
    for name in "$@"; do
        for part in $(echo "$only" | tr , ' '); do
            case $name in *$part*) return 0 ;; esac
        done
    done
    return 1
}

# phase NAME COMMAND...: runs it between two marks. The pauses leave the machine idle while whoever
# measures reads a mark.
phase() {
    wanted "$1" || return 0
    name=$1
    shift
    echo "START $name"
    sleep 0.05
    if "$@" >/tmp/out 2>&1 </dev/null; then
        echo "BENCH $name"
    else
        echo "FAIL $name status $?: $(tail -n 1 /tmp/out)"
    fi
    sleep 0.05
}

# times N COMMAND...
times() {
    count=$1
    shift
    while [ "$count" -gt 0 ]; do
        "$@" || return
        count=$((count - 1))
    done
}

# stress NAME OPERATIONS [OPTION...]: one worker of stress-ng.
stress() {
    stressor=$1 operations=$2
    shift 2
    stress-ng --quiet --no-rand-seed --temp-path /tmp --timeout 0 "--$stressor" 1 "--$stressor-ops" "$operations" "$@"
}

cpu_method() { stress cpu "$2" --cpu-method "$1"; }

# Text (Python's library) and machine code, of fixed sizes.
wanted int-gzip int-gunzip int-7z-pack int-perl-words &&
    cat /usr/lib/python3.*/*.py >/tmp/text && truncate -s 3000000 /tmp/text
wanted int-7z-pack && cat /usr/lib/*/libcrypto.so.3 /tmp/text >/tmp/mixed &&
    truncate -s 600000 /tmp/mixed
wanted int-gunzip && gzip -6 -c /tmp/text >/tmp/text.gz
wanted int-7z-unpack && /usr/lib/7zip/7za a -mmt=1 -mx=1 /tmp/many.7z /usr/lib/python3.*/*.py >/dev/null
wanted int-sha256 int-aes128 && truncate -s 20000000 /tmp/zeros

phase int-sha256 openssl dgst -sha256 /tmp/zeros
phase int-aes128 openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff \
    -iv 000102030405060708090a0b0c0d0e0f -in /tmp/zeros -out /dev/null
# Miller and Rabin's test of the Mersenne prime 2^1279 - 1.
phase int-modexp openssl prime -hex "7$(seq -s f 320 | tr -d 0-9)"
phase int-7z-pack /usr/lib/7zip/7za a -mmt=1 -mx=5 -md=20 /tmp/mixed.7z /tmp/mixed
phase int-7z-unpack times 2 /usr/lib/7zip/7za t -mmt=1 /tmp/many.7z
phase int-gzip gzip -6 -k -c /tmp/text
phase int-gunzip times 5 gzip -t /tmp/text.gz
phase int-python-calls $python /bench/work.py calls
phase int-python-dict $python /bench/work.py dict
phase int-python-json $python /bench/work.py json
phase int-python-regex $python /bench/work.py regex
phase int-lua-calls lua5.4 /bench/work.lua calls
phase int-lua-sieve lua5.4 /bench/work.lua sieve
phase int-lua-strings lua5.4 /bench/work.lua strings
phase int-perl-words perl /bench/work.pl words /tmp/text
phase int-perl-sort perl /bench/work.pl sort
phase int-sqlite sqlite3 :memory: '.read /bench/work.sql'
phase int-sysbench sysbench cpu --threads=1 --time=0 --events=500 --cpu-max-prime=10000 run
phase int-shell dash -c 'i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done'

phase fp-python-nbody $python /bench/work.py nbody
phase fp-lua-nbody lua5.4 /bench/work.lua nbody
phase fp-lua-mandelbrot lua5.4 /bench/work.lua mandelbrot
phase fp-double cpu_method double 80
phase fp-float cpu_method float 150
phase fp-fft cpu_method fft 50
phase fp-matrix stress matrix 300
phase fp-explog cpu_method explog 60
phase fp-trig cpu_method trig 15

phase mem-sysbench sysbench memory --threads=1 --time=0 --memory-block-size=1M \
    --memory-total-size=2G run
phase mem-memcpy stress memcpy 20
phase mem-malloc stress malloc 20000
phase mem-mmap stress mmap 10 --mmap-bytes 8M
phase mem-faults $python /bench/work.py faults

phase sys-calls dd if=/dev/zero of=/dev/null bs=1 count=200000
phase sys-exec dash -c 'i=0; while [ $i -lt 400 ]; do /usr/bin/true; i=$((i + 1)); done'
phase sys-fork stress fork 400
phase sys-pipe stress pipe 20000
phase sys-switch stress switch 20000
phase sys-fault stress fault 2000
