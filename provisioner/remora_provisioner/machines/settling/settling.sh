# Runs on the other machine, sent by settling.py: says what there is, finds the place of ours, and becomes the program there.
# Law: POSIX sh and its usual programs alone. Of what is read from standard input, only our own installing.sh is evaluated.
# Lines that begin with # are not sent.
umask_before=$(umask)
umask 022
if [ "${LC_ALL+set}" ]; then locale_before=$LC_ALL; fi
export LC_ALL=C
unset CDPATH ENV BASH_ENV LD_PRELOAD LD_LIBRARY_PATH PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONPLATLIBDIR PYTHONINSPECT PYTHONOPTIMIZE
set -f
cd /
newline='
'
IFS= read -r nonce
IFS= read -r machine
read -r bundle python code_room python_room more
IFS= read -r module
IFS= read -r count
set --
while [ "$count" -gt 0 ]; do
    IFS= read -r word
    set -- "$@" "$word"
    count=$((count - 1))
done
printf '\n%s:%s\n' remora "$nonce"

say() { printf '%s\n' "$*"; }
fact() { [ -z "$2" ] || say fact "$1" "$2"; }
fail() {
    say fail "$1" "${2##*"$newline"}"
    exit 1
}
free() { df -Pk "$1" 2>/dev/null | { read -r _ && read -r _ _ _ left _ && echo "$left"; }; }
libc() {
    set +f
    for file in /lib/ld-musl-*; do
        if [ -e "$file" ]; then echo musl; else getconf GNU_LIBC_VERSION 2>/dev/null; fi
        break
    done
}
namespaces() {
    if [ ! -e /proc/self/ns/user ]; then
        echo no
    elif command -v unshare >/dev/null 2>&1; then
        if unshare -Ur true >/dev/null 2>&1; then echo yes; else echo no; fi
    fi
}
me=$(id -u)
machine_here=$(uname -m)
fact architecture "$machine_here"
fact kernel "$(uname -r)"
fact libc "$(libc)"
fact user "$me"
fact home "${HOME:-}"
fact cores "$(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)"
while read -r key value _; do
    case $key in MemTotal:) fact memory "$value" ;; esac
done </proc/meminfo
fact namespaces "$(namespaces)"
fact clock "$(date +%s)"
[ "$machine_here" = "$machine" ] || fail architecture "$machine_here"

# ---- where things are kept: each of these returns 0, or leaves in $why what is wrong with the folder $1
ours() {
    if [ -h "$1" ] || [ ! -d "$1" ]; then
        why="it is not a folder"
        return 1
    fi
    set -- "$1" $(ls -ldn "$1" 2>/dev/null)
    if [ "${4:-}" != "$me" ]; then
        why="it belongs to user ${4:-unknown}"
        return 1
    fi
    case $2 in
    drwx------*) ;;
    d????w* | d???????w*)
        why="others may write there"
        return 1
        ;;
    *) why=$(chmod 700 "$1" 2>&1) || return 1 ;;
    esac
}
made() {
    why=
    case $1 in */remora/agent) why=$(umask 077 && mkdir -p "${1%/*}" 2>&1) || return 1 ;; esac
    [ -d "$1" ] || [ -h "$1" ] || why=$(mkdir -m 700 "$1" 2>&1) || [ -d "$1" ]
}
executes() {
    probe=$1/.probe-$nonce
    status=1
    if { printf '#!/bin/sh\nexit 7\n' >"$probe"; } 2>/dev/null; then
        chmod 700 "$probe"
        "$probe" >/dev/null 2>&1
        status=$?
    fi
    rm -f "$probe" 2>/dev/null
    case $status in
    7) return 0 ;;
    1) why="nothing can be written there" ;;
    *) why="nothing may be executed there" ;;
    esac
    return 1
}
roomy() {
    room=$code_room
    [ -d "$1/pythons/$python" ] || room=$python_room
    left=$(free "$1")
    case $left in '' | *[!0-9]*) return 0 ;; esac
    why="it has $((left / 1024)) MiB free, and $((room / 1024)) are needed"
    [ "$left" -ge "$room" ]
}
has() { [ -x "$1/pythons/$python/loader" ] && [ -d "$1/bundles/$bundle" ] && ours "$1" && place=$1; }
fits() {
    if made "$1" && ours "$1" && executes "$1" && roomy "$1"; then
        place=$1
        return 0
    fi
    say tried "$1: ${why##*: }"
    return 1
}
first() {
    case ${XDG_DATA_HOME:-} in
    /*) "$1" "$XDG_DATA_HOME/remora/agent" && return ;;
    *) case ${HOME:-} in /*) "$1" "$HOME/.local/share/remora/agent" && return ;; esac ;;
    esac
    "$1" "/var/tmp/remora-$me" || "$1" "/tmp/remora-$me" || "$1" "/run/user/$me/remora" || "$1" "/dev/shm/remora-$me"
}
first has || {
    first fits || fail place ""
    lacks=code unpacker=cat coding=plain
    [ -d "$place/pythons/$python" ] || lacks="python code"
    if command -v gzip >/dev/null 2>&1; then unpacker="gzip -dc" coding=gzip; fi
    say need "$coding" "$lacks"
    eval "$(dd bs=1 count="$more" 2>/dev/null)"
    settle
}

# ---- what nobody has used for long, and what nobody finished
stale() { [ "$(find "$1" -prune -mtime "+$2" 2>/dev/null)" ]; }
runs() { grep -qF "$1/" /proc/[0-9]*/cmdline 2>/dev/null; }
clear() {
    set +f
    for old in "$place"/bundles/*; do
        if [ "$old" != "$place/bundles/$bundle" ] && stale "$old/used" 14 && ! runs "$old"; then rm -rf "$old"; fi
    done
    for old in "$place"/pythons/*; do
        if [ "$old" != "$place/pythons/$python" ] && stale "$old" 14; then
            grep -qxF "${old##*/}" "$place"/bundles/*/needs || rm -rf "$old"
        fi
    done
    for old in "$place"/.new-* "$place"/*/.new-* "$place"/incoming/*; do
        if [ -e "$old" ] && stale "$old" 2; then rm -rf "$old"; fi
    done
    set -f
}
touch "$place/bundles/$bundle/used" 2>/dev/null
clear
fact place "$place"
fact free "$(free "$place")"
if [ "${locale_before+set}" ]; then LC_ALL=$locale_before; else unset LC_ALL; fi
umask "$umask_before"
say start
exec "$place/bundles/$bundle/bin/python" -P -m "$module" "$place" "$@"
