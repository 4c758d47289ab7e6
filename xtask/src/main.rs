// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! House tasks: `cargo xtask VERB`. No dependency but the standard library, so that it starts
//! in seconds on a fresh clone.

mod bench;
mod boot;
mod demo;
mod fuzz;
mod illumos;
mod lab;
mod licences;
mod media;
mod mirror;
mod packages;
mod phases;
mod process;
mod readme;
mod streams;
mod suite;
mod whole_build;

use std::process::ExitCode;

const HELP: &str = "\
House tasks of imgforge

Usage: cargo xtask VERB

  media debian-13|tiny [OUT]   make an installation medium (target/media/NAME.iso)
  demo [--tiny]                install what is missing and build an image from start to end
  test [--fast] [--skip NAME]  everything that must pass; --fast leaves out the slow builds
  illumos [check|clippy|link|setup] [CARGO ARGUMENTS]
                               check the code for illumos; check and clippy by default
  abi                          print what the raw layers of the illumos interface hold
  lab build [--zfs]            make the lab, a machine with a working /dev/kvm
  lab run [OPTIONS] -- CMD     run a command in it
  fuzz NAME [SECONDS]          run a fuzz target of fuzz/targets, a minute by default
  bench overhead [--target T]  a build by imgforge and by packer, side by side
  bench export [--disk FILE]   a disk to a compressed send stream: imgforge, gzip, pigz
  bench vm [--runs N]          our own monitor and QEMU on KVM, in the lab
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = std::env::set_current_dir(process::root())
        .map_err(|error| format!("cannot enter {}: {error}", process::root().display()))
        .and_then(|()| match words.as_slice() {
            ["media", rest @ ..] => media::main(rest),
            ["demo", rest @ ..] => demo::main(rest),
            ["test", rest @ ..] => suite::main(rest),
            ["illumos", rest @ ..] => illumos::main(rest),
            ["abi"] => process::run(process::cargo().args(["run", "--quiet", "--example", "abi"])),
            ["lab", rest @ ..] => lab::main(rest),
            ["fuzz", rest @ ..] => fuzz::main(rest),
            ["bench", "overhead", rest @ ..] => bench::main(rest),
            ["bench", "export", rest @ ..] => bench::export::main(rest),
            ["bench", "vm", rest @ ..] => bench::vm::main(rest),
            [] | ["help" | "-h" | "--help"] => {
                print!("{HELP}");
                Ok(())
            }
            [verb, ..] => Err(format!("no such task: {verb}; `cargo xtask help` lists them")),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            if !reason.is_empty() {
                eprintln!("xtask: error: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}
