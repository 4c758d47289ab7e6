// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Who runs the virtual machines: asked, probed, chosen, and said in one line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::net::{Existing, existing};
use crate::qemu::{Accel, QemuDriver, Search};
use crate::ui::{Failure, Outcome};
use crate::vm::firmware::rom;
use crate::vm::hv::bhyve::{Look, look};
use crate::vm::hv::kvm::{Verdict, probe};
use crate::vm::monitor::{Hypervisor, LinkNetwork, MonitorDriver};
use crate::vm::{Driver, Firmware};

/// What the user asked for with `--hypervisor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requested {
    /// Our own monitor where KVM or bhyve works, QEMU elsewhere.
    #[default]
    Auto,
    /// imgforge's own monitor on Linux KVM.
    Kvm,
    /// The bhyve of SmartOS.
    Bhyve,
    /// QEMU, on any host; with KVM where that works.
    Qemu,
}

impl Requested {
    /// Every value, in the order in which help shows them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Bhyve, Self::Kvm, Self::Qemu];

    /// The word that users type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Bhyve => "bhyve",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Requested {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|value| value.name() == word);
        known.ok_or_else(|| format!("`{word}` is none of auto, bhyve, kvm, qemu"))
    }
}

/// A driver and the reason for it.
#[derive(Clone)]
pub struct Choice {
    /// Starts the machines.
    pub driver: Arc<dyn Driver>,
    /// What was chosen and why, in one line.
    pub line: String,
    /// imgforge itself is the monitor.
    pub is_ours: bool,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("driver", &self.driver.name())
            .field("line", &self.line)
            .finish()
    }
}

/// What the machines need that not every driver has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Firmware other than UEFI.
    pub bios: bool,
    /// QEMU's own arguments.
    pub qemu_args: bool,
    /// A link of the host; what is wrong with it is said, not made up for by another driver.
    pub link: bool,
}

/// Chooses a driver; `nic` is the link that its machines are plugged into, of a kind that depends
/// on the driver. Takes some tens of milliseconds, for it runs a guest on `/dev/kvm` rather than
/// trusting the device node.
///
/// # Errors
/// What was asked for does not work here; with the step that failed and the remedy.
pub fn choose(requested: Requested, needs: Needs, nic: Option<&Existing>) -> Outcome<Choice> {
    let search = Search::from_environment();
    let kernels = Kernels { kvm: &probe, bhyve: &look };
    let own = |hypervisor, seen: &str| {
        let network = nic.map(|nic| existing(nic, hypervisor)).transpose()?;
        own(&search, hypervisor, seen, network)
    };
    let choice = choose_from(requested, needs, search.clone(), &kernels, &own)?;
    if let Some(nic) = nic.filter(|_| !choice.is_ours) {
        return Err(no_links(&nic.nic, &choice.line));
    }
    Ok(choice)
}

/// Only our own monitor plugs its machines into a link of the host.
fn no_links(link: &str, line: &str) -> Failure {
    Failure::input("a link is for machines of imgforge's own monitor, which does not run them here")
        .fact("link", link)
        .fact("hypervisor", line)
        .hint("leave out `--nic`: QEMU's machines have a network in user mode")
        .hint("or ask for `--hypervisor kvm` or `bhyve`, which says what it lacks")
}

/// Judges of this host's kernels.
struct Kernels<'a> {
    kvm: &'a dyn Fn() -> Verdict,
    bhyve: &'a dyn Fn() -> Look,
}

/// Makes a choice of our own monitor on a kernel, of which this was seen.
type Own<'a> = &'a dyn Fn(Hypervisor, &str) -> Outcome<Choice>;

fn choose_from(
    requested: Requested,
    needs: Needs,
    search: Search,
    kernels: &Kernels<'_>,
    own: Own<'_>,
) -> Outcome<Choice> {
    let judge = kernels.kvm;
    match requested {
        Requested::Bhyve => {
            let found = (kernels.bhyve)().found()?;
            own(Hypervisor::Bhyve, &found.to_string())
        }
        Requested::Qemu => match judge() {
            verdict @ Verdict::Usable { .. } => accelerated(search, &verdict, "as asked"),
            verdict => translated(search, &verdict.to_string()),
        },
        Requested::Kvm => match judge() {
            verdict @ Verdict::Usable { .. } => own(Hypervisor::Kvm, &verdict.to_string()),
            verdict => Err(Failure::build("KVM cannot be used on this host")
                .fact("probe", verdict)
                .hint("use `--hypervisor qemu`: slower, but it runs anywhere")
                .hint("run `imgforge doctor`")),
        },
        Requested::Auto => match judge() {
            verdict @ Verdict::Usable { .. } => {
                match suits(needs, || own(Hypervisor::Kvm, &verdict.to_string()))? {
                    Ok(choice) => Ok(choice),
                    Err(why) => accelerated(search, &verdict, &why),
                }
            }
            verdict => match (kernels.bhyve)() {
                Look::Usable(found) => match beyond_us(needs) {
                    // What bhyve lacks then is said, not made up for by emulation.
                    None => own(Hypervisor::Bhyve, &found.to_string()),
                    Some(why) => translated(search, &format!("bhyve works; {why}")),
                },
                Look::Unusable(failure) => translated(search, failure.summary()),
                Look::Absent(_) => translated(search, &verdict.to_string()),
            },
        },
    }
}

