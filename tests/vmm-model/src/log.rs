// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! One line for every call, in the file that `VMM_MODEL_LOG` names.

use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use crate::Answer;
use crate::config::config;

/// Appends a line with the process and thread before it.
pub(crate) fn line(text: &str) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = config().log.as_ref()?;
        File::options().append(true).create(true).open(path).ok()
    };
    if let Some(mut file) = FILE.get_or_init(open).as_ref() {
        // SAFETY: asks for the thread's number, which cannot fail.
        let thread = unsafe { libc::gettid() };
        let text = format!("{} {thread} {text}\n", std::process::id());
        // A log that cannot be written must not change what the program sees.
        let _ = file.write_all(text.as_bytes());
    }
}

/// Logs a call with its argument and its answer.
pub(crate) fn call(fd: i32, name: &str, scalar: usize, bytes: &[u8], answer: Answer) {
    use std::fmt::Write as _;
    if config().log.is_none() {
        return;
    }
    let mut hex = String::new();
    for byte in bytes.iter().take(48) {
        let _ = write!(hex, "{byte:02x}");
    }
    let argument = if bytes.is_empty() { format!("{scalar:#x}") } else { hex };
    let answer = match answer {
        Ok(value) => value.to_string(),
        Err(error) => std::io::Error::from_raw_os_error(error.0).to_string(),
    };
    line(&format!("fd {fd} {name} {argument} -> {answer}"));
}
