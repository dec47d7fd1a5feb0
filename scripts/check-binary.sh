#!/usr/bin/env bash
# check-binary.sh FILE LIMIT: ends with 1 unless FILE is static and at most LIMIT bytes long.
set -euo pipefail
file=$1 limit=$2

# ldd fails for what is not dynamic, in words that depend on its version; a static program names no interpreter either.
linkage=$(ldd "$file" 2>&1 || true)
case $linkage in
*'statically linked'* | *'not a dynamic executable'*) ;;
*)
    printf '%s is not static:\n%s\n' "$file" "$linkage" >&2
    exit 1
    ;;
esac
if readelf --program-headers "$file" | grep -q INTERP; then
    echo "$file names an interpreter, so it is not static" >&2
    exit 1
fi
size=$(stat --format %s "$file")
if [ "$size" -gt "$limit" ]; then
    echo "$file has $size bytes, more than $limit" >&2
    exit 1
fi
echo "$file: static, $size bytes"
