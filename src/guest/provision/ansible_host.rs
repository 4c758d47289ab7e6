// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A playbook run on this host against the guest's own SSH server.
//!
//! The build's key is the only one offered and the build's host key the only one accepted: no
//! agent, no configuration of the user's, no proxy. Everything lives in one private directory
//! that is removed in any case.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command as Process;
use tokio::time::Instant;

use super::playbook::{Prepared, Reader, VARS_FILE, settings};
use super::{Context, StepReport};
use crate::guest::command::quote;
use crate::guest::local::Running;
use crate::target::Ansible;
use crate::ui::{Failure, Outcome};

/// Longest path that leaves room for a control socket's name: `sun_path` holds 104 bytes on the
/// smallest of our systems, ssh's `%C` takes 40 and its temporary suffix 17.
const CONTROL_DIR_MAX: usize = 104 - 40 - 17 - 2;
/// Longest time to end a shared connection.
const CONTROL_END: Duration = Duration::from_secs(3);

pub(super) async fn run(
    name: &str,
    play: &Ansible,
    prepared: Prepared,
    context: &Context<'_>,
    deadline: Instant,
) -> Outcome<StepReport> {
    let program = find(&play.command, std::env::var_os("PATH"))?;
    let private = Private::create(&prepared, context)?;
    let mut process = Process::new(&program);
    process
        .current_dir(private.path("tree"))
        .arg("--inventory")
        .arg(private.path("inventory.json"))
        .arg("--extra-vars")
        .arg(format!("@{}", private.path(VARS_FILE).display()))
        .args(&prepared.arguments)
        .env_clear()
        .envs(environment(std::env::vars_os(), &private, &prepared.env))
        .stdin(Stdio::null());
    let mut reader = Reader::default();
    let running = Running::start(process).map_err(|error| {
        Failure::build("cannot start ansible-playbook")
            .because(error)
            .fact("file", program.display())
    })?;
    let ended = running
        .finish(
            context.session.lifeline(),
            deadline,
            context.session.mask(),
            &mut |stream, line| {
                reader.take(name, context, stream, line);
            },
        )
        .await;
    private.end_shared_connections().await;
    let removal = private.remove();
    match ended {
        Ok(status) => {
            removal?;
            reader.judge(play, &describe(status), status.success())
        }
        Err(failure) => Err(reader.tell(failure)),
    }
}

