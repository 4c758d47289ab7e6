// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A QMP session: commands with ids and deadlines, events in order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire::{self, Lines, Message, WireError};

/// Events kept for a reader that is busy; the monitor waits when there are more.
const EVENT_ROOM: usize = 256;

/// What happened to a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the monitor refused `{command}`: {text}")]
    Refused { command: String, text: String },
    #[error("the monitor did not answer `{command}` within {} s", .after.as_secs_f32())]
    Silent { command: String, after: Duration },
    #[error("the monitor's control channel is closed: {0}")]
    Closed(String),
}

/// One event: its name and data.
pub(crate) type QmpEvent = (String, Value);

type Answer = Result<Value, String>;

/// Who waits for which answer; closed with the reason once the session has ended.
enum Pending {
    Open(HashMap<u64, oneshot::Sender<Answer>>),
    Closed(String),
}

/// An open session. Dropping it closes the connection.
pub(crate) struct Qmp {
    lines: mpsc::Sender<Vec<u8>>,
    pending: Arc<Mutex<Pending>>,
    next_id: AtomicU64,
    tasks: [JoinHandle<()>; 2],
}

impl Qmp {
    /// Connects to `socket` and negotiates; all within `deadline`.
    pub(crate) async fn connect(
        socket: &Path,
        deadline: Duration,
    ) -> Result<(Self, mpsc::Receiver<QmpEvent>), QmpError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|error| QmpError::Closed(error.to_string()))?;
        Self::negotiate(stream, deadline).await
    }

    /// Waits for the greeting and leaves negotiation mode.
    pub(crate) async fn negotiate(
        stream: UnixStream,
        deadline: Duration,
    ) -> Result<(Self, mpsc::Receiver<QmpEvent>), QmpError> {
        let (from, to) = stream.into_split();
        let (greeted, greeting) = oneshot::channel();
        let (sender, events) = mpsc::channel(EVENT_ROOM);
        let (lines, outgoing) = mpsc::channel(16);
        let pending = Arc::new(Mutex::new(Pending::Open(HashMap::new())));
        let reader =
            Reader { pending: Arc::clone(&pending), events: sender, greeted: Some(greeted) };
        let tasks = [tokio::spawn(reader.run(from)), tokio::spawn(write(to, outgoing))];
        let session = Self { lines, pending, next_id: AtomicU64::new(1), tasks };
        match timeout(deadline, greeting).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(QmpError::Closed(session.reason())),
            Err(_) => {
                return Err(QmpError::Silent { command: "greeting".into(), after: deadline });
            }
        }
        session.execute("qmp_capabilities", Value::Null, deadline).await?;
        Ok((session, events))
    }

    /// Runs one command. When `deadline` passes, the answer is no longer awaited, but the monitor may
    /// still do it.
    pub(crate) async fn execute(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let line = wire::command(id, command, &arguments);
        let (sender, answer) = oneshot::channel();
        match &mut *lock(&self.pending) {
            Pending::Open(waiting) => waiting.insert(id, sender),
            Pending::Closed(reason) => return Err(QmpError::Closed(reason.clone())),
        };
        let exchange = async {
            // When the writer is gone, the reader is about to say why.
            let _ = self.lines.send(line).await;
            answer.await
        };
        let outcome = timeout(deadline, exchange).await;
        if let Pending::Open(waiting) = &mut *lock(&self.pending) {
            waiting.remove(&id);
        }
        match outcome {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(text))) => Err(QmpError::Refused { command: command.to_owned(), text }),
            Ok(Err(_)) => Err(QmpError::Closed(self.reason())),
            Err(_) => Err(QmpError::Silent { command: command.to_owned(), after: deadline }),
        }
    }

    /// Why the session ended; empty while it is open.
    pub(crate) fn reason(&self) -> String {
        match &*lock(&self.pending) {
            Pending::Open(_) => String::new(),
            Pending::Closed(reason) => reason.clone(),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if to.write_all(&line).await.is_err() {
            // The reader sees the end of the connection too and reports it.
            return;
        }
    }
}

struct Reader {
    pending: Arc<Mutex<Pending>>,
    events: mpsc::Sender<QmpEvent>,
    greeted: Option<oneshot::Sender<()>>,
}

