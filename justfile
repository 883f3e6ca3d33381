# `just` lists these; every one is a plain command that works without just.

# build and run on the embedded default
run:
    scripts/run

# everything the continuous integration checks
test:
    scripts/test

# the quick gate while working
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo nextest run --test tidy --test conf --lib

# figures beside the named peers, in one run
bench *what:
    scripts/bench {{what}}