fn describe(status: std::process::ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// `ansible-playbook`, as named or from the search path.
fn find(named: &str, path: Option<OsString>) -> Outcome<PathBuf> {
    let wanted = if named.is_empty() { "ansible-playbook" } else { named };
    let runs = |file: &Path| {
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if wanted.contains('/') {
        // The command runs in another directory.
        let file = std::path::absolute(wanted).unwrap_or_else(|_| wanted.into());
        return if runs(&file) { Ok(file) } else { Err(missing(wanted)) };
    }
    std::env::split_paths(&path.unwrap_or_default())
        .map(|dir| dir.join(wanted))
        .find(|file| runs(file))
        .and_then(|file| std::path::absolute(file).ok())
        .ok_or_else(|| missing(wanted))
}

fn missing(wanted: &str) -> Failure {
    Failure::build(format!("this host has no `{wanted}`, which the playbook needs"))
        .hint("install it: `apt-get install ansible-core openssh-client`, `dnf install ansible-core` or `pkgin install ansible`")
        .hint("or let the guest run the playbook: `mode: guest`")
}

/// The private directory of one run.
struct Private {
    dir: TempDir,
    shared: bool,
}

impl Private {
    fn create(prepared: &Prepared, context: &Context<'_>) -> Outcome<Self> {
        let failed = |error: std::io::Error| {
            Failure::build("cannot write the playbook's files")
                .because(error)
                .fact("file", context.run_dir.display())
        };
        let dir = tempfile::Builder::new().prefix("a").rand_bytes(6).tempdir_in(context.run_dir);
        let dir = dir.map_err(failed)?;
        let shared = dir.path().join("c").as_os_str().len() <= CONTROL_DIR_MAX;
        let private = Self { dir, shared };
        for name in ["tree", "home", "tmp", "c"] {
            std::fs::DirBuilder::new().mode(0o700).create(private.path(name)).map_err(failed)?;
        }
        for file in &prepared.files {
            let path = private.path("tree").join(&file.path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            write(&path, &file.bytes, file.mode & 0o700).map_err(failed)?;
        }
        write(&private.path(VARS_FILE), &prepared.vars, 0o600).map_err(failed)?;
        let inventory = private.inventory(context)?;
        write(&private.path("inventory.json"), &inventory, 0o600).map_err(failed)?;
        write(&private.path("ansible.cfg"), b"[defaults]\n", 0o600).map_err(failed)?;
        Ok(private)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One host under the build's name, with the key and the pinned host key beside it.
    fn inventory(&self, context: &Context<'_>) -> Outcome<Vec<u8>> {
        let wait = context.session.wait();
        let Some(key) = &wait.login.key else {
            return Err(Failure::input("a playbook from the host needs a login by key")
                .hint("use `mode: guest` where the guest only takes a password"));
        };
        key.write_private(&self.path("key"))?;
        let line = wait.keys.known_hosts_line(wait.address).ok_or_else(|| {
            Failure::build("the guest's host key is not known").fact("guest", wait.address)
        })?;
        let known = self.path("known_hosts");
        write(&known, line.as_bytes(), 0o600)
            .map_err(|error| Failure::build("cannot pin the guest's host key").because(error))?;
        let mut options = vec![
            "-F none".to_owned(),
            "-o IdentitiesOnly=yes".to_owned(),
            "-o IdentityAgent=none".to_owned(),
            "-o PreferredAuthentications=publickey".to_owned(),
            "-o StrictHostKeyChecking=yes".to_owned(),
            "-o GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("-o {}", quote(&format!("UserKnownHostsFile=\"{}\"", known.display()))),
        ];
        if let Some(algorithm) = wait.keys.algorithm().filter(|a| !a.contains("rsa")) {
            options.push(format!("-o HostKeyAlgorithms={algorithm}"));
        }
        let host = json!({
            "ansible_connection": "ssh",
            "ansible_host": wait.address.ip().to_string(),
            "ansible_port": wait.address.port(),
            "ansible_user": wait.login.username,
            "ansible_ssh_private_key_file": self.path("key"),
            "ansible_ssh_common_args": options.join(" "),
        });
        let inventory = json!({ "all": { "hosts": { context.build_name: host } } });
        serde_json::to_vec_pretty(&inventory)
            .map_err(|error| Failure::build("cannot write the inventory").because(error))
    }

    /// Ends the connections that ansible's ssh keeps open in the background.
    async fn end_shared_connections(&self) {
        let Ok(sockets) = std::fs::read_dir(self.path("c")) else { return };
        for socket in sockets.flatten() {
            let mut ssh = Process::new("ssh");
            ssh.args(["-F", "none", "-O", "exit", "-o"])
                .arg(format!("ControlPath={}", socket.path().display()))
                .arg("guest")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            // A connection that is gone already needs no end.
            let _ = tokio::time::timeout(CONTROL_END, ssh.status()).await;
        }
    }

    fn remove(self) -> Outcome<()> {
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(|error| {
            Failure::build("cannot remove the playbook's temporary files")
                .because(error)
                .fact("file", path.display())
        })
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode | 0o600).open(path)?;
    std::io::Write::write_all(&mut file, bytes)
}

/// The user's environment without what would change ansible or lend it a key, our settings, and
/// last the step's own.
fn environment(
    user: impl Iterator<Item = (OsString, OsString)>,
    private: &Private,
    own: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let foreign = |name: &str| {
        name.starts_with("ANSIBLE_")
            || name.starts_with("SSH_")
            || matches!(name, "DISPLAY" | "PYTHONPATH" | "PYTHONHOME")
    };
    let mut env: BTreeMap<OsString, OsString> =
        user.filter(|(name, _)| name.to_str().is_none_or(|name| !foreign(name))).collect();
    let utf8 = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| {
        let value = env.get(std::ffi::OsStr::new(name))?.to_string_lossy().to_ascii_lowercase();
        (!value.is_empty()).then_some(value)
    });
    if !utf8.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8")) {
        env.insert("LC_ALL".into(), "C.UTF-8".into());
    }
    let home = env.get::<std::ffi::OsStr>("HOME".as_ref()).cloned().unwrap_or_else(|| "/".into());
    let home = home.to_string_lossy().into_owned();
    let place = private.dir.path().display().to_string();
    let mut ours = settings(&place);
    let tree_config = private.path("tree/ansible.cfg").exists();
    let config = if tree_config { "tree/ansible.cfg" } else { "ansible.cfg" };
    let mut add = |name: &str, value: String| ours.insert(name.to_owned(), value);
    add("ANSIBLE_CONFIG", private.path(config).display().to_string());
    if !tree_config {
        let near = |what: &str| {
            format!("{place}/tree/{what}:{home}/.ansible/{what}:/usr/share/ansible/{what}")
        };
        add("ANSIBLE_ROLES_PATH", near("roles"));
        add("ANSIBLE_COLLECTIONS_PATH", near("collections"));
        add("ANSIBLE_COLLECTIONS_PATHS", near("collections"));
    }
    add("ANSIBLE_HOST_KEY_CHECKING", "1".into());
    add("ANSIBLE_PIPELINING", "1".into());
    add("ANSIBLE_SSH_CONTROL_PATH_DIR", format!("{place}/c"));
    add("ANSIBLE_SSH_CONTROL_PATH", "%(directory)s/%%C".into());
    let sharing = if private.shared {
        "-o ControlMaster=auto -o ControlPersist=60s"
    } else {
        "-o ControlMaster=no -o ControlPath=none"
    };
    add("ANSIBLE_SSH_ARGS", sharing.into());
    ours.extend(own.clone());
    env.extend(ours.into_iter().map(|(name, value)| (name.into(), value.into())));
    env
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ansible_says_how_to_get_it() {
        for named in ["", "ansible-playbook-9", "/nowhere/ansible-playbook", "/etc/passwd"] {
            let failure = find(named, Some("/nowhere:/etc".into())).unwrap_err();
            assert!(failure.hints()[0].contains("install"), "{failure}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ansible-playbook");
        write(&file, b"", 0o755).unwrap();
        assert_eq!(find("", Some(dir.path().into())).unwrap(), file);
    }

    #[test]
    fn the_users_environment_is_scrubbed() {
        let dir = tempfile::tempdir().unwrap();
        let private = Private { dir, shared: true };
        let user = [
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("ANSIBLE_CONFIG", "/home/me/bad.cfg"),
            ("ANSIBLE_BECOME", "1"),
            ("PATH", "/bin"),
            ("LANG", "C"),
        ];
        let user = user.into_iter().map(|(n, v)| (n.into(), v.into()));
        let own = BTreeMap::from([("ANSIBLE_PIPELINING".to_owned(), "0".to_owned())]);
        let env = environment(user, &private, &own);
        let get = |name: &str| env.get::<std::ffi::OsStr>(name.as_ref()).and_then(|v| v.to_str());
        assert_eq!(get("SSH_AUTH_SOCK"), None);
        assert_eq!(get("ANSIBLE_BECOME"), None);
        assert_eq!(get("PATH"), Some("/bin"));
        assert_eq!(get("LC_ALL"), Some("C.UTF-8"));
        assert_eq!(get("ANSIBLE_PIPELINING"), Some("0"), "the step's own wins");
        assert!(get("ANSIBLE_CONFIG").unwrap().starts_with(private.dir.path().to_str().unwrap()));
    }
}
