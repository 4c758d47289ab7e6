// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The guest's package manager: what ansible brought, and which of it can go again.
//!
//! dpkg and rpm are asked, never told to remove more than named: `dpkg --purge` and `rpm -e`
//! refuse to break a dependency, where apt and dnf would remove what depends on it.

use std::collections::{BTreeMap, BTreeSet};

/// Names as the package manager takes them (`python3-yaml`, `libc6:amd64`, `python3.12.x86_64`).
pub(super) type Names = BTreeSet<String>;

/// A family of package managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// dpkg with apt.
    Apt,
    /// rpm with dnf.
    Dnf,
}

/// Prints `apt`, `dnf` or nothing.
pub(super) const DETECT: &str = "if command -v apt-get >/dev/null 2>&1; then echo apt\n\
    elif command -v dnf >/dev/null 2>&1; then echo dnf\nfi";

impl Manager {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        match word {
            "apt" => Some(Self::Apt),
            "dnf" => Some(Self::Dnf),
            _ => None,
        }
    }

    /// Prints every package with a trace in the system, for [`Manager::parse`].
    pub(super) fn list(self) -> &'static str {
        match self {
            Self::Apt => r"dpkg-query -W -f '${db:Status-Abbrev}\t${binary:Package}\n'",
            Self::Dnf => r"rpm -qa --qf '%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n'",
        }
    }

    /// Reads the output of [`Manager::list`].
    pub(super) fn parse(self, text: &str) -> Names {
        text.lines().filter_map(|line| self.parse_line(line)).filter(|n| is_name(n)).collect()
    }

    fn parse_line(self, line: &str) -> Option<String> {
        let mut fields = line.split('\t').map(str::trim);
        match self {
            Self::Apt => {
                let (status, name) = (fields.next()?, fields.next()?);
                (status.get(1..2)? != "n").then(|| name.to_owned())
            }
            Self::Dnf => {
                let (name, version, arch) = (fields.next()?, fields.next()?, fields.next()?);
                // Keys are packages too, all of the same name and none of an architecture.
                if name == "gpg-pubkey" {
                    return Some(format!("{name}-{version}"));
                }
                Some(format!("{name}.{arch}"))
            }
        }
    }

    /// Installs ansible, with lists, caches and logs below `scratch`; and `python3-apt`, which
    /// ansible's `apt` module would fetch by itself and leave behind.
    pub(super) fn install(self, scratch: &str) -> String {
        match self {
            Self::Apt => format!(
                "set -eu\n{}mkdir -p {scratch}/apt/lists/partial \
                 {scratch}/apt/cache/archives/partial {scratch}/apt/log\n\
                 printf '%s\\n' {NO_HOOKS} >{scratch}/apt/conf\n\
                 options=\"$options -c {scratch}/apt/conf\"\n\
                 apt-get -y $options update\n\
                 package=ansible-core\n\
                 apt-cache $options show $package >/dev/null 2>&1 || package=ansible\n\
                 apt-get -y $options install $package python3-apt\n",
                apt_options(scratch)
            ),
            Self::Dnf => format!(
                "set -eu\nmkdir -p {scratch}/dnf\n\
                 dnf -y --setopt=cachedir={scratch}/dnf --setopt=logdir={scratch}/dnf \
                 --setopt=install_weak_deps=False --setopt=keepcache=False \
                 install ansible-core\n"
            ),
        }
    }

    /// Says that nobody asked for these packages, so that a playbook that does can be told by
    /// [`Manager::wanted`]. Only apt knows the difference reliably.
    pub(super) fn disown(self, names: &Names, scratch: &str) -> Option<String> {
        (self == Self::Apt && !names.is_empty()).then(|| {
            format!("{}apt-mark $options auto {} >/dev/null\n", apt_options(scratch), words(names))
        })
    }

    /// Prints the packages that somebody asked for.
    pub(super) fn wanted(self, scratch: &str) -> Option<String> {
        (self == Self::Apt)
            .then(|| format!("{}apt-mark $options showmanual\n", apt_options(scratch)))
    }

    /// Finishes what an interruption left half done.
    pub(super) fn settle(self) -> &'static str {
        match self {
            Self::Apt => "DEBIAN_FRONTEND=noninteractive dpkg --log=/dev/null --configure -a",
            Self::Dnf => ":",
        }
    }

    /// Removes exactly these packages with their configuration.
    pub(super) fn remove(self, names: &Names) -> String {
        match self {
            Self::Apt => format!(
                "DEBIAN_FRONTEND=noninteractive dpkg --log=/dev/null --purge {}",
                words(names)
            ),
            Self::Dnf => format!("rpm -e {}", words(names)),
        }
    }
}

