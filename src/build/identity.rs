// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The credentials of one build: a key pair and a root password that exist nowhere else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::guest::{KeyPair, Password};
use crate::ui::{Failure, Outcome, Secret};

/// File of a cached installation that holds its credentials, mode 0600.
const FILE: &str = "identity.json";

/// The key and the password that the answer file puts into the guest and the seal step takes
/// out again.
#[derive(Debug, Clone)]
pub struct Identity {
    /// SSH key pair.
    pub key: KeyPair,
    /// Root password.
    pub password: Password,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    private_key: String,
    password: String,
    password_hash: String,
}

impl Identity {
    /// Fresh credentials.
    pub fn generate() -> Outcome<Self> {
        Ok(Self { key: KeyPair::generate("imgforge-build")?, password: Password::generate()? })
    }

    /// What must never be printed.
    pub fn secrets(&self) -> Vec<Secret> {
        vec![
            self.key.private_openssh().clone(),
            self.password.text().clone(),
            Secret::new(self.password.hash()),
        ]
    }

    /// Keeps the credentials beside a cached installation, which is useless without them.
    pub fn save(&self, directory: &Path) -> Outcome<()> {
        let stored = Stored {
            private_key: self.key.private_openssh().reveal().to_owned(),
            password: self.password.text().reveal().to_owned(),
            password_hash: self.password.hash().to_owned(),
        };
        let path = directory.join(FILE);
        let text = serde_json::to_string(&stored).map_err(|error| unusable(&path, error))?;
        write_private(&path, text.as_bytes()).map_err(|error| unusable(&path, error))
    }

    /// The credentials of a cached installation.
    pub fn load(directory: &Path) -> Outcome<Self> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(&path, error))?;
        let stored: Stored =
            serde_json::from_str(&text).map_err(|error| unusable(&path, error))?;
        Ok(Self {
            key: KeyPair::from_openssh(&Secret::new(stored.private_key))?,
            password: Password::from_parts(Secret::new(stored.password), stored.password_hash),
        })
    }
}

/// Writes a new file that only its owner can read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unusable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::build("the credentials of the cached installation cannot be used")
        .because(error)
        .fact("file", path.display())
        .hint("install anew with `--no-cache`")
}
