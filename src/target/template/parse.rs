// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! Reads a template: text, `{{ actions }}`, conditionals.
//!
//! The grammar is the part of Go's `text/template` that answer files need: fields (`.mirror`),
//! functions with arguments, pipelines, parentheses, text and number literals, comments, trim
//! markers, `if`/`else if`/`else`/`end`. Loops and definitions are refused by name.

use super::TemplateError;
use super::functions;
use crate::target::finding::suggestion;

/// Deepest nesting of conditionals and parentheses.
const MAX_DEPTH: usize = 32;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text as it stands.
    Text(String),
    /// The value of a pipeline.
    Output(Pipeline),
    /// The pieces of the first branch whose condition holds; the last may have none.
    If(Vec<(Option<Pipeline>, Vec<Piece>)>),
}

/// Commands, each of which gets the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline(pub(super) Vec<Command>);

/// One command of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    /// Where it starts, as a byte offset.
    pub(super) at: usize,
    /// A function's name; `None` for a lone value.
    pub(super) function: Option<String>,
    /// Arguments, or the lone value.
    pub(super) arguments: Vec<Term>,
}

/// A value in a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// `.name` or `.Vars.name`, with its byte offset.
    Variable(usize, String),
    /// A literal.
    Literal(String),
    /// A pipeline in parentheses.
    Group(Pipeline),
}

/// Reads a template. Unknown functions and wrong numbers of arguments are mistakes here, whether
/// or not the branch they stand in is taken.
pub(super) fn parse(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut parser = Parser { source, at: 0 };
    let (pieces, end) = parser.pieces(0)?;
    match end {
        End::Source => Ok(pieces),
        End::Else(at, _) => Err(parser.wrong(at, "`else` without `if`")),
        End::Closed(at) => Err(parser.wrong(at, "`end` without `if`")),
    }
}

/// What ended a run of pieces.
enum End {
    Source,
    Else(usize, Option<Pipeline>),
    Closed(usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Field(String),
    Literal(String),
    Open,
    Close,
    Pipe,
}

struct Parser<'a> {
    source: &'a str,
    at: usize,
}

