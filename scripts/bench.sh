#!/usr/bin/env bash
# Measures every bar, in release; fails if one is missed. Arguments are the benchmark's: --quick, --filter NAME, --list,
# --dir DIR, --out FILE. It says in the end where its table is. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo bench --package keystead-benches --locked -- "$@"
