// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A SmartOS metadata agent on a UNIX socket: what the guest's second serial port talks to.
//! Protocol versions 1 and 2 as cloud-init's and mdata-get's clients speak them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The agent; lives until its process ends.
pub struct Metadata {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Metadata {
    /// Listens on `socket` and answers from `values`.
    pub fn serve(socket: &Path, values: BTreeMap<String, String>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut out = stream.try_clone().unwrap();
                for line in BufReader::new(stream).split(b'\n') {
                    let Ok(line) = line else { break };
                    let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    let Some(answer) = reply(&line, &values, &log) else { continue };
                    if out.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        Self { asked }
    }

    /// Every key asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn reply(
    line: &str,
    values: &BTreeMap<String, String>,
    log: &Mutex<Vec<String>>,
) -> Option<String> {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["NEGOTIATE", "V2"] => {
            log.lock().unwrap().push("NEGOTIATE".into());
            Some("V2_OK\n".into())
        }
        ["V2", length, sum, rest @ ..] => {
            let body = rest.join(" ");
            let good = length.parse() == Ok(body.len())
                && *sum == format!("{:08x}", crc32fast::hash(body.as_bytes()));
            good.then(|| framed(rest, values, log))
        }
        ["GET", key] => {
            log.lock().unwrap().push((*key).to_owned());
            Some(
                values
                    .get(*key)
                    .map_or("NOTFOUND\n".to_owned(), |value| format!("SUCCESS\n{value}\n.\n")),
            )
        }
        [""] => Some("invalid command\n".into()),
        _ => Some("FAILURE\n".into()),
    }
}

fn framed(rest: &[&str], values: &BTreeMap<String, String>, log: &Mutex<Vec<String>>) -> String {
    let id = rest.first().copied().unwrap_or_default();
    let key = rest.get(2).map(|text| decode(text)).unwrap_or_default();
    let body = match rest.get(1).copied() {
        Some("GET") => {
            log.lock().unwrap().push(key.clone());
            match values.get(&key) {
                Some(value) => format!("{id} SUCCESS {}", STANDARD.encode(value)),
                None => format!("{id} NOTFOUND"),
            }
        }
        Some("KEYS") => {
            let keys: Vec<&str> =
                values.keys().filter(|k| !k.starts_with("sdc:")).map(String::as_str).collect();
            format!("{id} SUCCESS {}", STANDARD.encode(keys.join("\n")))
        }
        Some("PUT" | "DELETE") => format!("{id} SUCCESS {}", STANDARD.encode("OK")),
        _ => format!("{id} FAILURE"),
    };
    format!("V2 {} {:08x} {body}\n", body.len(), crc32fast::hash(body.as_bytes()))
}

fn decode(text: &str) -> String {
    String::from_utf8_lossy(&STANDARD.decode(text).unwrap_or_default()).into_owned()
}
