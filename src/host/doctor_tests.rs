// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::vm::hv::bhyve::Found;

fn absent() -> Verdict {
    Verdict::Absent { reason: "cannot open /dev/kvm: No such file or directory".into() }
}

fn bare(root: &Path) -> Host {
    Host {
        search: Search {
            path: root.join("bin").into_os_string(),
            qemu: None,
            ovmf_code: None,
            ovmf_variables: None,
            root: root.to_owned(),
        },
        places: Places {
            cache: root.join("cache"),
            output: root.join("output"),
            temporary: root.to_owned(),
        },
        judge: absent,
        look: || Look::Absent(Failure::build("no bhyve")),
        meminfo: Some("MemTotal: 9 kB\nMemAvailable:    524288 kB\n".into()),
    }
}

#[test]
fn a_bare_host_is_told_what_it_lacks_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let report = examine(&bare(dir.path()));
    let severity = |id: &str| report.findings.iter().find(|f| f.id == id).unwrap().severity;
    for id in ["qemu", "ovmf", "memory"] {
        assert_eq!(severity(id), Severity::Fatal, "{id}");
    }
    for id in ["kvm", "leash", "ansible", "ssh"] {
        assert_eq!(severity(id), Severity::Warn, "{id}");
    }
    for finding in &report.findings {
        let fine = finding.severity == Severity::Ok;
        assert_eq!(finding.means.is_empty(), fine, "{finding:?}");
        assert_eq!(finding.remedy.is_empty(), fine, "{finding:?}");
    }
    assert!(!report.can_build());
    let text = report.failure().unwrap().to_string();
    assert!(text.contains("cannot build yet: qemu, ovmf, memory"), "{text}");
    assert!(text.contains("hint: install it: `apt-get install ovmf`"), "{text}");
    let text = report.to_string();
    assert!(text.contains("FATAL  qemu            QEMU is not installed"), "{text}");
    assert!(text.contains("remedy: install it: `apt-get install qemu-system-x86`"), "{text}");
    assert!(!dir.path().join("cache").exists(), "it changes nothing");
}

#[test]
fn this_host_can_build_and_says_so_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::this(bare(dir.path()).places);
    host.meminfo = Some("MemAvailable: 8388608 kB".into());
    let report = examine(&host);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][0]["id"], "qemu");
    assert_eq!(json["findings"][0]["severity"], "ok");
    for finding in json["findings"].as_array().unwrap() {
        for key in ["id", "severity", "seen", "means", "remedy"] {
            assert!(finding[key].is_string(), "{finding}");
        }
    }
    let program_findings = &report.findings[..3];
    assert!(program_findings.iter().all(|f| f.severity != Severity::Fatal), "{report}");
}

#[test]
fn odd_memory_reports_are_no_reason_to_stop() {
    for text in ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB"]
    {
        assert_eq!(memory(Some(text)).severity, Severity::Ok, "{text}");
    }
    assert_eq!(memory(None).severity, Severity::Ok);
}

#[test]
fn where_bhyve_works_nothing_of_linux_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = bare(dir.path());
    host.look = || Look::Usable(Found { version: 18, memory: None, machines: Vec::new() });
    let report = examine(&host);
    let severity = |id: &str| report.findings.iter().find(|f| f.id == id).map(|f| f.severity);
    assert_eq!(severity("bhyve"), Some(Severity::Ok));
    assert_eq!(severity("passt"), None);
    for id in ["qemu", "ovmf"] {
        assert_eq!(severity(id), Some(Severity::Warn), "{id}");
    }
}
