#!/bin/sh
# rustdoc with unstable options allowed; the compiler and build scripts stay as they are.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
