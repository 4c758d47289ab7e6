// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The machine that the monitor is: boards one after the other, from one reset to the next, and who
//! may touch the current one.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::control::{Controls, Moved};
use crate::ui::{self, Outcome};
use crate::vm::board::{Backends, Board, Plan};
use crate::vm::child::{CDROM_ID, DISK_ID};
use crate::vm::dev::Request;
use crate::vm::hv::Vm;
use crate::vm::vcpu::{End, Run};
use crate::vm::vnc::{Input, Screen};

/// Makes an empty virtual machine in the kernel.
pub(super) type MakeVm = Box<dyn Fn() -> Outcome<Arc<dyn Vm>> + Send + Sync>;

/// The machine, shared by the monitor's threads.
pub(super) struct Machine {
    plan: Plan,
    backends: Backends,
    make: MakeVm,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    board: Option<Board>,
    has_begun: bool,
    /// Somebody outside ended it.
    is_quitting: bool,
    /// Somebody outside pulls the reset line.
    is_resetting: bool,
    has_crashed: bool,
    /// Bytes that earlier boards moved.
    moved: Moved,
}

/// Why a board's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    GuestReset,
    /// The control socket asked for a reset.
    HostReset,
    /// The control socket asked for the end.
    Quit,
    /// A triple fault, with the registers.
    Crash(String),
    /// The kernel cannot go on.
    Broken(String),
}

impl Machine {
    /// A machine whose first board is put together and does not run yet.
    pub(super) fn new(plan: Plan, backends: Backends, make: MakeVm) -> Outcome<Arc<Self>> {
        let board = Board::new(&plan, &backends, &make()?)?;
        let state = State {
            board: Some(board),
            has_begun: false,
            is_quitting: false,
            is_resetting: false,
            has_crashed: false,
            moved: Moved::default(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Arc::new(Self { plan, backends, make, state, changed }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the guest may run; false when the end came first.
    pub(super) fn wait_for_begin(&self) -> bool {
        let is_waiting = |state: &mut State| !state.has_begun && !state.is_quitting;
        let state = self.changed.wait_while(self.state(), is_waiting);
        !state.unwrap_or_else(PoisonError::into_inner).is_quitting
    }

    /// Waits until somebody ends the monitor.
    pub(super) fn wait_for_quit(&self) {
        let is_waiting = |state: &mut State| !state.is_quitting;
        drop(self.changed.wait_while(self.state(), is_waiting));
    }

    /// Runs the current board to its end.
    pub(super) fn run(&self) -> Outcome<Stop> {
        let run = {
            let mut state = self.state();
            let Some(board) = state.board.as_mut() else { return Ok(Stop::Quit) };
            board.start()?;
            Arc::clone(board.run())
        };
        let end = wait(&run);
        for place in run.unclaimed() {
            tracing::debug!("no device: {place}");
        }
        let mut state = self.state();
        let is_resetting = std::mem::take(&mut state.is_resetting);
        Ok(match end {
            _ if state.is_quitting => Stop::Quit,
            End::Asked(Request::Reset) if is_resetting => Stop::HostReset,
            End::Asked(Request::Reset) => Stop::GuestReset,
            End::Asked(Request::PowerOff) => Stop::PowerOff,
            End::TripleFault(registers) => {
                state.has_crashed = true;
                Stop::Crash(registers)
            }
            End::Broken(reason) => Stop::Broken(reason),
        })
    }

    /// Puts the next board in place of one whose run has ended.
    pub(super) fn replace_board(&self) -> Outcome<()> {
        self.remove_board();
        let board = Board::new(&self.plan, &self.backends, &(self.make)()?)?;
        self.state().board = Some(board);
        Ok(())
    }

    /// Takes the machine apart. Its threads have ended then.
    pub(super) fn remove_board(&self) {
        let mut state = self.state();
        let board = state.board.take();
        if let Some(board) = &board {
            state.moved = sum(state.moved, moved(board));
        }
        drop(state);
        // Devices end without the lock: they may call back.
        drop(board);
    }

    /// The disk, for the last sync.
    pub(super) fn backends(&self) -> &Backends {
        &self.backends
    }
}

/// However long it takes; the end always comes as an event.
fn wait(run: &Run) -> End {
    loop {
        if let Some(end) = run.wait(std::time::Duration::from_secs(3600)) {
            return end;
        }
    }
}

fn moved(board: &Board) -> Moved {
    let stats = board.disk().stats();
    Moved { read: stats.read_bytes, written: stats.written_bytes }
}

fn sum(one: Moved, other: Moved) -> Moved {
    Moved {
        read: one.read.saturating_add(other.read),
        written: one.written.saturating_add(other.written),
    }
}

impl Controls for Machine {
    fn begin(&self) {
        self.state().has_begun = true;
        self.changed.notify_all();
    }

    fn drives(&self) -> Vec<(&'static str, Moved)> {
        let state = self.state();
        let now = state.board.as_ref().map(moved).unwrap_or_default();
        let mut drives = vec![(DISK_ID, sum(state.moved, now))];
        if let Some(cd) = &self.backends.cd {
            drives.push((CDROM_ID, Moved { read: cd.read_bytes(), written: 0 }));
        }
        drives
    }

    fn eject(&self, drive: &str) -> Result<(), String> {
        match &self.backends.cd {
            Some(cd) if drive == CDROM_ID => {
                cd.eject();
                Ok(())
            }
            _ => Err(format!("there is no CD drive {drive:?}")),
        }
    }

    fn power_button(&self) {
        if let Some(board) = &self.state().board {
            board.press_power_button();
        }
    }

    fn reset(&self) {
        let mut state = self.state();
        state.is_resetting = true;
        if let Some(board) = &state.board {
            board.request(Request::Reset);
        }
    }

    fn quit(&self) {
        let mut state = self.state();
        state.is_quitting = true;
        if let Some(board) = &state.board {
            board.request(Request::PowerOff);
        }
        self.changed.notify_all();
    }

    fn screenshot(&self, file: &Path) -> Result<(), String> {
        let mut pixels = Vec::new();
        let size = self.copy(&mut pixels);
        let pixels = pixels.into_iter().map(u32::to_le_bytes);
        let picture = ui::png(size, pixels).map_err(|error| error.to_string())?;
        let failed = |error: io::Error| format!("cannot write {}: {error}", file.display());
        std::fs::write(file, picture).map_err(failed)
    }

    fn status(&self) -> &'static str {
        let state = self.state();
        match (state.has_crashed, state.has_begun) {
            (true, _) => "guest-panicked",
            (_, true) => "running",
            _ => "prelaunch",
        }
    }
}

impl Screen for Machine {
    fn copy(&self, into: &mut Vec<u32>) -> (u32, u32) {
        let screen = self.state().board.as_ref().map(|board| Arc::clone(board.screen()));
        screen.map_or((0, 0), |screen| screen.copy(into))
    }
}

impl Input for Machine {
    fn key(&self, keysym: u32, down: bool) {
        if let Some(board) = &self.state().board {
            board.key(keysym, down);
        }
    }
}