impl Reader {
    async fn run(mut self, mut from: OwnedReadHalf) {
        let reason = match self.read(&mut from).await {
            Ok(()) => "it was closed".to_owned(),
            Err(reason) => reason,
        };
        // Dropping the senders wakes all who wait.
        *lock(&self.pending) = Pending::Closed(reason);
    }

    async fn read(&mut self, from: &mut OwnedReadHalf) -> Result<(), String> {
        let mut lines = Lines::default();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut chunk).await.map_err(|error| error.to_string())?;
            if count == 0 {
                return Ok(());
            }
            lines.push(chunk.get(..count).unwrap_or_default());
            while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
                if !line.is_empty() {
                    self.take(&line).await.map_err(|error| error.to_string())?;
                }
            }
        }
    }

    async fn take(&mut self, line: &[u8]) -> Result<(), WireError> {
        match wire::parse(line)? {
            Message::Greeting => {
                if let Some(greeted) = self.greeted.take() {
                    // Nobody listens any more when the deadline has passed.
                    let _ = greeted.send(());
                }
            }
            Message::Return { id, value } => self.answer(id, Ok(value)),
            Message::Error { id: Some(id), text } => self.answer(id, Err(text)),
            Message::Error { id: None, text } => return Err(WireError::NotQmp(text)),
            Message::Event { name, data } => {
                // A reader that went away wants no events.
                let _ = self.events.send((name, data)).await;
            }
        }
        Ok(())
    }

    fn answer(&self, id: u64, answer: Answer) {
        if let Pending::Open(waiting) = &mut *lock(&self.pending)
            && let Some(sender) = waiting.remove(&id)
        {
            // The asker may have given up.
            let _ = sender.send(answer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    /// Plays a monitor: greets, then answers each command with the next of `answers` (`ID` is replaced).
    fn play(stream: UnixStream, answers: Vec<&'static str>) {
        tokio::spawn(async move {
            let (from, mut to) = stream.into_split();
            let mut commands = BufReader::new(from).lines();
            to.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
            for answer in std::iter::once("{\"return\": {}, \"id\": ID}\n").chain(answers) {
                let line = commands.next_line().await.unwrap().unwrap();
                let command: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace("ID", &command["id"].to_string());
                to.write_all(answer.as_bytes()).await.unwrap();
            }
            // Held open until the client leaves.
            while let Ok(Some(_)) = commands.next_line().await {}
        });
    }

    async fn session(answers: Vec<&'static str>) -> (Qmp, mpsc::Receiver<QmpEvent>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        play(theirs, answers);
        Qmp::negotiate(ours, SOON).await.unwrap()
    }

    #[tokio::test]
    async fn answers_errors_and_events_find_their_way() {
        let (qmp, mut events) = session(vec![
            "{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n{\"return\": 1, \"id\": ID}\n",
            "{\"error\": {\"desc\": \"no such device\"}, \"id\": ID}\n",
        ])
        .await;
        assert_eq!(qmp.execute("a", json!({"x": 1}), SOON).await.unwrap(), json!(1));
        let error = qmp.execute("b", Value::Null, SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "the monitor refused `b`: no such device");
        assert_eq!(events.recv().await.unwrap(), ("RESET".into(), json!({"guest": true})));
        let error = qmp.execute("c", Value::Null, SOON).await.unwrap_err();
        assert!(matches!(error, QmpError::Silent { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_peer_that_speaks_nonsense_ends_the_session() {
        let (qmp, mut events) = session(vec!["PROMPT> \u{7}\n"]).await;
        let error = qmp.execute("a", Value::Null, SOON).await.unwrap_err();
        assert_eq!(
            error,
            QmpError::Closed("not a QMP message: PROMPT> \\u{7}".into()),
            "control characters are escaped"
        );
        assert_eq!(events.recv().await, None);
        assert!(matches!(qmp.execute("b", Value::Null, SOON).await, Err(QmpError::Closed(_))));
    }

    #[tokio::test]
    async fn no_greeting_is_an_error_and_not_a_hang() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Qmp::negotiate(ours, SOON).await.err().unwrap();
        assert!(matches!(error, QmpError::Silent { .. }), "{error}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let error = Qmp::negotiate(ours, SOON).await.err().unwrap();
        assert!(matches!(error, QmpError::Closed(_)), "{error}");
    }
}