/// Lines of apt's configuration, quoted for a shell: the image's hooks are not for packages that
/// come and go. They would fill caches that nothing empties.
const NO_HOOKS: &str = "'#clear DPkg::Pre-Install-Pkgs;' '#clear DPkg::Post-Invoke;' \
    '#clear APT::Update::Post-Invoke;' '#clear APT::Update::Post-Invoke-Success;'";

/// Sets `$options` for the tools of apt and quiets what asks questions.
fn apt_options(scratch: &str) -> String {
    format!(
        "export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none\n\
         options='-q -o Dir::State::lists={scratch}/apt/lists -o Dir::Cache={scratch}/apt/cache \
         -o Dir::Log={scratch}/apt/log -o APT::Sandbox::User=root \
         -o APT::Install-Recommends=false -o APT::AutoRemove::RecommendsImportant=false \
         -o Acquire::Languages=none -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
         -o DPkg::Lock::Timeout=300 -o DPkg::Options::=--log=/dev/null'\n"
    )
}

/// The names as words of a shell; [`Manager::parse`] lets no other characters through.
fn words(names: &Names) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn is_name(name: &str) -> bool {
    name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-._:~".contains(c))
}

/// Prints what [`parse_relations`] reads: one installed package a line.
pub(super) const RELATIONS: &str = r"dpkg-query -W -f '${db:Status-Abbrev}\t${binary:Package}\t${Package}\t${Provides}\t${Pre-Depends}, ${Depends}\n'";

/// An installed package of dpkg's and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relations {
    id: String,
    names: Vec<String>,
    /// All groups must be met, each by any of its names.
    needs: Vec<Vec<String>>,
}

pub(super) fn parse_relations(text: &str) -> Vec<Relations> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (status, id, name) = (fields.next()?, fields.next()?, fields.next()?);
            if status.get(1..2)? != "i" {
                return None;
            }
            let (provides, depends) = (fields.next()?, fields.next()?);
            let mut names = vec![name.trim().to_owned()];
            names.extend(provides.split(',').filter_map(bare));
            let needs = depends
                .split(',')
                .map(|group| group.split('|').filter_map(bare).collect::<Vec<_>>())
                .filter(|group| !group.is_empty())
                .collect();
            Some(Relations { id: id.trim().to_owned(), names, needs })
        })
        .collect()
}

