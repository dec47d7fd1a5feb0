#!/usr/bin/env bash
# Prints the Rust target that the product is built for on this machine: TARGET if it is set, else static musl (smaller, starts
# faster) where toolchain and C compiler have it, else static glibc.
set -euo pipefail

if [ -n "${TARGET:-}" ]; then
    echo "$TARGET"
    exit
fi
machine=$(uname -m)
musl=$machine-unknown-linux-musl
sysroot=$(rustc --print sysroot 2>/dev/null || true)
# ring has C and assembly in it, so the standard library for musl is not enough.
if [ -d "$sysroot/lib/rustlib/$musl/lib" ] && command -v musl-gcc >/dev/null; then
    echo "$musl"
else
    echo "$machine-unknown-linux-gnu"
fi
