// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! What both ways of running a playbook share: its parts, and reading ansible's output.

use std::collections::{BTreeMap, VecDeque};

use super::{Context, StepReport};
use crate::guest::upload::relative;
use crate::target::{Ansible, AssetFile};
use crate::ui::{Event, Failure, Outcome, Stream};

/// Last lines of output that a failure tells.
const LAST_LINES: usize = 15;
/// Name of the file of extra variables beside the playbook's tree.
pub(super) const VARS_FILE: &str = "extra-vars.json";

/// Ansible's count at the end of a playbook, over all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recap {
    /// Tasks that ran well.
    pub ok: u32,
    /// Tasks that changed something.
    pub changed: u32,
    /// Hosts that could not be reached.
    pub unreachable: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Tasks that were skipped.
    pub skipped: u32,
}

impl std::fmt::Display for Recap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ok={} changed={} failed={}", self.ok, self.changed, self.failed)?;
        if self.unreachable > 0 {
            write!(f, " unreachable={}", self.unreachable)?;
        }
        Ok(())
    }
}

/// A playbook with every text expanded, ready to be written somewhere and run.
pub(super) struct Prepared {
    pub(super) files: Vec<AssetFile>,
    pub(super) vars: Vec<u8>,
    pub(super) arguments: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
}

impl Prepared {
    pub(super) fn new(play: &Ansible, context: &Context<'_>) -> Outcome<Self> {
        let files = context.assets.tree(&play.directory)?;
        for file in &files {
            relative(&file.path)?;
        }
        let playbook = play.playbook.trim_start_matches("./");
        if !files.iter().any(|file| file.path == playbook) {
            let found: Vec<&str> = files
                .iter()
                .map(|file| file.path.as_str())
                .filter(|path| !path.contains('/') && path.ends_with(".yml"))
                .collect();
            return Err(Failure::input(format!("there is no playbook `{}`", play.playbook))
                .fact("file", format!("{}/{}", play.directory, playbook))
                .fact("found", found.join(", ")));
        }
        let vars = context.expand_map(&play.extra_vars)?;
        let vars = serde_json::to_vec(&vars)
            .map_err(|e| Failure::build("cannot write the extra variables").because(e))?;
        let mut arguments = context.expand_all(&play.extra_arguments)?;
        arguments.push(playbook.to_owned());
        Ok(Self { files, vars, arguments, env: context.env(&play.env)? })
    }
}

