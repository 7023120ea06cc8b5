#!/usr/bin/env bash
# Measures what many silent members cost, up to a million, on a kernel of their own, and prints a table
# in Markdown.
#
# usage: benches/million.sh [--output DIR] [MEMBERS...]
#
# MEMBERS are one or more numbers of members, 1000000 if there is none. For each of them a kernel boots
# under User-mode Linux, on the files of this machine, which it cannot write to. Its root may raise the
# limit of open descriptors, which is what stands in the way of a million members elsewhere. In it,
# `chatloop serve --keepalive off` runs, and `chatloop load idle` connects the members from forty addresses
# of 127.0.0.0/8, keeps them silent, and sends one message to all. Nothing leaves that kernel: it has no
# network but its loopback.
#
# A kernel gets as much memory as its members need, in /dev/shm, and no more: 11.4 GiB for a million. If
# that is not free, nothing is started. Each kernel is ended after a time that its members do not need:
# two hours for a million, which take about half an hour. --output keeps reports, samples and logs in DIR.
#
# It needs linux.uml (Debian's user-mode-linux), ip (iproute2), python3, timeout, and
# `cargo build --release`. The exit code is 1 if a measurement failed, 2 if something is missing.
set -euo pipefail

readonly ADDRESSES=127.0.0.1-127.0.0.40
readonly PORT=7000
readonly SILENCE=20s

