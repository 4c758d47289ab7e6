// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What one build logs in with: a key pair and a root password that nobody has seen before.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rand::RngCore;
use rand::distr::{Alphanumeric, SampleString};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use sha_crypt::{PasswordHasher, ShaCrypt};
use zeroize::Zeroize;

use crate::ui::{Failure, Outcome, Secret};

/// Letters and digits in a build's root password; about 190 bits.
const PASSWORD_LENGTH: usize = 32;
/// Random bytes of a crypt salt; twelve make the sixteen characters that the format allows.
const SALT_BYTES: usize = 12;

/// The ed25519 key pair of one build.
#[derive(Clone)]
pub struct BuildKey {
    public_line: String,
    private_text: Secret,
    parsed: Arc<PrivateKey>,
}

impl BuildKey {
    /// A new pair; `comment` ends the public line and names the build in `authorized_keys`.
    pub fn generate(comment: &str) -> Outcome<Self> {
        let mut seed = [0u8; 32];
        rand::rng().fill_bytes(&mut seed);
        let pair = Ed25519Keypair::from_seed(&seed);
        seed.zeroize();
        let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
        let key = PrivateKey::new(KeypairData::from(pair), comment).map_err(cannot_make)?;
        let private_text = key.to_openssh(LineEnding::LF).map_err(cannot_make)?;
        let public_line = key.public_key().to_openssh().map_err(cannot_make)?;
        Ok(Self {
            public_line: public_line.trim_end().to_owned(),
            private_text: Secret::new(private_text.as_str()),
            parsed: Arc::new(key),
        })
    }

    /// The pair of an earlier build, from its private key in OpenSSH's text form.
    pub fn from_private_text(text: Secret) -> Outcome<Self> {
        let key = PrivateKey::from_openssh(text.reveal())
            .map_err(|error| Failure::build("a kept build key cannot be read").because(error))?;
        let public_line = key.public_key().to_openssh().map_err(cannot_make)?;
        Ok(Self {
            public_line: public_line.trim_end().to_owned(),
            private_text: text,
            parsed: Arc::new(key),
        })
    }

    /// The line for `authorized_keys`, without a newline.
    pub fn public_line(&self) -> &str {
        &self.public_line
    }

    /// The private key in OpenSSH's text form.
    pub fn private_text(&self) -> &Secret {
        &self.private_text
    }

    /// Writes the private key to a new file that only its owner can read.
    /// Fails when the file exists already.
    pub fn write_private(&self, path: &Path) -> Outcome<()> {
        let write = || -> std::io::Result<()> {
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.private_text.reveal().as_bytes())?;
            file.sync_data()
        };
        write().map_err(|error| {
            Failure::build("cannot write the build's private key")
                .because(error)
                .fact("file", path.display())
        })
    }

    pub(super) fn parsed(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.parsed)
    }
}

impl std::fmt::Debug for BuildKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildKey").field("public_line", &self.public_line).finish_non_exhaustive()
    }
}

fn cannot_make(error: russh::keys::ssh_key::Error) -> Failure {
    Failure::build("cannot make the build's SSH key").because(error)
}

/// A root password for one build: letters and digits only, so that it needs no quoting in any
/// answer file.
pub fn random_password() -> Secret {
    Secret::new(Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH))
}

/// The SHA-512 crypt hash (`$6$…`, crypt(3)) of a password, with a new salt each time: what
/// preseed, kickstart and cloud-init take instead of the password itself.
pub fn crypt_sha512(password: &Secret) -> Outcome<String> {
    let mut salt = [0u8; SALT_BYTES];
    rand::rng().fill_bytes(&mut salt);
    let hash = ShaCrypt::SHA512
        .hash_password_with_salt(password.reveal().as_bytes(), &salt)
        .map_err(|error| Failure::build(format!("cannot hash the root password: {error}")))?;
    Ok(hash.as_str().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn key_file_is_private_and_openssh_reads_it() {
        let key = BuildKey::generate("imgforge build\nof debian-13").unwrap();
        assert!(key.public_line().starts_with("ssh-ed25519 AAAA"), "{}", key.public_line());
        assert!(key.public_line().ends_with(" imgforge buildof debian-13"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        key.write_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let made = Command::new("ssh-keygen").arg("-yf").arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        assert_eq!(String::from_utf8_lossy(&made.stdout).trim_end(), key.public_line());

        let again = key.write_private(&path).unwrap_err();
        assert!(again.to_string().contains("exists"), "{again}");
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn keys_and_passwords_are_never_the_same_twice() {
        let (one, two) = (BuildKey::generate("a").unwrap(), BuildKey::generate("a").unwrap());
        assert_ne!(one.public_line(), two.public_line());
        let (one, two) = (random_password(), random_password());
        assert!(one != two);
        assert_eq!(one.reveal().len(), PASSWORD_LENGTH);
        assert!(one.reveal().bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn hash_agrees_with_openssl() {
        let password = random_password();
        let hash = crypt_sha512(&password).unwrap();
        let fields: Vec<&str> = hash.split('$').collect();
        let (rounds, salt) = match fields.as_slice() {
            ["", "6", salt, _] => (None, *salt),
            ["", "6", rounds, salt, _] => (Some(*rounds), *salt),
            other => panic!("{other:?}"),
        };
        assert_eq!(salt.len(), 16);
        assert_ne!(hash, crypt_sha512(&password).unwrap(), "the salt is new each time");
        let given = rounds.map_or_else(|| salt.to_owned(), |r| format!("{r}${salt}"));
        let Ok(theirs) = Command::new("openssl")
            .args(["passwd", "-6", "-salt", &given, password.reveal()])
            .output()
        else {
            return;
        };
        assert!(theirs.status.success(), "{theirs:?}");
        assert_eq!(String::from_utf8_lossy(&theirs.stdout).trim_end(), hash);
    }
}