/// The settings of every run: plain output, nothing written outside `private`, a directory
/// where ansible runs.
pub(super) fn settings(private: &str) -> BTreeMap<String, String> {
    [
        ("ANSIBLE_HOME", format!("{private}/home")),
        ("ANSIBLE_LOCAL_TEMP", format!("{private}/tmp")),
        ("ANSIBLE_NOCOLOR", "1".into()),
        ("ANSIBLE_NOCOWS", "1".into()),
        ("ANSIBLE_RETRY_FILES_ENABLED", "0".into()),
        ("ANSIBLE_DEPRECATION_WARNINGS", "0".into()),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("PYTHONUNBUFFERED", "1".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Reads ansible's output while it is shown.
#[derive(Debug, Default)]
pub(super) struct Reader {
    task: String,
    failed_task: Option<String>,
    recap: Option<Recap>,
    in_recap: bool,
    last: VecDeque<String>,
}

impl Reader {
    /// Takes a line and shows it.
    pub(super) fn take(&mut self, step: &str, context: &Context<'_>, stream: Stream, line: String) {
        self.read(&line);
        context.events.emit(Event::Output { step: step.to_owned(), stream, line });
    }

    fn read(&mut self, line: &str) {
        if let Some(name) = header(line) {
            self.in_recap = false;
            name.clone_into(&mut self.task);
        } else if line.starts_with("PLAY RECAP ") {
            self.in_recap = true;
        } else if line.starts_with("fatal: ") || line.starts_with("failed: ") {
            self.failed_task = Some(self.task.clone());
        } else if self.in_recap
            && let Some(count) = recap_line(line)
        {
            let sum = self.recap.get_or_insert_default();
            sum.ok += count.ok;
            sum.changed += count.changed;
            sum.unreachable += count.unreachable;
            sum.failed += count.failed;
            sum.skipped += count.skipped;
        }
        if !line.trim().is_empty() {
            self.last.push_back(line.to_owned());
            if self.last.len() > LAST_LINES {
                self.last.pop_front();
            }
        }
    }

    /// The step's report, or the failure that ansible's output tells. `ended` is how the command
    /// ended, `good` whether that was well.
    pub(super) fn judge(self, play: &Ansible, ended: &str, good: bool) -> Outcome<StepReport> {
        if good {
            return match self.recap {
                Some(recap) => Ok(StepReport {
                    summary: recap.to_string(),
                    recap: Some(recap),
                    ..StepReport::default()
                }),
                None => Err(self.tell(
                    Failure::build(format!("the playbook `{}` ran on no host", play.playbook))
                        .hint("a play for the image needs `hosts: all`"),
                )),
            };
        }
        let summary = match &self.failed_task {
            Some(task) if !task.is_empty() => {
                format!("the playbook `{}` failed at `{task}`", play.playbook)
            }
            _ => format!("the playbook `{}` failed: {ended}", play.playbook),
        };
        Err(self.tell(Failure::build(summary).fact("ended", ended)))
    }

    /// Adds the last lines to a failure.
    pub(super) fn tell(&self, failure: Failure) -> Failure {
        if self.last.is_empty() {
            return failure;
        }
        failure.fact("output", Vec::from(self.last.clone()).join("\n"))
    }
}

/// The name in `TASK [name] ****` or `RUNNING HANDLER [name] ***`.
fn header(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("TASK [").or_else(|| line.strip_prefix("RUNNING HANDLER ["))?;
    let end = rest.rfind("] *")?;
    Some(&rest[..end])
}

/// `host : ok=2 changed=1 unreachable=0 failed=0 skipped=0 rescued=0 ignored=0`.
fn recap_line(line: &str) -> Option<Recap> {
    let (_, counts) = line.split_once(" : ")?;
    let mut recap = Recap::default();
    let mut seen = false;
    for word in counts.split_whitespace() {
        let (name, number) = word.split_once('=')?;
        let number: u32 = number.parse().ok()?;
        let slot = match name {
            "ok" => &mut recap.ok,
            "changed" => &mut recap.changed,
            "unreachable" => &mut recap.unreachable,
            "failed" => &mut recap.failed,
            "skipped" => &mut recap.skipped,
            _ => continue,
        };
        *slot = number.min(1_000_000);
        seen = true;
    }
    seen.then_some(recap)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn play() -> Ansible {
        Ansible {
            mode: crate::target::AnsibleMode::Host,
            directory: "ansible".into(),
            playbook: "site.yml".into(),
            extra_vars: BTreeMap::new(),
            extra_arguments: Vec::new(),
            env: BTreeMap::new(),
            command: String::new(),
        }
    }

    fn read(text: &str) -> Reader {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.read(line));
        reader
    }

    const GOOD: &str = "\nTASK [smartos_guest : Install] *****\nok: [debian-13]\n\n\
        PLAY RECAP ****\ndebian-13   : ok=12   changed=7    unreachable=0    failed=0    \
        skipped=3    rescued=0    ignored=1   \n";
    const BAD: &str = "TASK [Gathering Facts] ****\nok: [d]\nTASK [role : Do [this] *now*] ****\n\
        fatal: [d]: FAILED! => {\"msg\": \"no\"}\nPLAY RECAP ***\n\
        d : ok=1 changed=0 unreachable=0 failed=1 skipped=0 rescued=0 ignored=0\n";

    #[test]
    fn reads_the_recap() {
        let report = read(GOOD).judge(&play(), "exit code 0", true).unwrap();
        assert_eq!(report.summary, "ok=12 changed=7 failed=0");
        assert_eq!(report.recap.unwrap().skipped, 3);
    }

    #[test]
    fn names_the_task_that_failed() {
        let failure = read(BAD).judge(&play(), "exit code 2", false).unwrap_err();
        assert_eq!(failure.summary(), "the playbook `site.yml` failed at `role : Do [this] *now*`");
        assert!(failure.to_string().contains("FAILED! =>"));
    }

    #[test]
    fn a_playbook_that_ran_nowhere_is_a_failure() {
        let failure = read("skipping: no hosts matched\nPLAY RECAP ***\n")
            .judge(&play(), "exit code 0", true)
            .unwrap_err();
        assert!(failure.summary().contains("on no host"));
        let failure = read("ERROR! no module\n").judge(&play(), "exit code 4", false).unwrap_err();
        assert_eq!(failure.summary(), "the playbook `site.yml` failed: exit code 4");
    }

    proptest! {
        #[test]
        fn any_output_can_be_read(text in "(PLAY RECAP \\*|TASK \\[|[a-z=:0-9 \\]*]{0,20}|\n){0,30}") {
            let _ = read(&text).judge(&play(), "x", true);
        }
    }
}