/// `libc6:any (>= 2.34) [amd64]` → `libc6`.
fn bare(word: &str) -> Option<String> {
    let name = word.trim().split([' ', '(', '[', ':']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Takes out of `remove` what other packages need, and says for each why it stays.
pub(super) fn spare_needed(remove: &mut Names, packages: &[Relations]) -> BTreeMap<String, String> {
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        for name in &package.names {
            by_name.entry(name).or_default().push(&package.id);
        }
    }
    let mut spared = BTreeMap::new();
    loop {
        let mut needed = Vec::new();
        for package in packages.iter().filter(|p| !remove.contains(&p.id)) {
            for group in &package.needs {
                let mut met = group.iter().filter_map(|n| by_name.get(n.as_str())).flatten();
                if met.clone().any(|id| !remove.contains(*id)) {
                    continue;
                }
                if let Some(id) = met.next() {
                    needed.push(((*id).to_owned(), package.id.clone()));
                }
            }
        }
        if needed.is_empty() {
            return spared;
        }
        for (id, by) in needed {
            if remove.remove(&id) {
                spared.insert(id, format!("needed by {by}"));
            }
        }
    }
}

/// Rehearses the removal with rpm; the complaints, for [`parse_complaints`], are on its output.
pub(super) fn rehearse(names: &Names) -> String {
    format!("LC_ALL=C rpm -e --test {} 2>&1 || :", words(names))
}

/// Reads `CAPABILITY is needed by (installed) PACKAGE`.
pub(super) fn parse_complaints(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.trim().split_once(" is needed by (installed) "))
        .map(|(capability, by)| (capability.trim().to_owned(), by.trim().to_owned()))
        .filter(|(capability, _)| !capability.is_empty() && !capability.contains(['\'', '\0']))
        .collect()
}