/// The tokens of one action, each with its byte offset.
type Tokens = Vec<(usize, Token)>;

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, at: usize, message: impl Into<String>) -> TemplateError {
        TemplateError::at(self.source, at, message)
    }

    /// Pieces up to an `else` or `end` that is not theirs.
    fn pieces(&mut self, depth: usize) -> Result<(Vec<Piece>, End), TemplateError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(self.at, "conditionals are nested too deeply"));
        }
        let mut pieces = Vec::new();
        loop {
            let open = self.rest().find("{{");
            let mut text = self.rest().get(..open.unwrap_or(self.rest().len())).unwrap_or_default();
            if self.source.get(..self.at).is_some_and(|before| before.ends_with("-}}")) {
                text = text.trim_start();
            }
            let Some(open) = open else {
                push_text(&mut pieces, text);
                self.at = self.source.len();
                return Ok((pieces, End::Source));
            };
            let after = self.rest().get(open + 2..).unwrap_or_default();
            if ["- ", "-\n", "-\t"].iter().any(|mark| after.starts_with(mark)) {
                text = text.trim_end();
            }
            push_text(&mut pieces, text);
            self.at += open;
            let at = self.at;
            let Some(tokens) = self.action()? else { continue };
            let (word, rest) = match tokens.split_first() {
                Some(((_, Token::Word(word)), rest)) => (word.as_str(), rest),
                _ => ("", tokens.as_slice()),
            };
            match word {
                "if" => pieces.push(self.conditional(at, rest, depth)?),
                "end" if rest.is_empty() => return Ok((pieces, End::Closed(at))),
                "else" => return Ok((pieces, End::Else(at, self.else_condition(at, rest)?))),
                "range" | "with" | "define" | "template" | "block" | "break" | "continue" => {
                    return Err(self.wrong(at, format!("`{word}` is not part of these templates")));
                }
                _ => pieces.push(Piece::Output(self.pipeline_of(at, &tokens)?)),
            }
        }
    }

    fn conditional(
        &mut self,
        at: usize,
        condition: &[(usize, Token)],
        depth: usize,
    ) -> Result<Piece, TemplateError> {
        let mut branches = Vec::new();
        let mut condition = Some(self.pipeline_of(at, condition)?);
        loop {
            let (pieces, end) = self.pieces(depth + 1)?;
            let last = condition.is_none();
            branches.push((condition, pieces));
            match end {
                End::Closed(_) => return Ok(Piece::If(branches)),
                End::Source => return Err(self.wrong(at, "this `if` has no `end`")),
                End::Else(at, _) if last => return Err(self.wrong(at, "a second `else`")),
                End::Else(_, next) => condition = next,
            }
        }
    }

    fn else_condition(
        &self,
        at: usize,
        tokens: &[(usize, Token)],
    ) -> Result<Option<Pipeline>, TemplateError> {
        match tokens.split_first() {
            None => Ok(None),
            Some(((_, Token::Word(word)), rest)) if word == "if" => {
                self.pipeline_of(at, rest).map(Some)
            }
            Some(((at, _), _)) => Err(self.wrong(*at, "after `else` only `if` may follow")),
        }
    }

    /// Reads from `{{` to `}}`; `None` for a comment.
    fn action(&mut self) -> Result<Option<Tokens>, TemplateError> {
        let start = self.at;
        self.at += 2;
        if ["- ", "-\n", "-\t"].iter().any(|mark| self.rest().starts_with(mark)) {
            self.at += 1;
        }
        if self.rest().trim_start().starts_with("/*") {
            let Some(end) = self.rest().find("*/") else {
                return Err(self.wrong(start, "this comment has no `*/`"));
            };
            self.at += end + 2;
            let Some(close) = self.rest().find("}}") else {
                return Err(self.wrong(start, "`{{` without `}}`"));
            };
            self.at += close + 2;
            return Ok(None);
        }
        let mut tokens = Vec::new();
        loop {
            let blank = self.rest().len() - self.rest().trim_start().len();
            self.at += blank;
            let trims = blank > 0 && self.rest().starts_with("-}}");
            if trims || self.rest().starts_with("}}") {
                self.at += if trims { 3 } else { 2 };
                if tokens.is_empty() {
                    return Err(self.wrong(start, "nothing stands between `{{` and `}}`"));
                }
                return Ok(Some(tokens));
            }
            let at = self.at;
            let Some(next) = self.rest().chars().next() else {
                return Err(self.wrong(start, "`{{` without `}}`"));
            };
            let token = self.token(start, next)?;
            tokens.push((at, token));
        }
    }

    fn token(&mut self, start: usize, next: char) -> Result<Token, TemplateError> {
        let single = match next {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            '|' => Some(Token::Pipe),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok(token);
        }
        match next {
            '"' => self.quoted(),
            '`' => {
                let body = self.rest().get(1..).unwrap_or_default();
                let Some(end) = body.find('`') else {
                    return Err(self.wrong(self.at, "this raw text has no closing backquote"));
                };
                let text = body.get(..end).unwrap_or_default().to_owned();
                self.at += end + 2;
                Ok(Token::Literal(text))
            }
            '.' => {
                self.at += 1;
                let name = self.take(|c| c.is_alphanumeric() || c == '_' || c == '.');
                if name.is_empty() || name.starts_with('.') || name.ends_with('.') {
                    return Err(self.wrong(self.at, "a variable's name must follow `.`"));
                }
                Ok(Token::Field(name))
            }
            c if c.is_ascii_digit() || c == '-' => {
                self.at += c.len_utf8();
                let digits = self.take(|c| c.is_ascii_digit() || c == '.');
                if c == '-' && digits.is_empty() {
                    return Err(self.wrong(self.at - 1, "unexpected `-`"));
                }
                Ok(Token::Literal(format!("{c}{digits}")))
            }
            c if c.is_alphabetic() || c == '_' => {
                Ok(Token::Word(self.take(|c| c.is_alphanumeric() || c == '_')))
            }
            '$' => Err(self.wrong(self.at, "`$` variables are not part of these templates")),
            '{' => Err(self.wrong(start, "`{{` without `}}`")),
            c => Err(self.wrong(self.at, format!("unexpected `{}`", c.escape_default()))),
        }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default().to_owned();
        self.at += end;
        text
    }

    fn quoted(&mut self) -> Result<Token, TemplateError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + offset + 1;
                    return Ok(Token::Literal(text));
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, c @ ('"' | '\\' | '\''))) => text.push(c),
                    _ => return Err(self.wrong(start + offset, "unknown escape in a text")),
                },
                c => text.push(c),
            }
        }
        Err(self.wrong(start, "this text has no closing quote"))
    }

    fn pipeline_of(&self, at: usize, tokens: &[(usize, Token)]) -> Result<Pipeline, TemplateError> {
        let mut tokens = tokens;
        let pipeline = self.pipeline(at, &mut tokens, 0)?;
        match tokens.first() {
            None => Ok(pipeline),
            Some((at, _)) => Err(self.wrong(*at, "`)` without `(`")),
        }
    }

    fn pipeline(
        &self,
        at: usize,
        tokens: &mut &[(usize, Token)],
        depth: usize,
    ) -> Result<Pipeline, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(at, "parentheses are nested too deeply"));
        }
        let mut commands = Vec::new();
        loop {
            let command = self.command(at, tokens, depth, !commands.is_empty())?;
            commands.push(command);
            match tokens.split_first() {
                Some(((_, Token::Pipe), rest)) => *tokens = rest,
                _ => return Ok(Pipeline(commands)),
            }
        }
    }

    fn command(
        &self,
        at: usize,
        tokens: &mut &[(usize, Token)],
        depth: usize,
        piped: bool,
    ) -> Result<Command, TemplateError> {
        let at = tokens.first().map_or(at, |(at, _)| *at);
        let mut function = None;
        let mut arguments = Vec::new();
        while let Some(((at, token), rest)) = tokens.split_first() {
            match token {
                Token::Pipe | Token::Close => break,
                Token::Word(word) if word == "true" || word == "false" => {
                    arguments.push(Term::Literal(word.clone()));
                }
                Token::Word(word) if function.is_none() && arguments.is_empty() => {
                    function = Some(word.clone());
                }
                Token::Word(word) => {
                    let message = format!("put parentheses around `{word}` and its arguments");
                    return Err(self.wrong(*at, message));
                }
                Token::Field(name) => arguments.push(self.variable(*at, name)?),
                Token::Literal(text) => arguments.push(Term::Literal(text.clone())),
                Token::Open => {
                    *tokens = rest;
                    arguments.push(Term::Group(self.pipeline(*at, tokens, depth + 1)?));
                    match tokens.split_first() {
                        Some(((_, Token::Close), rest)) => *tokens = rest,
                        _ => return Err(self.wrong(*at, "`(` without `)`")),
                    }
                    continue;
                }
            }
            *tokens = rest;
        }
        self.sound(at, function.as_deref(), &arguments, piped)?;
        Ok(Command { at, function, arguments })
    }

    /// Function known, number of arguments right.
    fn sound(
        &self,
        at: usize,
        function: Option<&str>,
        arguments: &[Term],
        piped: bool,
    ) -> Result<(), TemplateError> {
        let Some(name) = function else {
            return match (arguments.len(), piped) {
                (1, false) => Ok(()),
                (0, _) => Err(self.wrong(at, "a value is missing")),
                (_, true) => Err(self.wrong(at, "after `|` a function must follow")),
                _ => Err(self.wrong(at, "two values without a function between them")),
            };
        };
        let Some(known) = functions::find(name) else {
            let near = suggestion(name, functions::names(), "functions");
            return Err(self.wrong(at, format!("unknown function `{name}`{near}")));
        };
        let count = arguments.len() + usize::from(piped);
        if (known.least..=known.most).contains(&count) {
            return Ok(());
        }
        Err(self.wrong(at, format!("write `{}`; here are {count} arguments", known.usage)))
    }

    fn variable(&self, at: usize, name: &str) -> Result<Term, TemplateError> {
        let name = name.strip_prefix("Vars.").unwrap_or(name);
        if name.contains('.') {
            return Err(self.wrong(at, format!("`.{name}`: variables have no parts")));
        }
        Ok(Term::Variable(at, name.to_owned()))
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}
