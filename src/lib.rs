// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! imgforge builds virtual machine images from the distributors' own installers.
//!
//! The rooms, in reading order; arrows point down this list or to [`ui`]:
//!
//! * [`cli`]: one file per verb; nothing else knows clap.
//! * [`ui`]: what a person or a CI log sees. The printer, progress, the event stream, failures
//!   with their hints, and secrets as a type that cannot print itself.
//! * [`target`]: what to build. The YAML schema, the embedded catalogue, variables and their
//!   templates, lint.
//! * [`build`]: the pipeline `media → install → provision → seal → export`: steps, journal,
//!   undo, cancel, and the waits that name their event and their deadline.
//! * [`media`]: installer media. Download, checksum, cache.
//! * [`store`]: where the disk lives; today sparse files.
//! * [`net`]: the build network; today QEMU's user-mode network.
//! * [`http`]: the answer-file server, with its access log.
//! * [`console`]: keysyms, the boot-command language, the typist, screenshots.
//! * [`guest`]: SSH into the guest, and the provisioners: shell, file, ansible.
//! * [`vm`]: the virtual machine as the build sees it, whoever emulates it.
//! * [`qemu`]: the driver for hosts without hardware virtualization: argv and QMP, nothing else.
//! * [`export`]: the finished disk as files: compression, digests, IMGAPI manifest.
//! * [`host`]: doctor: what this host lacks, and the exact remedy.
#![deny(unsafe_code)]

pub mod build;
pub mod cli;
pub mod console;
pub mod export;
pub mod guest;
pub mod host;
pub mod http;
pub mod media;
pub mod net;
pub mod qemu;
pub mod store;
pub mod target;
pub mod ui;
pub mod vm;
