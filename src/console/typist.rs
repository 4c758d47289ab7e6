// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.
//! Types key events at a guest's keyboard, and lets go of every key whatever happens.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::boot_command::KeyEvent;
use super::keysym;
use crate::ui::{Event, Events, Failure, Outcome};

/// How often progress is said at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time that letting go of held keys may take after a cancel or an error.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// Something that takes key events.
#[async_trait]
pub trait Keyboard: Send + Sync {
    /// One key goes down or up.
    async fn key(&self, keysym: u32, down: bool) -> Outcome<()>;

    /// Returns once all keys so far have left for the guest.
    async fn flush(&self) -> Outcome<()>;

    /// Returns the reason once the keyboard is of no use any more, so that a long wait ends then.
    async fn lost(&self) -> Failure;
}

/// What typing took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypingReport {
    /// Key events sent, without those of `released`.
    pub keys: usize,
    /// Time spent in the command's own waits.
    pub waiting: Duration,
    /// Time spent on keys and the pauses after them.
    pub typing: Duration,
    /// Keysyms that the command left held, and that were then let go.
    pub released: Vec<u32>,
}

/// Types `events` with a pause of `interval` after every key event.
///
/// Emits [`Event::Typing`] a few times a second, with the index of the key event. A cancel takes
/// effect at once, even inside a wait. Keys that are still down at the end, after a cancel or
/// after an error are let go.
pub async fn type_events(
    keyboard: &dyn Keyboard,
    events: &[KeyEvent],
    interval: Duration,
    says: &Events,
    stop: &CancellationToken,
) -> Outcome<TypingReport> {
    let mut typist = Typist {
        keyboard,
        interval,
        says,
        stop,
        held: Vec::new(),
        report: TypingReport::default(),
        said: None,
    };
    let typed = typist.run(events).await;
    let released = typist.release(typed.is_ok()).await;
    typed?;
    released?;
    Ok(typist.report)
}

struct Typist<'a> {
    keyboard: &'a dyn Keyboard,
    interval: Duration,
    says: &'a Events,
    stop: &'a CancellationToken,
    held: Vec<u32>,
    report: TypingReport,
    said: Option<Instant>,
}

impl Typist<'_> {
    async fn run(&mut self, events: &[KeyEvent]) -> Outcome<()> {
        for (index, event) in events.iter().enumerate() {
            self.progress(index, events.len());
            let start = Instant::now();
            let done = self.one(event).await;
            match event {
                KeyEvent::Wait(_) => self.report.waiting += start.elapsed(),
                KeyEvent::Down(_) | KeyEvent::Up(_) => self.report.typing += start.elapsed(),
            }
            done.map_err(|failure| {
                failure.fact("typed", format!("{index} of {} events", events.len()))
            })?;
        }
        if !events.is_empty() {
            self.says.emit(Event::Typing { index: events.len(), count: events.len() });
        }
        Ok(())
    }

    async fn one(&mut self, event: &KeyEvent) -> Outcome<()> {
        let (keysym, down) = match *event {
            KeyEvent::Wait(pause) => return self.pause(pause).await,
            KeyEvent::Down(keysym) => (keysym, true),
            KeyEvent::Up(keysym) => (keysym, false),
        };
        // Noted first: a key that fails half way may be down.
        self.held.retain(|held| *held != keysym);
        if down {
            self.held.push(keysym);
        }
        let stop = self.stop;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(interrupted()),
            sent = self.keyboard.key(keysym, down) => sent?,
        }
        self.report.keys += 1;
        self.pause(self.interval).await
    }

    async fn pause(&self, length: Duration) -> Outcome<()> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(interrupted()),
            () = tokio::time::sleep(length) => Ok(()),
            why = self.keyboard.lost() => Err(why),
        }
    }

    /// Lets go of what is held, last pressed first; in step when all went well, else at once.
    async fn release(&mut self, in_step: bool) -> Outcome<()> {
        let start = Instant::now();
        let held: Vec<u32> = self.held.drain(..).rev().collect();
        let letting_go = async {
            let mut in_pace = Ok(());
            for keysym in &held {
                self.keyboard.key(*keysym, false).await?;
                if in_step && in_pace.is_ok() {
                    in_pace = self.pause(self.interval).await;
                }
            }
            self.keyboard.flush().await?;
            in_pace
        };
        let done = if in_step {
            letting_go.await
        } else {
            tokio::time::timeout(RELEASE_DEADLINE, letting_go).await.unwrap_or_else(|_| {
                let names: Vec<String> = held.iter().map(|k| keysym::describe(*k)).collect();
                Err(Failure::build("cannot let go of held keys").fact("keys", names.join(" ")))
            })
        };
        self.report.typing += start.elapsed();
        self.report.released = held;
        done
    }

    fn progress(&mut self, index: usize, count: usize) {
        if self.said.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL) {
            self.said = Some(Instant::now());
            self.says.emit(Event::Typing { index, count });
        }
    }
}

