// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The credentials of one build: a key pair and a root password that exist nowhere else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::guest::{BuildKey, crypt_sha512, random_password};
use crate::ui::{Failure, Outcome, Secret};

/// File of a cached installation that holds its credentials, mode 0600.
const FILE: &str = "identity.json";
/// Comment of the key's public line.
const COMMENT: &str = "imgforge-build";

/// The key and the password that the answer file puts into the guest and the seal step takes
/// out again.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// SSH key pair.
    pub(crate) key: BuildKey,
    /// Root password.
    pub(crate) password: Secret,
    /// Its SHA-512 crypt hash, as the answer file has it.
    pub(crate) password_hash: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    private_key: String,
    password: String,
    password_hash: String,
}

impl Identity {
    /// Fresh credentials.
    pub(crate) fn generate() -> Outcome<Self> {
        let password = random_password();
        let password_hash = crypt_sha512(&password)?;
        Ok(Self { key: BuildKey::generate(COMMENT)?, password, password_hash })
    }

    /// What must never be printed.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let hash = Secret::new(self.password_hash.clone());
        vec![self.key.private_text().clone(), self.password.clone(), hash]
    }

    /// Keeps the credentials beside a cached installation, which is useless without them.
    pub(crate) fn save(&self, directory: &Path) -> Outcome<()> {
        let stored = Stored {
            private_key: self.key.private_text().reveal().to_owned(),
            password: self.password.reveal().to_owned(),
            password_hash: self.password_hash.clone(),
        };
        let path = directory.join(FILE);
        let text = serde_json::to_string(&stored).map_err(|error| unusable(&path, error))?;
        write_private(&path, text.as_bytes()).map_err(|error| unusable(&path, error))
    }

    /// The credentials of a cached installation.
    pub(crate) fn load(directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(&path, error))?;
        let stored: Stored = serde_json::from_str(&text).map_err(|error| unusable(&path, error))?;
        Ok(Self {
            key: BuildKey::from_private_text(Secret::new(stored.private_key))?,
            password: Secret::new(stored.password),
            password_hash: stored.password_hash,
        })
    }
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unusable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::build("the credentials of a cached installation cannot be used")
        .because(error)
        .fact("file", path.display())
        .hint("install anew with `--no-cache`")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_survive_the_cache_and_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = Identity::generate().unwrap();
        fresh.save(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = Identity::load(dir.path()).unwrap();
        assert_eq!(loaded.key.public_line(), fresh.key.public_line());
        assert_eq!(loaded.password.reveal(), fresh.password.reveal());
        assert!(!format!("{loaded:?}").contains(fresh.password.reveal()));
    }
}