/// Prints what provides a capability, for [`Manager::parse`]. Versions are dropped: any provider
/// that we brought stays.
pub(super) fn providers(capability: &str) -> String {
    let name = match capability.split_once(" >= ").or_else(|| capability.split_once(" = ")) {
        Some((name, _)) => name,
        None => capability,
    };
    let name = name.split(" < ").next().unwrap_or(name);
    format!(
        "rpm -q --whatprovides --qf '%{{NAME}}\\t%{{VERSION}}-%{{RELEASE}}\\t%{{ARCH}}\\n' '{name}' || :"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn names(list: &[&str]) -> Names {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn reads_both_lists() {
        let text = "ii \tadduser\nrc \told\nun \tnever\niU \thalf:amd64\nii \tx; rm -rf /\nbad\n";
        assert_eq!(Manager::Apt.parse(text), names(&["adduser", "old", "half:amd64"]));
        let text = "bash\t5.1.8-9.el9\tx86_64\ngpg-pubkey\t350d275d-6279464b\t(none)\n";
        assert_eq!(
            Manager::Dnf.parse(text),
            names(&["bash.x86_64", "gpg-pubkey-350d275d-6279464b"])
        );
    }

    #[test]
    fn spares_what_others_need_and_what_that_needs() {
        // The playbook installed `site-tool`, which found python3-yaml already there.
        let text = "ii \tansible-core\tansible-core\t\t, python3-yaml, python3-jinja2 (>= 3)\n\
            ii \tpython3-yaml\tpython3-yaml\t\t, libyaml-0-2 (>= 0.2), python3:any\n\
            ii \tpython3-jinja2\tpython3-jinja2\t\t, python3:any\n\
            ii \tlibyaml-0-2:amd64\tlibyaml-0-2\t\t\n\
            ii \tpython3\tpython3\t\t\n\
            rc \tgone\tgone\t\t, python3-jinja2\n\
            ii \tsite-tool\tsite-tool\t\t, missing | python3-yaml, mail-agent\n\
            ii \tmta-a\tmta-a\tmail-agent\t\n\
            ii \tmta-b\tmta-b\tmail-agent (= 1)\t\n";
        let text = text.replace("\t\n", "\t\t\n");
        let packages = parse_relations(&text);
        let mut remove = names(&[
            "ansible-core",
            "python3-yaml",
            "python3-jinja2",
            "libyaml-0-2:amd64",
            "mta-b",
        ]);
        let spared = spare_needed(&mut remove, &packages);
        assert_eq!(remove, names(&["ansible-core", "python3-jinja2", "mta-b"]));
        assert_eq!(spared["python3-yaml"], "needed by site-tool");
        assert_eq!(spared["libyaml-0-2:amd64"], "needed by python3-yaml");
    }

    #[test]
    fn reads_rpms_complaints() {
        let text = "error: Failed dependencies:\n\tpython3.12dist(pyyaml) >= 5 is needed by \
            (installed) site-1-1.noarch\n\tlibyaml-0.so.2()(64bit) is needed by (installed) x-2.x86_64\n";
        let complaints = parse_complaints(text);
        assert_eq!(complaints.len(), 2);
        assert_eq!(complaints[1].0, "libyaml-0.so.2()(64bit)");
        assert!(providers(&complaints[0].0).contains("'python3.12dist(pyyaml)'"));
    }

    #[test]
    fn every_script_parses_in_a_posix_shell() {
        let some = names(&["a", "b:amd64", "c++.x86_64"]);
        let mut scripts = vec![DETECT.to_owned(), RELATIONS.to_owned(), rehearse(&some)];
        scripts.push(providers("libyaml-0.so.2()(64bit)"));
        for manager in [Manager::Apt, Manager::Dnf] {
            scripts.push(manager.list().to_owned());
            scripts.push(manager.install("/var/tmp/imgforge-x"));
            scripts.push(manager.settle().to_owned());
            scripts.push(manager.remove(&some));
            scripts.extend(manager.disown(&some, "/x"));
            scripts.extend(manager.wanted("/x"));
        }
        for script in scripts {
            let checked = Command::new("dash").args(["-n", "-c", &script]).output().unwrap();
            assert!(checked.status.success(), "{script}\n{checked:?}");
        }
    }

    /// Against the real dpkg of the machine that runs the tests, reading only.
    #[test]
    fn the_real_dpkg_answers_in_the_format_that_is_read() {
        let ask = |text: &str| {
            let made = Command::new("sh").args(["-c", text]).stdin(Stdio::null()).output().unwrap();
            String::from_utf8_lossy(&made.stdout).into_owned()
        };
        if ask(DETECT).trim() != "apt" {
            return;
        }
        let installed = Manager::Apt.parse(&ask(Manager::Apt.list()));
        assert!(installed.len() > 20 && installed.contains("dpkg"), "{installed:?}");
        let relations = parse_relations(&ask(RELATIONS));
        assert!(relations.len() > 20);
        let mut remove = names(&["perl-base", "tar"]);
        let spared = spare_needed(&mut remove, &relations);
        assert!(spared.contains_key("perl-base"), "{spared:?}");
        assert!(spared["tar"].contains("dpkg"), "{spared:?}");
        assert!(remove.is_empty());
        assert!(ask(&Manager::Apt.wanted("/nonexistent").unwrap()).lines().count() > 0);
    }

    proptest! {
        #[test]
        fn a_name_never_needs_quoting(text in "[ -~\t\n]{0,200}") {
            for manager in [Manager::Apt, Manager::Dnf] {
                for name in manager.parse(&text) {
                    prop_assert!(!name.starts_with('-'));
                    prop_assert!(!name.contains([' ', ';', '$', '\'', '(', '&', '|', '\n']));
                }
            }
        }

        #[test]
        fn what_stays_keeps_what_it_needs(
            edges in proptest::collection::vec((0usize..12, 0usize..12), 0..30),
            brought in proptest::collection::btree_set(0usize..12, 0..12),
        ) {
            let packages: Vec<Relations> = (0..12).map(|n| Relations {
                id: format!("p{n}"),
                names: vec![format!("p{n}")],
                needs: edges.iter().filter(|(a, _)| *a == n).map(|(_, b)| vec![format!("p{b}")]).collect(),
            }).collect();
            let mut remove: Names = brought.iter().map(|n| format!("p{n}")).collect();
            let before = remove.clone();
            let spared = spare_needed(&mut remove, &packages);
            for (a, b) in &edges {
                let (a, b) = (format!("p{a}"), format!("p{b}"));
                prop_assert!(remove.contains(&a) || !remove.contains(&b));
            }
            prop_assert_eq!(before.len(), remove.len() + spared.len());
        }
    }
}
