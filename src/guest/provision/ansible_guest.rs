// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A playbook run inside the guest, and everything that it needed removed again.
//!
//! Ansible comes from the guest's own packages when it is not there. What it brought is the
//! difference of the package lists before and right after its installation, so that what the
//! playbook installs is never touched. Lists, caches and logs of the package manager live in the
//! step's private directory and go with it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::packages::{
    DETECT, Manager, Names, RELATIONS, parse_complaints, parse_relations, providers, rehearse,
    spare_needed,
};
use super::playbook::{Prepared, Reader, VARS_FILE, settings};
use super::{Context, StepReport, left};
use crate::guest::command::{Command, quote};
use crate::guest::scratch::{Scratch, after_removal};
use crate::guest::session::{Return, Session};
use crate::guest::upload::{upload_bytes, upload_tree};
use crate::target::Ansible;
use crate::ui::{Failure, Kind, Outcome};

/// Not in memory: apt's lists and caches may take 200 MiB.
const PLACES: &[&str] = &["/var/tmp", "/run"];
/// Longest time to remove everything.
const CLEAN_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longest wait for a login that was lost.
const RECONNECT_LIMIT: Duration = Duration::from_secs(120);
/// Longest list of packages that is read.
const LIST_MAX: usize = 16 * 1024 * 1024;
/// Most rounds of asking rpm what stands in the way.
const ROUNDS: usize = 30;

/// What was there before, and what ansible brought.
struct Brought {
    manager: Manager,
    before: Names,
    /// Known once the installation ended well.
    added: Option<Names>,
}

pub(super) async fn run(
    name: &str,
    play: &Ansible,
    prepared: Prepared,
    context: &Context<'_>,
    deadline: Instant,
) -> Outcome<StepReport> {
    need_root(context.session).await?;
    let scratch = Scratch::create(context.session, PLACES).await?;
    let mut brought = None;
    let work = async {
        install(name, context, scratch.path(), &mut brought, deadline).await?;
        let manager = brought.as_ref().map(|brought| brought.manager);
        play_it(name, play, prepared, context, (scratch.path(), manager), deadline).await
    }
    .await;
    let interrupted = matches!(&work, Err(failure) if failure.kind() == Kind::Interrupted);
    let cleaned = if interrupted {
        context.events.warn("interrupted: the packages that ansible brought stay in this guest");
        Ok((Names::new(), Vec::new()))
    } else {
        clean(context, brought, scratch.path()).await
    };
    let removal = scratch.remove(context.session, context.events).await;
    let work = after_removal(work, removal, context.events);
    match (work, cleaned) {
        (Ok(report), Ok((removed, kept))) => {
            for line in &kept {
                context.events.note(format!("stays in the image: {line}"));
            }
            Ok(StepReport { removed: removed.into_iter().collect(), kept, ..report })
        }
        (Ok(_), Err(failure)) => Err(failure),
        (Err(failure), Ok(_)) => Err(failure),
        (Err(failure), Err(unclean)) => {
            context.events.warn(format!("ansible could not be removed: {}", unclean.summary()));
            Err(failure)
        }
    }
}

async fn need_root(session: &Session) -> Outcome<()> {
    let id = session.capture(&Command::new("id -u"), 64).await?.text();
    if id == "0" {
        return Ok(());
    }
    Err(Failure::input(format!(
        "a playbook in the guest needs a login as root, not as `{}`",
        session.wait().login.username
    ))
    .hint("set `ssh.username: root`, or use `mode: host` with `become`"))
}

