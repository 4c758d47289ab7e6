// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! YAML text as a tree in which every node knows its place.
//!
//! The subset that a target needs, YAML 1.2 core: one document; mappings with text keys, each key
//! once; anchors and aliases within limits; no tags but `!!str`; no merge keys.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::target::finding::{Finding, Position};

/// Largest file, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most nodes, aliases expanded.
const MAX_NODES: usize = 20_000;
/// Most bytes of text, aliases expanded.
const MAX_TEXT: usize = 4 << 20;

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it starts.
    pub(crate) position: Position,
    /// The value.
    pub(crate) value: Value,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A scalar, as text.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file; every key once.
    Mapping(Vec<Entry>),
}

/// A scalar's text and what its notation says about it.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// The text after escapes and folding.
    pub(crate) text: String,
    /// Unquoted: may be a number, a boolean or nothing.
    pub(crate) plain: bool,
    /// How places within the text map to places in the file.
    layout: Layout,
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// On one line; the text starts so many columns after the node.
    Line(usize),
    /// A literal block: the file line of its first text line, and its indentation.
    Literal(usize, usize),
    /// Folded or escaped: only the start is known.
    Opaque,
}

/// One key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) position: Position,
    /// The value.
    pub(crate) node: Node,
}

impl Node {
    /// What kind of value it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(s) if s.is_null() => "nothing",
            Value::Scalar(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The text, when this is a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The place in the file of line and column (from 1) of a scalar's text.
    pub(crate) fn within(&self, line: usize, column: usize) -> Position {
        let mut position = self.position.clone();
        if let Value::Scalar(scalar) = &self.value {
            match scalar.layout {
                Layout::Line(offset) if line == 1 => position.column += offset + column - 1,
                Layout::Literal(first, indent) => {
                    position.line = first + line - 1;
                    position.column = indent + column;
                }
                _ => {}
            }
        }
        position
    }
}

impl Scalar {
    /// An unquoted empty value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// Reads one YAML document. `None` when the file holds no value at all.
///
/// # Errors
/// The one mistake that ends the reading: size, encoding, syntax, a repeated key, a limit.
pub(crate) fn parse(file: &Arc<str>, bytes: &[u8]) -> Result<Option<Node>, Finding> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", bytes.len());
        return Err(Finding::error(Position::whole(file), "", message));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| not_utf8(file, bytes, e.valid_up_to()))?;
    Builder {
        file,
        source: text,
        parser: Parser::new_from_str_with_options(
            text,
            granit_parser::options! { emit_comments: false },
        ),
        anchors: HashMap::new(),
        nodes: 0,
        bytes: 0,
    }
    .document()
}

fn not_utf8(file: &Arc<str>, bytes: &[u8], valid: usize) -> Finding {
    let before = String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()).into_owned();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let position = Position { file: Arc::clone(file), line, column };
    Finding::error(position, "", format!("byte 0x{byte:02x} is not UTF-8 text"))
}

struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
}

struct Builder<'a> {
    file: &'a Arc<str>,
    source: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
}

