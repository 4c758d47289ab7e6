// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `imgforge build`: builds images.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Global, Selection};
use crate::build::{self, Cancel, OnError, Report, Request, StateDirs};
use crate::host::{self, Choice, Needs, Requested};
use crate::media::{self, FetchOptions};
use crate::net::Existing;
use crate::target::{Checksum, Loaded};
use crate::ui::{Failure, Kind, Outcome, Printer, Stage};
use crate::vm::Firmware;

/// Arguments of `imgforge build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Targets to build, one after another
    #[arg(value_name = "TARGET", required_unless_present_any = ["all", "target_file"])]
    targets: Vec<String>,
    /// Build every target of the catalogue
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Who runs the machine; `auto` probes what works here and says why
    #[arg(long, value_name = "auto|kvm|bhyve|qemu", default_value_t = Requested::Auto)]
    hypervisor: Requested,
    /// Link that the machine is plugged into and that exists already: a VNIC with bhyve, a tap with
    /// KVM
    #[arg(long, value_name = "LINK", help_heading = "Network")]
    nic: Option<String>,
    /// The guest's address on that link's network, where the build reaches it by SSH
    #[arg(long, value_name = "ADDRESS", requires = "nic", help_heading = "Network")]
    guest_address: Option<IpAddr>,
    /// This host's address on that network, where answer files are served
    /// [default: the one that the route to the guest begins at]
    #[arg(long, value_name = "ADDRESS", requires = "nic", help_heading = "Network")]
    http_address: Option<IpAddr>,
    /// Output directory; with several targets, one directory per target is made in it
    /// [default: output-TARGET-x86_64]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace an existing output directory once the new one is complete
    #[arg(long)]
    force: bool,
    /// What happens when a step fails: undo everything, keep the machine running, or ask
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnError::Cleanup)]
    on_error: OnError,
    /// Install anew, and keep nothing for the next build
    #[arg(long)]
    no_cache: bool,
    /// First step that must run: `install` installs anew, `provision` insists on a cached
    /// installation
    #[arg(long, value_name = "STEP", value_parser = from_step)]
    from: Option<Stage>,
    /// Installer medium to use instead of the target's, a path or URL
    #[arg(long, value_name = "ISO")]
    iso: Option<String>,
    /// How to know that the medium of `--iso` is whole: `sha256:HEX`, `file:URL` or `none`
    #[arg(long, value_name = "CHECKSUM", requires = "iso")]
    iso_checksum: Option<String>,
    /// Where installer media and finished installations are kept
    /// [default: IMGFORGE_CACHE_DIR, PACKER_CACHE_DIR or ~/.cache/imgforge]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Use only what is on this host already
    #[arg(long)]
    offline: bool,
}

fn from_step(word: &str) -> Result<Stage, String> {
    match word {
        "install" => Ok(Stage::Install),
        "provision" => Ok(Stage::Provision),
        _ => Err("expected `install` or `provision`".into()),
    }
}

/// Runs the builds; the first failure decides the exit code, the others still run.
pub(crate) fn run(args: &BuildArgs, global: &Global) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::build("cannot start the runtime").because(error))?;
    runtime.block_on(run_all(args, global))
}

async fn run_all(args: &BuildArgs, global: &Global) -> Outcome<()> {
    // Everything that can be known to be wrong is said before anything starts.
    let targets = load(args)?;
    let cache = media::cache_dir(args.cache_dir.as_deref(), |name| std::env::var_os(name))?;
    let machines = || targets.iter().map(|target| &target.resolved.machine);
    let needs = Needs {
        bios: machines().any(|machine| machine.firmware == Firmware::Bios),
        qemu_args: machines().any(|machine| !machine.qemu_args.is_empty()),
        link: args.nic.is_some(),
    };
    let (guest, host) = (args.guest_address, args.http_address);
    let nic = args.nic.as_ref().map(|nic| Existing { nic: nic.clone(), guest, host });
    let choice = host::choose(args.hypervisor, needs, nic.as_ref())?;
    for target in &targets {
        choice.driver.check(target.resolved.machine.firmware)?;
    }
    let dirs = StateDirs::from_env()?;
    let printer = global.printer();
    let say = printer.clone();
    let cancel = Cancel::install(move |text| say.notice(text))?;
    build::recover_dead(&dirs, &printer.events(""))?;
    if choice.driver.kernel_keeps_machines() {
        for name in build::strangers(&dirs)? {
            let remedy = build::remedy(&name);
            printer
                .events("")
                .warn(format!("the virtual machine {name} is in no journal; {remedy}"));
        }
    }
    let several = targets.len() > 1;
    let mut first = None;
    for target in targets {
        let output = output_of(args, &target.resolved.name, several);
        let request = request(args, target, output, &choice, &cache, &dirs, &cancel, &printer);
        match build::build(request).await {
            Ok(report) => announce(&report, &printer)?,
            Err(problem) if problem.kind() == Kind::Interrupted => {
                printer.finish();
                return Err(problem);
            }
            Err(problem) if several => {
                printer.failure(&problem);
                first.get_or_insert(problem);
            }
            Err(problem) => {
                printer.finish();
                return Err(problem);
            }
        }
    }
    printer.finish();
    match first {
        None => Ok(()),
        Some(problem) => {
            Err(Failure::build("not every target was built").fact("first", problem.summary()))
        }
    }
}

fn load(args: &BuildArgs) -> Outcome<Vec<Loaded>> {
    let names = if args.all { args.selection.names()? } else { args.targets.clone() };
    let mut targets = args.selection.load_all(&names)?;
    if let Some(iso) = &args.iso {
        let checksum = match &args.iso_checksum {
            None => Checksum::None,
            Some(text) => Checksum::parse(text)
                .map_err(|why| Failure::input(why).fact("flag", "--iso-checksum"))?,
        };
        for target in &mut targets {
            target.resolved.media.urls = vec![iso.clone()];
            target.resolved.media.checksum = checksum.clone();
        }
    }
    Ok(targets)
}

fn output_of(args: &BuildArgs, name: &str, several: bool) -> PathBuf {
    match &args.output {
        Some(directory) if several => directory.join(name),
        Some(directory) => directory.clone(),
        None => PathBuf::from(format!("output-{}-x86_64", name.replace('.', ""))),
    }
}

#[allow(clippy::too_many_arguments)]
fn request(
    args: &BuildArgs,
    target: Loaded,
    output: PathBuf,
    choice: &Choice,
    cache: &Path,
    dirs: &StateDirs,
    cancel: &Cancel,
    printer: &Printer,
) -> Request {
    let events = printer.events(&target.resolved.name);
    let mut fetch = FetchOptions::new(cache);
    fetch.offline = args.offline;
    Request {
        target: target.resolved,
        assets: target.assets,
        driver: Arc::clone(&choice.driver),
        hypervisor: choice.line.clone(),
        output,
        force: args.force,
        on_error: args.on_error,
        use_cache: !args.no_cache,
        from: args.from,
        fetch,
        events,
        dirs: dirs.clone(),
        cancel: cancel.clone(),
    }
}

/// The paths of the artefacts, on standard output: what a script wants to read.
fn announce(report: &Report, printer: &Printer) -> Outcome<()> {
    for file in &report.files {
        printer.result(&file.display().to_string())?;
    }
    Ok(())
}
