// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The story of one build.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::broken::{self, Broken, Settled};
use super::cache::Installations;
use super::cancel::Cancel;
use super::context::Context;
use super::identity::Identity;
use super::journal::{Entry, Journal};
use super::ledger::{Account, Ledger};
use super::on_error::OnError;
use super::output::Output;
use super::provision::Stopped;
use super::state::{StateDirs, TargetLock};
use super::{disk, finish, install, key, provision, seal};
use crate::guest::HostKeys;
use crate::media::{self, Medium};
use crate::store;
use crate::target::{Assets, Resolved};
use crate::ui::{Event, Events, Failure, LogFiles, Outcome, Split, Stage};
use crate::vm::Driver;

/// A disk is expected to be filled to this fraction (one n-th) at most while it is built.
const DISK_FILL: u64 = 4;

/// Everything that decides one build.
pub struct Request {
    /// The target, resolved.
    pub target: Resolved,
    /// Its files.
    pub assets: Arc<dyn Assets>,
    /// Who runs the machine.
    pub driver: Arc<dyn Driver>,
    /// One line that says which driver and why.
    pub hypervisor: String,
    /// Output directory.
    pub output: PathBuf,
    /// Replace an existing output.
    pub force: bool,
    /// What to do when a step fails.
    pub on_error: OnError,
    /// Use a cached installation when there is one.
    pub use_cache: bool,
    /// The first stage that must run whatever the cache holds; a later one than
    /// [`Stage::Install`] insists on a cached installation.
    pub from: Option<Stage>,
    /// Where media and installations are cached, and how media are fetched.
    pub fetch: media::FetchOptions,
    /// Where the build says what happens.
    pub events: Events,
    /// Where journals and run directories live.
    pub dirs: StateDirs,
    /// Signals: the first cancels in order, the second at once.
    pub cancel: Cancel,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct Report {
    /// Output directory.
    pub output: PathBuf,
    /// Artefacts in it.
    pub files: Vec<PathBuf>,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Where the time went.
    pub split: Split,
}

/// Builds one image.
///
/// # Errors
/// Any failure, with evidence kept beside the output directory; the host is as it was before.
pub async fn build(request: Request) -> Outcome<Report> {
    let started = Instant::now();
    let mut output = Output::plan(&request.output, request.force)?;
    let _lock = TargetLock::acquire(&request.dirs, &request.target.name, output.finished())?;
    let journal = Journal::create(&request.dirs, &request.target.name)?;
    request.cancel.watch(&journal);
    let result = journaled(&request, &mut output, &journal, started).await;
    request.cancel.forget(&journal);
    result
}

/// The build with its journal open; closes it whatever happens, unless the user keeps things.
async fn journaled(
    request: &Request,
    output: &mut Output,
    journal: &Journal,
    started: Instant,
) -> Outcome<Report> {
    let prepared = output
        .open_scratch(journal)
        .and_then(|entry| Ok((entry, LogFiles::open(output.scratch())?)));
    let (entry, logs) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => {
            journal.undo(&request.events);
            return Err(problem.within(&request.target.name));
        }
    };
    let context = context(request, logs.tee(&request.events), output, journal)?;
    context.events.emit(Event::BuildStarted {
        id: context.id.clone(),
        hypervisor: request.hypervisor.clone(),
    });
    let (context, result) = stages(context, request).await;
    let result = match result {
        Ok(finished) => succeed(&context, &finished, output, entry, started),
        Err(problem) => Err(problem),
    };
    result.map_err(|problem| fail(&context, problem, output))
}

fn context(
    request: &Request,
    events: Events,
    output: &Output,
    journal: &Journal,
) -> Outcome<Context> {
    Ok(Context {
        id: journal.id().to_owned(),
        target: request.target.clone(),
        assets: Arc::clone(&request.assets),
        driver: Arc::clone(&request.driver),
        events,
        token: request.cancel.token(),
        journal: journal.clone(),
        ledger: Ledger::new(),
        identity: Identity::generate()?,
        scratch: output.scratch().to_owned(),
        run_dir: journal.run_dir().to_owned(),
        shots: AtomicUsize::new(0),
        may_keep: request.on_error != OnError::Cleanup,
        kept: AtomicBool::new(false),
    })
}

fn succeed(
    context: &Context,
    finished: &Finished,
    output: &Output,
    entry: Entry,
    started: Instant,
) -> Outcome<Report> {
    let seconds = started.elapsed().as_secs_f64();
    let split = context.ledger.split();
    let directory = output.finished().to_owned();
    context.events.emit(Event::BuildDone {
        output: directory.display().to_string(),
        seconds,
        split,
    });
    output.publish()?;
    context.journal.done(entry)?;
    context.journal.undo(&context.events);
    let moved = |file: &PathBuf| match file.strip_prefix(&context.scratch) {
        Ok(relative) => directory.join(relative),
        Err(_) => file.clone(),
    };
    let files = finished.files.iter().map(moved).collect();
    Ok(Report { output: directory, files, seconds, split })
}

/// Undoes everything; what explains the failure stays.
fn fail(context: &Context, problem: Failure, output: &Output) -> Failure {
    let problem = problem.within(&context.target.name);
    let keeps_machine = context.kept.load(Ordering::Relaxed);
    let problem = if keeps_machine { problem } else { output.keep_evidence(problem) };
    context.events.emit(Event::BuildFailed { error: problem.to_string() });
    if !keeps_machine {
        context.journal.undo(&context.events);
    }
    problem
}