/// Our own monitor, when it can do what the machines need; else why not.
fn suits(needs: Needs, own: impl FnOnce() -> Outcome<Choice>) -> Outcome<Result<Choice, String>> {
    match (beyond_us(needs), needs.link) {
        (Some(why), _) => Ok(Err(why.into())),
        (None, true) => own().map(Ok),
        (None, false) => Ok(own().map_err(|failure| failure.summary().to_owned())),
    }
}

/// What the machines need that our own monitor does not have.
fn beyond_us(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs { bios: true, .. } => Some("a target asks for BIOS firmware"),
        Needs { qemu_args: true, .. } => Some("a target has arguments for QEMU"),
        _ => None,
    }
}

/// imgforge itself is the monitor.
fn own(
    search: &Search,
    hypervisor: Hypervisor,
    seen: &str,
    network: Option<LinkNetwork>,
) -> Outcome<Choice> {
    let (firmware, leash) = (rom::Search::from_environment(), search.setpriv());
    let driver = match (hypervisor, network) {
        (hypervisor, Some(network)) => {
            MonitorDriver::on_link(hypervisor, firmware, leash, network)?
        }
        (Hypervisor::Kvm, None) => MonitorDriver::kvm(firmware, leash)?,
        (Hypervisor::Bhyve, None) => return Err(no_link()),
    };
    driver.check(Firmware::Uefi)?;
    let line = format!("{} by imgforge: {seen}", driver.name());
    Ok(Choice { driver: Arc::new(driver), line, is_ours: true })
}

/// bhyve's machines have no network of their own.
fn no_link() -> Failure {
    Failure::input("bhyve's machines need a link, and none is named")
        .because("the kernel carries their frames to a VNIC")
        .hint("`dladm show-vnic` lists those of this zone; one without an address on it will do")
        .hint(
            "make one beside an address of this zone: `dladm create-etherstub -t images0`, \
             `dladm create-vnic -t -l images0 vm0`, `dladm create-vnic -t -l images0 dhcp0`, \
             `ipadm create-if -t dhcp0`, \
             `ipadm create-addr -t -T static -a local=10.0.0.1/24 dhcp0/a`",
        )
        .hint("then build with `--nic vm0 --guest-address 10.0.0.10`")
}

fn accelerated(search: Search, verdict: &Verdict, why: &str) -> Outcome<Choice> {
    let driver = QemuDriver::new(search, Accel::Kvm)?;
    let line = format!("kvm by QEMU {}: {verdict}; {why}", driver.program().version);
    Ok(Choice { driver: Arc::new(driver), line, is_ours: false })
}