fn interrupted() -> Failure {
    Failure::interrupted("interrupted while typing the boot command")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::super::boot_command::parse;
    use super::*;

    /// Notes keys; cancels or breaks after a number of them.
    #[derive(Default)]
    struct Paper {
        keys: Mutex<Vec<(u32, bool)>>,
        cancel_after: Option<(usize, CancellationToken)>,
        break_after: Option<usize>,
        broken: CancellationToken,
    }

    #[async_trait]
    impl Keyboard for Paper {
        async fn key(&self, keysym: u32, down: bool) -> Outcome<()> {
            let mut keys = self.keys.lock().unwrap();
            keys.push((keysym, down));
            if let Some((count, stop)) = &self.cancel_after
                && keys.len() == *count
            {
                stop.cancel();
            }
            if self.break_after == Some(keys.len()) {
                return Err(Failure::build("the key broke"));
            }
            Ok(())
        }

        async fn flush(&self) -> Outcome<()> {
            Ok(())
        }

        async fn lost(&self) -> Failure {
            self.broken.cancelled().await;
            Failure::build("the cable is cut")
        }
    }

    impl Paper {
        fn held(&self) -> Vec<u32> {
            let mut held = Vec::new();
            for (keysym, down) in self.keys.lock().unwrap().iter() {
                held.retain(|key| key != keysym);
                if *down {
                    held.push(*keysym);
                }
            }
            held
        }
    }

    async fn typed(
        paper: &Paper,
        text: &str,
        interval: u64,
        stop: &CancellationToken,
    ) -> Outcome<TypingReport> {
        let events = parse(text).unwrap().expand();
        let interval = Duration::from_millis(interval);
        type_events(paper, &events, interval, &Events::silent(), stop).await
    }

    #[tokio::test]
    async fn paces_keys_and_accounts_for_waits() {
        let paper = Paper::default();
        let report = typed(&paper, "aB<wait200ms>c", 10, &CancellationToken::new()).await.unwrap();
        let keys: Vec<u32> = paper.keys.lock().unwrap().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [0x61, 0x61, 0xffe1, 0x42, 0x42, 0xffe1, 0x63, 0x63]);
        assert_eq!((report.keys, report.released), (8, vec![]));
        assert!((200..400).contains(&report.waiting.as_millis()), "{:?}", report.waiting);
        assert!((80..300).contains(&report.typing.as_millis()), "{:?}", report.typing);
    }

    #[tokio::test]
    async fn lets_go_of_what_the_command_left_held() {
        let paper = Paper::default();
        let text = "<leftCtrlOn><leftAltOn>c";
        let report = typed(&paper, text, 0, &CancellationToken::new()).await.unwrap();
        assert_eq!(report.released, [0xffe9, 0xffe3]);
        assert_eq!(paper.held(), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_cancel_is_immediate_and_lets_go() {
        let stop = CancellationToken::new();
        let paper = Paper { cancel_after: Some((2, stop.clone())), ..Paper::default() };
        let start = Instant::now();
        let failure = typed(&paper, "<leftCtrlOn>X<wait1h>", 60_000, &stop);
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
        };
        let (failure, ()) = tokio::join!(failure, cancel);
        assert_eq!(failure.unwrap_err().kind().exit_code(), 130);
        assert!(start.elapsed() < Duration::from_secs(1));
        assert_eq!(paper.held(), Vec::<u32>::new());
        assert!(!paper.keys.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_error_stops_typing_and_lets_go() {
        let paper = Paper { break_after: Some(3), ..Paper::default() };
        let failure =
            typed(&paper, "<leftCtrlOn>abc", 0, &CancellationToken::new()).await.unwrap_err();
        assert!(failure.to_string().contains("the key broke"), "{failure}");
        assert!(failure.to_string().contains("2 of 7 events"), "{failure}");
        assert_eq!(paper.held(), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_lost_connection_ends_a_long_wait() {
        let paper = Paper::default();
        paper.broken.cancel();
        let failure = typed(&paper, "<wait1h>", 0, &CancellationToken::new()).await.unwrap_err();
        assert!(failure.to_string().contains("the cable is cut"), "{failure}");
    }

    #[tokio::test]
    async fn progress_is_said_seldom_and_at_the_end() {
        let (says, said) = Events::recorded();
        let events = parse(&"x".repeat(500)).unwrap().expand();
        let stop = CancellationToken::new();
        type_events(&Paper::default(), &events, Duration::ZERO, &says, &stop).await.unwrap();
        let said = said.lock().unwrap();
        assert!((2..20).contains(&said.len()), "{}", said.len());
        assert_eq!(said.last(), Some(&Event::Typing { index: 1000, count: 1000 }));
    }
}