main() {
    local keep="" counts=()
    while (($#)); do
        case $1 in
            -h | --help)
                sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
                exit 0
                ;;
            --output)
                keep=${2:?--output: which directory?}
                shift
                ;;
            *[!0-9]* | "" | 0*) fail "$1 is not a number of members; --help explains the usage" ;;
            *) counts+=("$1") ;;
        esac
        shift
    done
    ((${#counts[@]})) || counts=(1000000)
    local root program
    root=$(cd "$(dirname "$0")/.." && pwd)
    program=${CARGO_TARGET_DIR:-$root/target}/release/chatloop
    need linux.uml user-mode-linux
    need ip iproute2
    need python3 python3
    need timeout coreutils
    [[ -x $program ]] || fail "$program is missing: run \`cargo build --release\`"
    local one
    for one in "${counts[@]}"; do
        ((one >= 100 && one <= 2000000)) || fail "$one members: ask for 100 to 2000000"
        check_memory "$one"
    done

    folder=$(mktemp -d)
    kernel=""
    trap 'end_kernel; rm -rf "$folder"' EXIT
    trap 'exit 130' INT TERM
    local failed=0
    for one in "${counts[@]}"; do
        mkdir "$folder/$one"
        cp "$program" "$0" "$folder/$one/"
        boot "$one" "$folder/$one" || failed=1
        if [[ -n $keep ]]; then
            mkdir -p "$keep"
            rm -rf "${keep:?}/$one"
            cp -r "$folder/$one" "$keep/$one"
            rm "$keep/$one/chatloop" "$keep/$one/${0##*/}"
        fi
    done
    python3 "$root/benches/million_table.py" "${counts[@]/#/$folder/}" || failed=1
    exit "$failed"
}

fail() {
    echo "million.sh: $1" >&2
    exit 2
}

need() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || fail "$1 is missing: install $2"
}

# The memory of a kernel with so many members, in MiB. A member takes 8 kB of it; while a message is on
# its way to all, up to 1.3 kB more.
memory_for() {
    echo $((512 + $1 / 90))
}

# The time after which a kernel is ended, in seconds.
time_for() {
    echo $((600 + $1 * 66 / 10000))
}

check_memory() {
    local wanted free room
    wanted=$(memory_for "$1")
    free=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    room=$(df --output=avail -m /dev/shm | tail -1)
    if ((wanted + 1024 > free)); then
        fail "$1 members need $((wanted + 1024)) MiB, and $free MiB are free; ask for fewer"
    elif ((wanted > room)); then
        fail "$1 members need $wanted MiB in /dev/shm, which has $((room)); ask for fewer"
    fi
}

# Runs a kernel until it has measured, or its time is over.
boot() {
    local members=$1 output=$2 core=() tail_pid
    # On one core, a change between the kernel and its processes wakes no other core.
    if command -v taskset >/dev/null && (($(nproc) > 1)); then
        core=(taskset -c "$(($(nproc) - 1))")
    fi
    : >"$output/progress"
    tail -f "$output/progress" >&2 &
    tail_pid=$!
    # The memory is a file there; the kernel deletes it at once.
    TMPDIR=/dev/shm timeout -k 10 "$(time_for "$members")" "${core[@]}" \
        nice -n 5 linux.uml "mem=$(memory_for "$members")M" \
        root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=fd:0,fd:1 quiet slab_nomerge \
        "init=$output/${0##*/}" "MILLION_OUTPUT=$output" "MILLION_MEMBERS=$members" \
        </dev/null >"$output/console" 2>&1 &
    kernel=$!
    local code=0
    wait "$kernel" || code=$?
    kernel=""
    kill "$tail_pid"
    wait "$tail_pid" 2>/dev/null || true
    if ((code == 124 || code == 137)); then
        echo "million.sh: $members members: not done after $(time_for "$members") s" >&2
        return 1
    elif [[ ! -e $output/finished ]]; then
        echo "million.sh: $members members: the kernel ended early, and said last:" >&2
        tail -3 "$output/console" >&2
        return 1
    fi
}

end_kernel() {
    if [[ -n $kernel ]]; then
        kill "$kernel" 2>/dev/null || true
        wait "$kernel" 2>/dev/null || true
    fi
}

# What the first process of the new kernel does.
measure() {
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    # This mount alone can be written to.
    mount -t tmpfs none /mnt
    mkdir /mnt/output
    mount -t hostfs -o "$MILLION_OUTPUT" none /mnt/output
    cd /mnt/output
    {
        allow_many "$MILLION_MEMBERS"
        with_server "$MILLION_MEMBERS"
    } >>progress 2>&1 || true
    cat /proc/net/netstat /proc/net/snmp >counters
    cat /proc/net/softnet_stat >softnet
    echo "$(uname -r) $(free -m | awk '/^Mem:/ { print $2 }')" >finished
    sync
    # Without these two lines the kernel would report a panic when this process ends.
    echo 1 >/proc/sys/kernel/sysrq
    echo o >/proc/sysrq-trigger
    sleep 60
}

# Lifts the limits of the system, not those of the relay.
allow_many() {
    local members=$1
    ip link set lo up
    echo $((2 * members + 100000)) >/proc/sys/fs/nr_open
    echo $((2 * members + 100000)) >/proc/sys/fs/file-max
    # Both ends of a connection are watched by a user.
    echo $((2 * members + 100000)) >/proc/sys/fs/epoll/max_user_watches
    echo "1024 65535" >/proc/sys/net/ipv4/ip_local_port_range
    # A sender that is faster than the receiving half of the kernel fills this queue. What does not fit is
    # dropped, and sent again 200 ms later. It has room for 1000.
    echo $((members + 1000)) >/proc/sys/net/core/netdev_max_backlog
    ulimit -n $((members + 10000))
}

with_server() {
    local members=$1 server sampler code=0
    # No peer on the same machine vanishes without a notice, and the kernel would probe a million silent
    # connections a minute (keepalive), faster than this kernel can.
    ./chatloop serve --listen "127.0.0.1:$PORT" --keepalive off --log-level warn 2>serve.log >/dev/null &
    server=$!
    disown "$server"
    # The new kernel's first listener.
    until grep -q " 0A " /proc/net/tcp; do
        kill -0 "$server"
        sleep 0.1
    done
    sleep 1
    sample "$server" "$members" &
    sampler=$!
    sleep 1
    ./chatloop load idle --target "127.0.0.1:$PORT" --members "$members" --bind "$ADDRESSES" \
        --for "$SILENCE" --json report.json || code=$?
    kill "$sampler"
    grep VmHWM "/proc/$server/status" >peak
    # Nothing of it is needed, and to close a million connections takes a while.
    kill -KILL "$server"
    return "$code"
}

# Writes down every two seconds how many connections there are, what the server holds, and what is free.
# When all are there, and a while after that, so that both ends are at rest, the kernel's objects.
sample() {
    local server=$1 members=$2 sockets rest=0
    cp /proc/slabinfo slabs.before
    while :; do
        sockets=$(awk '/^TCP:/ { print $3 }' /proc/net/sockstat)
        awk -v sockets="$sockets" '
            /^VmRSS:/ { resident = $2 }
            /^VmHWM:/ { peak = $2 }
            /^MemFree:/ { free = $2 }
            END { print int((sockets - 1) / 2), resident, peak, free }
        ' "/proc/$server/status" /proc/meminfo >>samples
        # The listener is one more.
        if ((sockets > 2 * members)) && ((++rest == 4)); then
            cp /proc/slabinfo slabs.after
        fi
        sleep 2
    done
}

if [[ -n ${MILLION_OUTPUT:-} && $$ == 1 ]]; then
    measure
else
    main "$@"
fi