async fn stages(mut context: Context, request: &Request) -> (Context, Outcome<Finished>) {
    let result = run_stages(&mut context, request).await;
    (context, result)
}

struct Finished {
    files: Vec<PathBuf>,
}

async fn run_stages(context: &mut Context, request: &Request) -> Outcome<Finished> {
    let medium = media_stage(context, request).await?;
    let host_keys = HostKeys::default();
    install_stage(context, request, &medium).await?;
    let start = Instant::now();
    let guest = boot_stage(context, request, &host_keys).await?;
    if let Err(stopped) = provision_stage(context, request, &guest, start).await {
        let problem = stopped.problem.within(Stage::Provision.name());
        let broken = Broken::with(problem, guest.machine);
        return Err(broken::conclude(context, stopped.decision, broken).await);
    }
    if let Err(problem) = stage(context, Stage::Seal, seal::run(context, &guest)).await {
        let decision = request.on_error.decide(&problem);
        let broken =
            Broken::with(context.with_evidence(problem, &guest.screen).await, guest.machine);
        return Err(broken::conclude(context, decision, broken).await);
    }
    drop(guest);
    let export = finish::run(context);
    let (files, _) = stage_with(context, Stage::Export, export, |(_, note)| note.clone()).await?;
    Ok(Finished { files })
}

async fn media_stage(context: &Context, request: &Request) -> Outcome<Medium> {
    context.ledger.switch(Account::Transfer);
    let fetch = async {
        let media = &context.target.media;
        let token = context.token.clone();
        let medium = media::fetch(media, &request.fetch, &context.events, token).await?;
        let boots = media::inspect(&medium.path)?;
        boots.require(context.target.machine.firmware)?;
        Ok((medium, boots.describe()))
    };
    let (medium, _) = stage_with(context, Stage::Media, fetch, |(medium, boots)| {
        format!("{} MB  {boots}", medium.bytes / 1_000_000)
    })
    .await?;
    context.ledger.switch(Account::Own);
    Ok(medium)
}

async fn install_stage(context: &mut Context, request: &Request, medium: &Medium) -> Outcome<()> {
    let key = key::install(context, &medium.sha256)?;
    let installations = Installations::new(&request.fetch.cache_dir);
    let wanted = request.use_cache && request.from.is_none_or(|from| from > Stage::Install);
    if wanted && let Some((identity, frozen)) = installations.find(&context.target.name, &key)? {
        context.identity = identity;
        let copy = async { disk::clone_from(context, &frozen).map(|()| "cached".to_owned()) };
        return stage(context, Stage::Install, copy).await;
    }
    if request.from.is_some_and(|from| from > Stage::Install) {
        return Err(Failure::input("there is no cached installation to start from")
            .fact("key", &key)
            .hint("leave out `--from`: the first build installs and keeps the result"));
    }
    let bytes = context.target.machine.disk_mib * 1024 * 1024;
    store::require_space(&context.scratch, bytes / DISK_FILL, "the disk of the build")?;
    disk::create(context)?;
    install_with_retries(context, request, medium).await?;
    if request.use_cache {
        installations.keep(context, &key)?;
    }
    Ok(())
}

async fn install_with_retries(
    context: &Context,
    request: &Request,
    medium: &Medium,
) -> Outcome<()> {
    let start = Instant::now();
    context.check_cancelled()?;
    context.events.emit(Event::StageStarted { stage: Stage::Install });
    loop {
        let broken = match install::run(context, medium).await {
            Ok(note) => {
                done(context, Stage::Install, start, note);
                return Ok(());
            }
            Err(broken) => broken.within(Stage::Install.name()),
        };
        match broken::settle(context, request.on_error, broken).await {
            Settled::Retry => disk::recreate(context)?,
            Settled::Failed(problem) => return Err(problem),
        }
    }
}

/// Boots the installed system; the provision stage's time begins here.
async fn boot_stage(
    context: &Context,
    request: &Request,
    host_keys: &HostKeys,
) -> Outcome<provision::Guest> {
    context.check_cancelled()?;
    context.events.emit(Event::StageStarted { stage: Stage::Provision });
    loop {
        let broken = match provision::boot(context, host_keys).await {
            Ok(guest) => return Ok(guest),
            Err(broken) => broken.within(Stage::Provision.name()),
        };
        match broken::settle(context, request.on_error, broken).await {
            Settled::Retry => {}
            Settled::Failed(problem) => return Err(problem),
        }
    }
}

async fn provision_stage(
    context: &Context,
    request: &Request,
    guest: &provision::Guest,
    start: Instant,
) -> Result<(), Stopped> {
    let note = provision::run(context, guest, request.on_error).await?;
    done(context, Stage::Provision, start, note);
    Ok(())
}

fn done(context: &Context, stage: Stage, start: Instant, note: String) {
    let seconds = start.elapsed().as_secs_f64();
    context.events.emit(Event::StageDone { stage, seconds, note });
}

async fn stage(
    context: &Context,
    stage: Stage,
    work: impl Future<Output = Outcome<String>>,
) -> Outcome<()> {
    stage_with(context, stage, work, Clone::clone).await.map(drop)
}

async fn stage_with<T>(
    context: &Context,
    stage: Stage,
    work: impl Future<Output = Outcome<T>>,
    note: impl FnOnce(&T) -> String,
) -> Outcome<T> {
    context.check_cancelled()?;
    let start = Instant::now();
    context.events.emit(Event::StageStarted { stage });
    let result = work.await.map_err(|problem| problem.within(stage.name()))?;
    done(context, stage, start, note(&result));
    Ok(result)
}
