// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Which host key a build trusts: the first one that let it in, and no other after that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::keys::{HashAlg, PublicKey};

/// The host keys that one build has met. Clones share what they know.
///
/// The first key of a server that accepts the login is trusted for the rest of the build. Keys
/// listed as the installer's are a sign that the installer still runs.
#[derive(Clone, Debug, Default)]
pub struct HostKeys {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    trusted: Option<PublicKey>,
    installer: Vec<PublicKey>,
}

/// What a build thinks of a host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Trusted, or the first one met.
    Fine,
    /// The installer's own.
    Installer,
    /// Another key was trusted before.
    Changed {
        /// Fingerprint of the trusted key.
        trusted: String,
    },
}

impl HostKeys {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists a key as the installer's; logins wait while the server shows it.
    pub fn add_installer(&self, key: PublicKey) {
        let mut known = self.known();
        if !known.installer.iter().any(|k| same(k, &key)) {
            known.installer.push(key);
        }
    }

    /// The installer is done: a key trusted so far was the installer's, and the installed
    /// system's first key will be trusted anew.
    pub fn cross_to_target(&self) {
        let trusted = self.known().trusted.take();
        if let Some(key) = trusted {
            self.add_installer(key);
        }
    }

    /// The trusted key's SHA-256 fingerprint as OpenSSH prints it.
    pub fn fingerprint(&self) -> Option<String> {
        self.known().trusted.as_ref().map(fingerprint)
    }

    /// A `known_hosts` line that pins the trusted key to one address.
    pub fn known_hosts_line(&self, address: std::net::SocketAddr) -> Option<String> {
        let key = self.known().trusted.clone()?;
        let text = PublicKey::new(key.key_data().clone(), "").to_openssh().ok()?;
        Some(format!("[{}]:{} {}\n", address.ip(), address.port(), text.trim_end()))
    }

    /// The trusted key's algorithm by its SSH name (`ssh-ed25519`).
    pub fn algorithm(&self) -> Option<String> {
        self.known().trusted.as_ref().map(|key| key.algorithm().to_string())
    }

    pub(super) fn judge(&self, key: &PublicKey) -> Verdict {
        let known = self.known();
        if known.installer.iter().any(|k| same(k, key)) {
            return Verdict::Installer;
        }
        match &known.trusted {
            Some(trusted) if !same(trusted, key) => {
                Verdict::Changed { trusted: fingerprint(trusted) }
            }
            _ => Verdict::Fine,
        }
    }

    /// Trusts the key of a server that accepted the login; true when it is the first.
    pub(super) fn trust(&self, key: PublicKey) -> bool {
        let mut known = self.known();
        let first = known.trusted.is_none();
        if first {
            known.trusted = Some(key);
        }
        first
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(one: &PublicKey, two: &PublicKey) -> bool {
    one.key_data() == two.key_data()
}

/// SHA-256 fingerprint as OpenSSH prints it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::guest::keys::BuildKey;

    fn key() -> PublicKey {
        PublicKey::from_openssh(BuildKey::generate("a comment").unwrap().public_line()).unwrap()
    }

    #[test]
    fn trusts_the_first_and_tells_installer_from_stranger() {
        let (installer, target, stranger) = (key(), key(), key());
        let keys = HostKeys::new();
        assert_eq!(keys.judge(&installer), Verdict::Fine);
        assert!(keys.trust(installer.clone()));
        assert!(matches!(keys.judge(&target), Verdict::Changed { .. }));
        keys.cross_to_target();
        assert_eq!(keys.judge(&installer), Verdict::Installer);
        assert_eq!(keys.judge(&target), Verdict::Fine);
        assert!(keys.clone().trust(target.clone()));
        assert_eq!(
            keys.judge(&stranger),
            Verdict::Changed { trusted: keys.fingerprint().unwrap() }
        );
        let line = keys.known_hosts_line("127.0.0.1:2200".parse().unwrap()).unwrap();
        assert!(line.starts_with("[127.0.0.1]:2200 ssh-ed25519 AAAA"), "{line}");
        assert!(!line.contains("comment"));
        assert_eq!(keys.algorithm().as_deref(), Some("ssh-ed25519"));
    }
}