impl<'a> Builder<'a> {
    fn document(mut self) -> Result<Option<Node>, Finding> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart { .. } | Event::DocumentEnd | Event::StreamStart => {}
                _ if root.is_some() => {
                    let message = "a second document starts here; a file holds one";
                    return Err(Finding::error(self.position(&span), "", message));
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        Ok(root.filter(|n| n.kind() != "nothing"))
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Finding> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(pair)) => Ok(Some(pair)),
            Some(Err(error)) => {
                let marker = error.marker();
                let position = Position {
                    file: Arc::clone(self.file),
                    line: marker.line().max(1),
                    column: marker.col() + 1,
                };
                Err(Finding::error(position.clone(), "", self.syntax(&position, &error.info())))
            }
        }
    }

    fn syntax(&self, position: &Position, said: &str) -> String {
        let line = self.source.lines().nth(position.line - 1).unwrap_or_default();
        let indentation = line.len() - line.trim_start().len();
        if line.get(..indentation).unwrap_or_default().contains('\t') {
            return "this line is indented with a tab; YAML wants spaces".to_owned();
        }
        format!("not valid YAML: {said}")
    }

    fn position(&self, span: &Span) -> Position {
        let marker = span.start;
        Position {
            file: Arc::clone(self.file),
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }

    fn spend(&mut self, position: &Position, nodes: usize, bytes: usize) -> Result<(), Finding> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes <= MAX_NODES && self.bytes <= MAX_TEXT {
            return Ok(());
        }
        let message = format!(
            "the document grows beyond {MAX_NODES} values or {MAX_TEXT} bytes (aliases count in \
             full)"
        );
        Err(Finding::error(position.clone(), "", message))
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Finding> {
        let position = self.position(span);
        if depth > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(Finding::error(position, "", message));
        }
        let (nodes, bytes) = (self.nodes, self.bytes);
        self.spend(&position, 1, 0)?;
        let (anchor, value) = match event {
            Event::Alias(id) => return self.alias(id, position),
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(&position, 0, text.len())?;
                let tagged = self.tag(tag.as_deref(), span)?;
                let plain = style == ScalarStyle::Plain && !tagged;
                let layout = self.layout(style, span, &text);
                (anchor, Value::Scalar(Scalar { text: text.into_owned(), plain, layout }))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), span)?;
                (anchor, Value::Sequence(self.sequence(depth)?))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), span)?;
                (anchor, Value::Mapping(self.mapping(depth)?))
            }
            _ => return Err(Finding::error(position, "", "not valid YAML: a value is missing")),
        };
        let node = Node { position, value };
        if anchor != 0 {
            let (nodes, bytes) = (self.nodes - nodes, self.bytes - bytes);
            self.spend(&node.position, nodes, bytes)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes });
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, position: Position) -> Result<Node, Finding> {
        let Some((nodes, bytes)) = self.anchors.get(&id).map(|a| (a.nodes, a.bytes)) else {
            return Err(Finding::error(position, "", "an alias stands inside its own anchor"));
        };
        self.spend(&position, nodes, bytes)?;
        match self.anchors.get(&id) {
            Some(anchored) => Ok(anchored.node.clone()),
            None => Err(Finding::error(position, "", "unknown alias")),
        }
    }

    /// True when the tag makes the scalar text.
    fn tag(&self, tag: Option<&Tag>, span: &Span) -> Result<bool, Finding> {
        let Some(tag) = tag else { return Ok(false) };
        if matches!(tag.core_suffix(), Some("str")) || tag.original() == "!" {
            return Ok(true);
        }
        if matches!(tag.core_suffix(), Some("map" | "seq" | "int" | "bool" | "null")) {
            return Ok(false);
        }
        let message = format!("the tag `{}` means nothing here", tag.original());
        let position = span.tag_span().map_or_else(|| self.position(span), |t| self.position(&t));
        Err(Finding::error(position, "", message))
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Finding> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
        Ok(items)
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<Entry>, Finding> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, &span, depth + 1)?;
            let Some(text) = key.text().map(str::to_owned) else {
                return Err(Finding::error(key.position, "", self.odd_key(&span)));
            };
            if text == "<<" {
                let message = "merge keys (`<<`) are not read; share parts with `extends`";
                return Err(Finding::error(key.position, "", message));
            }
            if let Some(line) = seen.insert(text.clone(), key.position.line) {
                let message = format!("the key `{text}` stands twice; first in line {line}");
                return Err(Finding::error(key.position, "", message));
            }
            let Some((event, span)) = self.next()? else { break };
            let node = self.node(event, &span, depth + 1)?;
            entries.push(Entry { key: text, position: key.position, node });
        }
        Ok(entries)
    }

    fn odd_key(&self, span: &Span) -> &'static str {
        let before = span.start.byte_offset().and_then(|end| self.source.get(..end));
        if before.is_some_and(|text| text.trim_end().ends_with('{')) {
            return "a value that starts with `{{` needs quotes around it in YAML";
        }
        "a key must be text"
    }

    fn layout(&self, style: ScalarStyle, span: &Span, text: &str) -> Layout {
        let source = span.slice(self.source).unwrap_or_default();
        match style {
            ScalarStyle::Plain if source.trim_end() == text => Layout::Line(0),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
                if source.get(1..source.len().saturating_sub(1)) == Some(text) =>
            {
                Layout::Line(1)
            }
            ScalarStyle::Literal => self.literal(span, text),
            _ => Layout::Opaque,
        }
    }

    /// The span of a block starts at its first line that is not blank.
    fn literal(&self, span: &Span, text: &str) -> Layout {
        let blank = text.lines().take_while(|l| l.trim().is_empty()).count();
        let first = text.lines().nth(blank).unwrap_or_default();
        let mut written = self.source.lines().enumerate().skip(span.start.line().saturating_sub(1));
        let Some((index, line)) = written.find(|(_, l)| l.ends_with(first) && !l.trim().is_empty())
        else {
            return Layout::Opaque;
        };
        let indent = line.chars().count().saturating_sub(first.chars().count());
        Layout::Literal((index + 1).saturating_sub(blank), indent)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<Node>, String> {
        parse(&"t.yaml".into(), text.as_bytes()).map_err(|f| f.to_string())
    }

    #[test]
    fn keeps_text_and_places() {
        let root = read("a: 0644\nb:\n  - \"x {{ y\"\n  - |\n    one\n    two\n").unwrap().unwrap();
        assert_eq!(root.get("a").and_then(Node::text), Some("0644"));
        let Value::Sequence(items) = &root.get("b").unwrap().value else { panic!() };
        assert_eq!(items[0].within(1, 3).to_string(), "t.yaml:3:8");
        assert_eq!(items[1].text(), Some("one\ntwo\n"));
        assert_eq!(items[1].within(2, 1).to_string(), "t.yaml:6:5");
    }

    #[test]
    fn names_the_place_of_each_mistake() {
        for (text, wanted) in [
            ("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: the key `a` stands twice; first in line 1"),
            ("a:\n\tb: 1\n", "t.yaml:2:"),
            ("a: {{ .x }}\n", "t.yaml:1:5: a value that starts with `{{` needs quotes"),
            ("a: 1\n---\nb: 1\n", "t.yaml:3:1: a second document"),
            ("a: !env X\n", "t.yaml:1:4: the tag `!env`"),
            ("a: &x [*x]\n", "t.yaml:1:8: an alias stands inside its own anchor"),
            ("a: *nope\n", "t.yaml:1:4: not valid YAML"),
            ("a: [1, 2\n", "t.yaml:"),
            ("<<: {a: 1}\n", "t.yaml:1:1: merge keys"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.starts_with(wanted), "{text:?}: {message}");
        }
        assert!(read("a:\n\tb: 1\n").unwrap_err().contains("tab"));
        let message = parse(&"t".into(), b"a: 1\nb: \xff\n").unwrap_err().to_string();
        assert_eq!(message, "t:2:4: byte 0xff is not UTF-8 text");
    }

    #[test]
    fn stops_bombs() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        assert!(read(&bomb).unwrap_err().contains("aliases count in full"));
        let deep = format!("a: {}1{}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep).unwrap_err().contains("nested deeper"));
        assert!(read(&" ".repeat(MAX_BYTES + 1)).unwrap_err().contains("at most"));
        assert!(read("").unwrap().is_none());
        assert!(read("# nothing\n").unwrap().is_none());
    }

    proptest! {
        #[test]
        fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&"t".into(), &bytes);
        }

        #[test]
        fn never_panics_on_yaml_like_text(text in "([-?:,\\[\\]{}#&*!|>'\"%@`\\t \\n~.<a-c0-2]){0,120}") {
            if let Ok(Some(node)) = parse(&"t".into(), text.as_bytes()) {
                let _ = node.within(3, 3);
            }
        }

        #[test]
        fn double_quoted_text_comes_back(text in "[^\\x00-\\x1f\\x7f-\\u{9f}\\u{feff}\\u{fffe}\\u{ffff}]{0,40}") {
            let quoted = format!("a: \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let root = parse(&"t".into(), quoted.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(root.get("a").unwrap().text().unwrap(), text);
        }
    }
}
