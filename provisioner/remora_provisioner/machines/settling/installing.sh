# The second half of settling.sh, sent when a machine lacks something: takes it in, and makes a bundle of it.
# Law: a thing appears under its name when it is whole, and only there is it used.
new=.new-$nonce
work=$place/$new
pythons=$place/pythons bundles=$place/bundles
spoiled() {
    case $1 in
    *"No space left"* | *uota*) fail full "$place: $1" ;;
    *) fail write "$place: $1" ;;
    esac
}
size() { echo $(($(wc -c <"$1"))); }
digest() { sha256sum "$1" 2>/dev/null | { read -r found _ && echo "$found"; }; }
listed() {
    read -r name whole whole_size count
    list=
    while [ "$count" -gt 0 ]; do
        read -r piece piece_size
        list="$list $piece:$piece_size"
        count=$((count - 1))
    done
}
# A link of our own to each piece: whoever else settles here may finish first and remove theirs.
lacking() {
    for item in "$@"; do
        piece=${item%:*}
        if ln "$place/incoming/$piece" "$work/$piece" 2>/dev/null; then
            [ "$(size "$work/$piece")" = "${item#*:}" ] && continue
            rm -f "$work/$piece" "$place/incoming/$piece"
        fi
        printf ' %s' "$piece"
    done
}
take() {
    if [ "$exact" ]; then
        said=$(dd bs="$2" count=1 iflag=fullblock of="$work/piece" 2>&1) || spoiled "$said"
    else
        said=$(dd bs=1 count="$2" of="$work/piece" 2>&1) || spoiled "$said"
    fi
    [ "$(size "$work/piece")" = "$2" ] || exit 1
    found=$(digest "$work/piece")
    [ "${found:-$1}" = "$1" ] || fail digest "a piece of the transfer"
    mv "$work/piece" "$work/$1"
    ln "$work/$1" "$place/incoming/$1" 2>/dev/null
    say got "$1"
}
receive() {
    for item in "$@"; do
        [ -e "$work/${item%:*}" ] || take "${item%:*}" "${item#*:}"
    done
}
joined() {
    for item in "$@"; do cat "$work/${item%:*}" || return 1; done
}
join() {
    name=$1 whole=$2 whole_size=$3
    shift 3
    said=$({ joined "$@" | $unpacker >"$work/$name"; } 2>&1)
    case $said in *"No space left"* | *uota*) spoiled "$said" ;; esac
    found=$(digest "$work/$name")
    if [ "$(size "$work/$name")" != "$whole_size" ] || [ "${found:-$whole}" != "$whole" ]; then
        for item in "$@"; do rm -f "$place/incoming/${item%:*}"; done
        fail digest "$name"
    fi
    for item in "$@"; do rm -f "$work/${item%:*}"; done
}
unpack_python() {
    exec 3<"$work/python"
    while read -r mode length path <&3; do
        at=$pythons/$new/$path
        [ -d "${at%/*}" ] || said=$(mkdir -p "${at%/*}" 2>&1) || spoiled "$said"
        said=$(dd bs="$length" count=1 of="$at" <&3 2>&1) || spoiled "$said"
        [ "$mode" = 644 ] || chmod "$mode" "$at"
    done
    exec 3<&-
    rm -f "$work/python"
}
unpack_code() {
    there=$pythons/$target
    set -- "$there/loader" --library-path "$there/libs" "$there/python" -I -S "$there/unpacking.py"
    said=$("$@" "$work/code" "$bundles/$new" "$there" 2>&1) && return
    case $said in
    *Errno*) spoiled "$said" ;;
    *) fail runs "$said" ;;
    esac
}
# Services that tidy /tmp and /var/tmp leave files with the sticky bit alone, and a bundle is to stay whole.
named() {
    chmod -R +t "$1" 2>/dev/null
    [ -d "$2" ] || mv "$1" "$2" || fail write "$2"
    rm -rf "$1" "$2/$new"
}
install() {
    target=$python
    if [ "$python_list" ]; then
        target=$new
        join python "$python_whole" "$python_size" $python_list
        unpack_python
    fi
    join code "$code_whole" "$code_size" $code_list
    unpack_code
    say "$python" >"$bundles/$new/needs"
    for link in "../../pythons/$target python" "python/lib lib" "python/lib lib64"; do
        ln -s "${link% *}" "$bundles/$new/${link#* }" || fail write "$bundles"
    done
    said=$("$bundles/$new/bin/python" -P -c "import asyncio, ctypes, hashlib, remora_provisioner" 2>&1) || fail runs "$said"
    if [ "$target" = "$new" ]; then
        rm "$bundles/$new/python"
        ln -s "../../pythons/$python" "$bundles/$new/python"
        named "$pythons/$new" "$pythons/$python"
    fi
    named "$bundles/$new" "$bundles/$bundle"
    for item in $python_list $code_list; do rm -f "$place/incoming/${item%:*}"; done
}
settle() {
    trap 'rm -rf "$work" "$pythons/$new" "$bundles/$new"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    said=$(mkdir -p "$work" "$place/incoming" "$pythons" "$bundles" 2>&1) || spoiled "$said"
    exact=
    if dd iflag=fullblock count=0 </dev/null >/dev/null 2>&1; then exact=yes; fi
    python_list=
    for part in $lacks; do
        listed
        if [ "$part" = python ]; then
            python_list=$list python_whole=$whole python_size=$whole_size
        else
            code_list=$list code_whole=$whole code_size=$whole_size
        fi
    done
    say "lack$(lacking $python_list $code_list)"
    receive $python_list $code_list
    say unpacking
    install
    rm -rf "$work"
    trap - EXIT HUP INT TERM PIPE
}
