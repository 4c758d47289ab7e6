// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The event stream: everything that happens in a build, said once, for terminal, log and CI.
//!
//! Rooms emit events; the printer and the files of a build consume them. The JSON form
//! (`--log-format json`, `events.jsonl`) is stable: fields are only ever added.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// The steps of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Installer media: download and checksum.
    Media,
    /// The installer runs and writes the disk.
    Install,
    /// The installed system boots and is provisioned.
    Provision,
    /// Build credentials are removed, free space is discarded, the guest powers off.
    Seal,
    /// The disk becomes files with digests and a manifest.
    Export,
}

impl Stage {
    /// The stage's name as users type and read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Install => "install",
            Self::Provision => "provision",
            Self::Seal => "seal",
            Self::Export => "export",
        }
    }
}

/// Where a line of guest or tool output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that happened in a build. Never holds a secret in clear.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A build starts.
    BuildStarted {
        /// Build id (a UUID).
        id: String,
        /// Driver chosen, with the reason, in one line.
        hypervisor: String,
    },
    /// A stage starts.
    StageStarted {
        /// Which.
        stage: Stage,
    },
    /// A stage ended well.
    StageDone {
        /// Which.
        stage: Stage,
        /// Wall time in seconds.
        seconds: f64,
        /// What it made or found, for the summary line; `cached` when it was not run.
        note: String,
    },
    /// What the build waits for now; replaces the previous one on a live line.
    Waiting {
        /// The event waited for, as a noun phrase (`the installer's reboot`).
        what: String,
        /// Seconds until the deadline, when there is one.
        deadline_seconds: Option<f64>,
    },
    /// Bytes moved, at most a few times a second.
    Progress {
        /// What moves (`downloading debian-13.iso`).
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
        /// Bytes per second lately.
        rate: f64,
    },
    /// A plain remark worth a line.
    Note {
        /// The text.
        text: String,
    },
    /// Something doubtful that does not stop the build.
    Warning {
        /// The text.
        text: String,
    },
    /// One line of output of a provisioner or tool.
    Output {
        /// The step's name.
        step: String,
        /// Standard output or error.
        stream: Stream,
        /// The line without its newline, secrets already masked.
        line: String,
    },
    /// A request to the answer-file server.
    Http {
        /// Client address.
        peer: String,
        /// Method.
        method: String,
        /// Path as asked.
        path: String,
        /// Status code of the answer.
        status: u16,
        /// Body bytes sent.
        bytes: u64,
        /// The client's own name.
        agent: String,
    },
    /// A boot command is being typed.
    Typing {
        /// Element index, from 0.
        index: usize,
        /// Number of elements.
        count: usize,
    },
    /// A screenshot was written.
    Screenshot {
        /// PNG path.
        path: String,
        /// Why it was taken.
        reason: String,
    },
    /// The virtual machine did something: `started`, `reset`, `powered off`, `exited …`.
    Machine {
        /// What.
        what: String,
    },
    /// A file of the output directory is complete.
    Artefact {
        /// Path.
        path: String,
        /// Bytes.
        bytes: u64,
        /// SHA-256 in hex, when it was computed.
        sha256: Option<String>,
    },
    /// The build ended well.
    BuildDone {
        /// Output directory.
        output: String,
        /// Wall time in seconds.
        seconds: f64,
        /// Where the time went.
        split: Split,
    },
    /// The build failed.
    BuildFailed {
        /// The failure as printed.
        error: String,
    },
}

/// Where the wall time of a build went, in seconds; the parts add up to the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Split {
    /// Downloading, checksumming and copying.
    pub transfer: f64,
    /// The boot wait that the target asks for.
    pub boot_wait: f64,
    /// Typing the boot command.
    pub typing: f64,
    /// The guest works.
    pub guest: f64,
    /// Compressing.
    pub compress: f64,
    /// Our own work and waits.
    pub own: f64,
}

type Sink = Arc<dyn Fn(&str, &Event) + Send + Sync>;

/// A cheap handle by which rooms say what happens, for one build.
#[derive(Clone)]
pub struct Events {
    target: Arc<str>,
    sink: Sink,
}

impl Events {
    /// Events of build `target`, each handed to `sink` with the target's name.
    /// The sink is called from any thread and must not block for long.
    pub fn new(target: &str, sink: impl Fn(&str, &Event) + Send + Sync + 'static) -> Self {
        Self { target: target.into(), sink: Arc::new(sink) }
    }

    /// Events that nobody reads.
    pub fn silent() -> Self {
        Self::new("", |_, _| {})
    }

    /// Events kept in a list, for tests.
    pub fn recorded() -> (Self, Arc<Mutex<Vec<Event>>>) {
        let list = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&list);
        let events = Self::new("test", move |_, event| {
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        });
        (events, list)
    }

    /// The target's name.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Says that something happened.
    #[allow(clippy::needless_pass_by_value)] // callers make an event to give it away
    pub fn emit(&self, event: Event) {
        (self.sink)(&self.target, &event);
    }

    /// A plain remark.
    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    /// A warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { text: text.into() });
    }
}