/// Installs ansible unless it is there. `brought` is set before anything changes.
async fn install(
    name: &str,
    context: &Context<'_>,
    scratch: &str,
    brought: &mut Option<Brought>,
    deadline: Instant,
) -> Outcome<()> {
    let session = context.session;
    let there = Command::new("command -v ansible-playbook >/dev/null 2>&1");
    if session.capture(&there, 64).await?.ended.good() {
        context.events.note("the guest has ansible already; it stays");
        return Ok(());
    }
    let word = session.capture(&Command::new(DETECT), 64).await?.text();
    let manager = Manager::from_word(&word).ok_or_else(|| {
        Failure::build("the guest has neither apt nor dnf to install ansible with")
            .hint("use `mode: host`, or install ansible in an earlier `shell` step")
    })?;
    let before = list(session, manager).await?;
    let state = brought.insert(Brought { manager, before, added: None });
    let command = Command::new(manager.install(scratch)).within(left(deadline));
    let mut last = Vec::new();
    let ended = session
        .lines(&command, &mut |stream, line| {
            if last.len() == 12 {
                last.remove(0);
            }
            last.push(line.clone());
            context.events.emit(crate::ui::Event::Output { step: name.to_owned(), stream, line });
        })
        .await?;
    if !ended.good() {
        return Err(Failure::build(format!("cannot install ansible in the guest: {ended}"))
            .fact("output", last.join("\n"))
            .hint("does the guest reach its package mirror? else use `mode: host`"));
    }
    let added: Names = list(session, manager).await?.difference(&state.before).cloned().collect();
    if let Some(text) = manager.disown(&added, scratch) {
        session.capture(&Command::new(text), 4096).await?.or_fail("mark ansible's packages")?;
    }
    state.added = Some(added);
    Ok(())
}

async fn list(session: &Session, manager: Manager) -> Outcome<Names> {
    let got = session.capture(&Command::new(manager.list()), LIST_MAX).await?;
    let got = got.or_fail("list the packages")?;
    let names = manager.parse(&String::from_utf8_lossy(&got.stdout));
    if names.is_empty() || got.cut {
        return Err(Failure::build("the guest's list of packages cannot be read"));
    }
    Ok(names)
}

