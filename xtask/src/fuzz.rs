// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `cargo xtask fuzz`: runs a fuzz target, with the coverage that the stable compiler offers.

use crate::process::{self, Outcome};

const USAGE: &str =
    "usage: cargo xtask fuzz NAME [SECONDS]; the names are the files in fuzz/targets";
/// libFuzzer is told by these which branches an input takes.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// `fuzz NAME [SECONDS]`.
pub(crate) fn main(words: &[&str]) -> Outcome {
    let (name, seconds) = match words {
        [name] => (*name, "60"),
        [name, seconds] => (*name, *seconds),
        _ => return Err(USAGE.into()),
    };
    if seconds.parse::<u32>().is_err() {
        return Err(USAGE.into());
    }
    let root = process::root();
    let corpus = root.join("target/fuzz-corpus").join(name);
    std::fs::create_dir_all(&corpus)
        .map_err(|error| format!("cannot make {}: {error}", corpus.display()))?;
    let mut command = process::cargo();
    command
        .args(["run", "--release", "--locked", "--target", "x86_64-unknown-linux-gnu"])
        .args(["--manifest-path", "fuzz/Cargo.toml", "--bin", name, "--"])
        .arg(format!("-max_total_time={seconds}"))
        .arg("-rss_limit_mb=1024")
        .arg(&corpus)
        .env("CARGO_TARGET_DIR", root.join("target/fuzz"))
        .env("RUSTFLAGS", COVERAGE);
    process::run(&mut command)
}
