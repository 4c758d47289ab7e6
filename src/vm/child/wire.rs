// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! QMP on the wire: lines of JSON, each no longer than a bound, each one of four kinds.
//!
//! Facts: QEMU `docs/interop/qmp-spec.rst`. The peer may have been taken over by a hostile guest,
//! so nothing here trusts its sizes or shapes.

use serde_json::Value;

/// Longest line taken. A `query-blockstats` of a few disks is about 10 KiB.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// One message from the monitor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// The first message of a session.
    Greeting,
    /// A command succeeded.
    Return { id: u64, value: Value },
    /// A command failed; the monitor's own text.
    Error { id: Option<u64>, text: String },
    /// Something happened.
    Event { name: String, data: Value },
}

/// The peer does not speak QMP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a QMP line is longer than {LONGEST_LINE} bytes")]
    LineTooLong,
    #[error("not a QMP message: {0}")]
    NotQmp(String),
}

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    /// Takes bytes as they came.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end, if there is one.
    ///
    /// # Errors
    /// A line, finished or not, is longer than [`LONGEST_LINE`].
    pub(crate) fn next_line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > LONGEST_LINE {
                Err(WireError::LineTooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.searched + found;
        if end > LONGEST_LINE {
            return Err(WireError::LineTooLong);
        }
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

/// Understands one line.
pub(crate) fn parse(line: &[u8]) -> Result<Message, WireError> {
    let not_qmp = || {
        let text: String = String::from_utf8_lossy(line).chars().take(120).collect();
        WireError::NotQmp(text.escape_debug().to_string())
    };
    let mut value: Value = serde_json::from_slice(line).map_err(|_| not_qmp())?;
    let object = value.as_object_mut().ok_or_else(not_qmp)?;
    let id = object.get("id").and_then(Value::as_u64);
    if let Some(Value::String(name)) = object.get("event") {
        let name = name.clone();
        return Ok(Message::Event { name, data: object.remove("data").unwrap_or_default() });
    }
    if let Some(value) = object.remove("return") {
        return Ok(Message::Return { id: id.ok_or_else(not_qmp)?, value });
    }
    if let Some(error) = object.get("error") {
        let text = error.get("desc").and_then(Value::as_str).ok_or_else(not_qmp)?;
        return Ok(Message::Error { id, text: text.to_owned() });
    }
    if object.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    Err(not_qmp())
}

/// A command as a line.
pub(crate) fn command(id: u64, name: &str, arguments: &Value) -> Vec<u8> {
    let mut object = serde_json::json!({ "execute": name, "id": id });
    if !arguments.is_null() {
        object["arguments"] = arguments.clone();
    }
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_four_kinds() {
        let greeting = br#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;
        assert_eq!(parse(greeting).unwrap(), Message::Greeting);
        assert_eq!(
            parse(br#"{"return": {"a": 1}, "id": 7}"#).unwrap(),
            Message::Return { id: 7, value: json!({"a": 1}) }
        );
        assert_eq!(
            parse(br#"{"error": {"class": "GenericError", "desc": "no"}, "id": 8}"#).unwrap(),
            Message::Error { id: Some(8), text: "no".into() }
        );
        assert_eq!(
            parse(br#"{"timestamp": {}, "event": "RESET", "data": {"guest": true}}"#).unwrap(),
            Message::Event { name: "RESET".into(), data: json!({"guest": true}) }
        );
        for bad in ["", "[]", "{}", "null", "{\"return\": {}}", "{\"error\": 1}", "\u{1b}[2J"] {
            assert!(matches!(parse(bad.as_bytes()), Err(WireError::NotQmp(_))), "{bad}");
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LONGEST_LINE]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"xx\n");
        assert_eq!(lines.next_line(), Err(WireError::LineTooLong));
    }

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in(
            texts in prop::collection::vec("[ -~]{0,80}", 0..20),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|t| format!("{t}\r\n").into_bytes()).collect();
            let mut lines = Lines::default();
            let mut out = Vec::new();
            let (mut rest, mut cut) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                lines.push(now);
                while let Some(line) = lines.next_line().unwrap() {
                    out.push(String::from_utf8(line).unwrap());
                }
                rest = later;
            }
            prop_assert_eq!(out, texts);
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut lines = Lines::default();
            lines.push(&bytes);
            while let Ok(Some(_)) = lines.next_line() {}
        }

        #[test]
        fn any_json_is_a_message_or_an_error(
            key in "QMP|event|return|error|id|data",
            value in "null|1|-1|\"x\"|\\[\\]|\\{\"desc\":1\\}|\\{\\}|1e999|99999999999999999999",
        ) {
            let _ = parse(format!("{{\"{key}\":{value}}}").as_bytes());
        }
    }
}