async fn play_it(
    name: &str,
    play: &Ansible,
    prepared: Prepared,
    context: &Context<'_>,
    (scratch, manager): (&str, Option<Manager>),
    deadline: Instant,
) -> Outcome<StepReport> {
    let session = context.session;
    upload_tree(session, &prepared.files, &format!("{scratch}/tree")).await?;
    upload_bytes(session, &prepared.vars, &format!("{scratch}/{VARS_FILE}"), 0o600).await?;
    let mut env = settings(scratch);
    // A module goes to its interpreter's standard input: half the processes that a file costs.
    let remote = format!("{scratch}/tmp");
    env.extend(
        [("LC_ALL", "C.UTF-8"), ("ANSIBLE_PIPELINING", "1"), ("ANSIBLE_REMOTE_TEMP", &remote)]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if manager == Some(Manager::Apt) {
        // The one that `python3-apt` is for: looking for others takes a while, and warns.
        env.insert("ANSIBLE_PYTHON_INTERPRETER".into(), "/usr/bin/python3".into());
    }
    env.extend(prepared.env);
    let command =
        Command::new(playbook_text(scratch, &prepared.arguments)).envs(env).within(left(deadline));
    let mut reader = Reader::default();
    let ended =
        session.lines(&command, &mut |stream, line| reader.take(name, context, stream, line)).await;
    match ended {
        Ok(ended) => reader.judge(play, &ended.to_string(), ended.good()),
        Err(failure) => Err(reader.tell(failure)),
    }
}

fn playbook_text(scratch: &str, arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
    format!(
        "umask 022\ncd {scratch}/tree && exec ansible-playbook --inventory localhost, \
         --connection local --extra-vars @{scratch}/{VARS_FILE} {}",
        words.join(" ")
    )
}

/// Removes what was brought and what ansible left in the home directory, and looks that it is
/// gone. Gives the removed packages, and those that had to stay with the reason.
async fn clean(
    context: &Context<'_>,
    brought: Option<Brought>,
    scratch: &str,
) -> Outcome<(Names, Vec<String>)> {
    let session = &context.session.ignoring_cancel().until(Instant::now() + CLEAN_LIMIT);
    if session.is_closed() {
        session.reconnect(&Return::Login, RECONNECT_LIMIT, context.events).await?;
    }
    let home = Command::new("rm -rf -- \"${HOME:?}/.ansible\" && [ ! -e \"$HOME/.ansible\" ]");
    session.capture(&home, 4096).await?.or_fail("remove ~/.ansible")?;
    let Some(brought) = brought else { return Ok((Names::new(), Vec::new())) };
    let manager = brought.manager;
    let settle = Command::new(manager.settle()).within(CLEAN_LIMIT);
    session.capture(&settle, 16 * 1024).await?.or_fail("finish the installation of packages")?;
    let now = list(session, manager).await?;
    let added = match brought.added {
        Some(added) => added,
        None => now.difference(&brought.before).cloned().collect(),
    };
    let mut remove: Names = added.intersection(&now).cloned().collect();
    let mut stay = BTreeMap::new();
    spare_wanted(session, manager, scratch, &mut remove, &mut stay).await?;
    match manager {
        Manager::Apt => {
            let got = session.capture(&Command::new(RELATIONS), LIST_MAX).await?;
            let got = got.or_fail("read the packages' dependencies")?;
            let relations = parse_relations(&String::from_utf8_lossy(&got.stdout));
            stay.extend(spare_needed(&mut remove, &relations));
        }
        Manager::Dnf => spare_needed_by_rpm(session, &mut remove, &mut stay).await?,
    }
    if !remove.is_empty() {
        let command = Command::new(manager.remove(&remove)).within(CLEAN_LIMIT);
        session.capture(&command, 64 * 1024).await?.or_fail("remove ansible's packages")?;
    }
    let still: Vec<String> = list(session, manager).await?.intersection(&remove).cloned().collect();
    if !still.is_empty() {
        return Err(Failure::build("packages that ansible brought are still in the guest")
            .fact("packages", still.join(" ")));
    }
    let kept = stay.into_iter().map(|(name, why)| format!("{name} ({why})")).collect();
    Ok((remove, kept))
}

/// Keeps what the playbook asked for by name.
async fn spare_wanted(
    session: &Session,
    manager: Manager,
    scratch: &str,
    remove: &mut Names,
    stay: &mut BTreeMap<String, String>,
) -> Outcome<()> {
    let Some(text) = manager.wanted(scratch) else { return Ok(()) };
    let got = session.capture(&Command::new(text), LIST_MAX).await?;
    let wanted = got.or_fail("list the wanted packages")?.text();
    for name in wanted.lines().map(str::trim) {
        // apt names the native architecture's packages without it, dpkg some with it.
        let same = |id: &String| id == name || id.split(':').next() == Some(name);
        if let Some(id) = remove.iter().find(|id| same(id)).cloned() {
            remove.remove(&id);
            stay.insert(id, "the playbook asks for it".to_owned());
        }
    }
    Ok(())
}

async fn spare_needed_by_rpm(
    session: &Session,
    remove: &mut Names,
    stay: &mut BTreeMap<String, String>,
) -> Outcome<()> {
    for _ in 0..ROUNDS {
        if remove.is_empty() {
            return Ok(());
        }
        let got = session.capture(&Command::new(rehearse(remove)), LIST_MAX).await?;
        let complaints = parse_complaints(&String::from_utf8_lossy(&got.stdout));
        if complaints.is_empty() {
            return Ok(());
        }
        let mut moved = false;
        for (capability, by) in complaints {
            let got = session.capture(&Command::new(providers(&capability)), LIST_MAX).await?;
            for id in Manager::Dnf.parse(&String::from_utf8_lossy(&got.stdout)) {
                if remove.remove(&id) {
                    stay.insert(id, format!("needed by {by}"));
                    moved = true;
                }
            }
        }
        if !moved {
            break;
        }
    }
    Err(Failure::build("rpm does not let ansible's packages go")
        .fact("packages", remove.iter().cloned().collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_playbook_command_parses_whatever_the_arguments_are() {
        let arguments = ["--tags".to_owned(), "it's; rm -rf /".to_owned(), "site.yml".to_owned()];
        let text = playbook_text("/var/tmp/imgforge-x", &arguments);
        let checked =
            std::process::Command::new("dash").args(["-n", "-c", &text]).output().unwrap();
        assert!(checked.status.success(), "{text}\n{checked:?}");
        assert!(text.ends_with(r"'--tags' 'it'\''s; rm -rf /' 'site.yml'"), "{text}");
    }
}