fn translated(search: Search, why: &str) -> Outcome<Choice> {
    let driver = QemuDriver::new(search, Accel::Tcg)?;
    let line =
        format!("qemu {} in software (TCG), with one processor: {why}", driver.program().version);
    Ok(Choice { driver: Arc::new(driver), line, is_ours: false })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vm::hv::bhyve::Found;

    fn usable() -> Verdict {
        Verdict::Usable { micros_per_million_rounds: 300.0 }
    }

    fn unusable() -> Verdict {
        Verdict::Unusable { step: "fwait", reason: "KVM_EXIT_INTERNAL_ERROR".into() }
    }

    #[test]
    fn the_probe_decides_and_the_line_says_why() {
        let line = pick(Requested::Auto, unusable).unwrap().line;
        assert!(line.contains("TCG") && line.contains("fwait"), "{line}");
        let line = pick(Requested::Qemu, unusable).unwrap().line;
        assert!(line.contains("TCG") && !line.contains('\n'), "{line}");
        let line = pick(Requested::Qemu, usable).unwrap().line;
        assert!(line.starts_with("kvm by QEMU") && line.ends_with("as asked"), "{line}");
        let text = pick(Requested::Kvm, unusable).unwrap_err().to_string();
        assert!(text.contains("step `fwait`") && text.contains("--hypervisor qemu"), "{text}");
        let text = pick(Requested::Bhyve, usable).unwrap_err().to_string();
        assert!(text.contains("no zone"), "{text}");
    }

    fn absent() -> Look {
        Look::Absent(Failure::build("this is no zone with its devices"))
    }

    fn works() -> Look {
        Look::Usable(Found { version: 18, memory: None, machines: Vec::new() })
    }

    fn pick(requested: Requested, judge: impl Fn() -> Verdict) -> Outcome<Choice> {
        let search = Search::from_environment();
        let kernels = Kernels { kvm: &judge, bhyve: &absent };
        choose_from(requested, Needs::default(), search, &kernels, &|_, _| panic!("not ours"))
    }

    #[test]
    fn bhyve_is_taken_where_it_works_and_kvm_does_not() {
        let own = |hypervisor, seen: &str| {
            assert_eq!(hypervisor, Hypervisor::Bhyve);
            let driver = Arc::new(QemuDriver::new(Search::from_environment(), Accel::Tcg)?);
            Ok(Choice { driver, line: format!("ours: {seen}"), is_ours: true })
        };
        let kernels = Kernels { kvm: &unusable, bhyve: &works };
        let pick = |requested, needs| {
            choose_from(requested, needs, Search::from_environment(), &kernels, &own).unwrap().line
        };
        for requested in [Requested::Auto, Requested::Bhyve] {
            let line = pick(requested, Needs::default());
            assert_eq!(line, "ours: /dev/vmmctl, interface version 18");
        }
        let line = pick(Requested::Auto, Needs { bios: true, ..Needs::default() });
        assert!(line.contains("TCG") && line.ends_with("BIOS firmware"), "{line}");
    }

    #[test]
    fn bhyve_says_what_its_network_lacks_and_others_take_no_link() {
        let own = |hypervisor, seen: &str| own(&Search::from_environment(), hypervisor, seen, None);
        let kernels = Kernels { kvm: &unusable, bhyve: &works };
        for requested in [Requested::Auto, Requested::Bhyve] {
            let search = Search::from_environment();
            let chosen = choose_from(requested, Needs::default(), search, &kernels, &own);
            let text = chosen.unwrap_err().to_string();
            for part in ["none is named", "dladm create-vnic", "ipadm create-addr", "--nic vm0"] {
                assert!(text.contains(part), "{text}");
            }
        }
        let text = no_links("vm7", "qemu 7.2 in software (TCG)").to_string();
        assert!(text.contains("vm7") && text.contains("leave out `--nic`"), "{text}");
    }

    #[test]
    fn our_own_monitor_is_taken_where_it_can_do_the_job() {
        let auto = |needs, own: fn(Hypervisor, &str) -> Outcome<Choice>| {
            let kernels = Kernels { kvm: &usable, bhyve: &works };
            choose_from(Requested::Auto, needs, Search::from_environment(), &kernels, &own).unwrap()
        };
        let ours = |_: Hypervisor, verdict: &str| {
            let driver = Arc::new(QemuDriver::new(Search::from_environment(), Accel::Kvm)?);
            Ok(Choice { driver, line: format!("ours: {verdict}"), is_ours: true })
        };
        let line = auto(Needs::default(), ours).line;
        assert!(line.starts_with("ours: "), "{line}");
        let line = auto(Needs { bios: true, ..Needs::default() }, ours).line;
        assert!(line.starts_with("kvm by QEMU") && line.ends_with("BIOS firmware"), "{line}");
        let line = auto(Needs { qemu_args: true, ..Needs::default() }, ours).line;
        assert!(line.ends_with("arguments for QEMU"), "{line}");
        let line = auto(Needs::default(), |_, _| Err(Failure::build("passt is missing"))).line;
        assert!(line.ends_with("passt is missing"), "{line}");
        // Who names a link wants that link.
        let kernels = Kernels { kvm: &usable, bhyve: &works };
        let needs = Needs { link: true, ..Needs::default() };
        let own = |_: Hypervisor, _: &str| Err(Failure::build("it is no tap"));
        let search = Search::from_environment();
        let failure = choose_from(Requested::Auto, needs, search, &kernels, &own).unwrap_err();
        assert_eq!(failure.summary(), "it is no tap");
    }

    #[test]
    fn without_qemu_nothing_is_chosen() {
        let mut search = Search::from_environment();
        (search.path, search.qemu) = ("/nonexistent".into(), None);
        for requested in [Requested::Auto, Requested::Qemu] {
            let search = search.clone();
            let kernels = Kernels { kvm: &unusable, bhyve: &absent };
            let own = |_: Hypervisor, _: &str| panic!("not ours");
            let chosen = choose_from(requested, Needs::default(), search, &kernels, &own);
            let text = chosen.unwrap_err().to_string();
            assert!(text.contains("apt-get install qemu-system-x86"), "{text}");
        }
    }

    #[test]
    fn words() {
        for value in Requested::ALL {
            assert_eq!(value.name().parse::<Requested>(), Ok(value));
        }
        assert!("xen".parse::<Requested>().unwrap_err().contains("auto, bhyve, kvm, qemu"));
    }
}
