//! Findings: mistakes, each with its file, line, column, the line itself and what would be right.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::Source;

/// Most findings that are shown. Whoever has more than these has one mistake repeated; 100 fill several screens.
const SHOWN_MAX: usize = 100;
/// Most findings that are kept before sorting, so that hostile input cannot fill the memory.
const KEPT_MAX: usize = 10_000;
/// Most doubts that are shown: more are one of them repeated.
const DOUBTS_MAX: usize = 10;
/// Longest part of a line that is shown, in characters. Longer lines are generated, not written.
const EXCERPT_MAX: usize = 160;

/// One mistake, shown where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The line itself. A very long one is cut; one that begins with `…` has been cut to begin at the column.
    pub excerpt: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.what)?;
        if !self.excerpt.trim().is_empty() {
            let before = if self.excerpt.starts_with('…') { 1 } else { self.column.saturating_sub(1) };
            // A tab stays a tab, so that the caret stands below its character whatever the width of a tab is.
            let indent: String =
                self.excerpt.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {}\n  {indent}^", self.excerpt)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Finding {}

/// Where something stands: which source, line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the source.
    pub(super) file: usize,
    /// Line, from 1.
    pub(super) line: usize,
    /// Column in characters, from 1.
    pub(super) column: usize,
}

impl Place {
    /// The beginning of a source.
    pub(super) const fn start(file: usize) -> Self {
        Self { file, line: 1, column: 1 }
    }
}

/// A mistake before its line has been looked up.
type Raw = (Place, String, Option<String>);

/// Collects mistakes. Readers share it, so it is written through a shared reference.
pub(super) struct Findings<'a> {
    sources: &'a [Source<'a>],
    raw: RefCell<Vec<Raw>>,
    doubts: RefCell<BTreeSet<(Place, String)>>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet.
    pub(super) fn new(sources: &'a [Source<'a>]) -> Self {
        Self { sources, raw: RefCell::default(), doubts: RefCell::default() }
    }

    /// Notes a mistake that explains itself.
    pub(super) fn add(&self, at: Place, what: impl Into<String>) {
        self.note(at, what.into(), None);
    }

    /// Notes a mistake and what would be right.
    pub(super) fn hint(&self, at: Place, what: impl Into<String>, hint: impl Into<String>) {
        self.note(at, what.into(), Some(hint.into()));
    }

    fn note(&self, at: Place, what: String, hint: Option<String>) {
        let mut raw = self.raw.borrow_mut();
        if raw.len() < KEPT_MAX {
            raw.push((at, what, hint));
        }
    }

    /// Notes what is no mistake and may not be meant, with what would be right.
    pub(super) fn doubt(&self, at: Place, what: String) {
        let mut doubts = self.doubts.borrow_mut();
        if doubts.len() < KEPT_MAX {
            doubts.insert((at, what));
        }
    }

    /// What was noted so, by place: `? web.yaml:3:5: …`, a line each.
    pub(super) fn doubts(&self) -> Vec<String> {
        let doubts = self.doubts.borrow();
        let line = |(at, what): &(Place, String)| format!("? {}: {what}", self.name(*at));
        let more = doubts.len().saturating_sub(DOUBTS_MAX);
        let more = (more > 0).then(|| format!("? {more} more of these are not shown"));
        doubts.iter().take(DOUBTS_MAX).map(line).chain(more).collect()
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.borrow().is_empty()
    }

    /// A place as people read it: `web.yaml:3:5`.
    pub(super) fn name(&self, place: Place) -> String {
        let file = self.sources.get(place.file).map_or("?", |source| source.name);
        format!("{file}:{}:{}", place.line, place.column)
    }

    /// `value` if nothing is wrong.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Finding>> {
        if self.is_empty() { Ok(value) } else { Err(self.finish()) }
    }

    /// All findings, sorted by place, each once (an alias would repeat those of its anchor).
    pub(super) fn finish(self) -> Vec<Finding> {
        let mut raw = self.raw.into_inner();
        raw.sort();
        raw.dedup();
        let more = raw.len().saturating_sub(SHOWN_MAX);
        raw.truncate(SHOWN_MAX);
        if more > 0
            && let Some((place, ..)) = raw.last()
        {
            raw.push((*place, format!("{more} more mistakes from here on are not shown"), None));
        }
        raw.into_iter().map(|raw| shown(self.sources, raw)).collect()
    }
}

fn shown(sources: &[Source<'_>], (place, what, hint): Raw) -> Finding {
    let source = sources.get(place.file);
    let line = source.and_then(|source| line(source.text, place.line)).unwrap_or_default();
    Finding {
        file: source.map_or("?", |source| source.name).to_owned(),
        line: place.line,
        column: place.column,
        what,
        hint,
        excerpt: excerpt(line, place.column),
    }
}

/// Line `number` of a text, from 1. Lines end as in YAML: at a line feed, a carriage return, or both.
fn line(text: &str, number: usize) -> Option<&str> {
    let mut rest = text;
    for _ in 1..number {
        let (_, after) = rest.split_once(['\n', '\r'])?;
        let after_return = rest.get(..rest.len() - after.len()).is_some_and(|ended| ended.ends_with('\r'));
        rest = if after_return { after.strip_prefix('\n').unwrap_or(after) } else { after };
    }
    rest.split(['\n', '\r']).next()
}

fn excerpt(line: &str, column: usize) -> String {
    // What a terminal would obey, or not show, keeps its column and nothing else.
    let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    if column <= EXCERPT_MAX {
        return line.trim_end().chars().take(EXCERPT_MAX).map(shown).collect();
    }
    let rest = line.chars().skip(column.saturating_sub(1)).take(EXCERPT_MAX).map(shown);
    std::iter::once('…').chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shown_is_the_line_that_the_parser_counted() {
        let text = "one\r\ntwo\rthree\n\nfive";
        let lines: Vec<_> = (1..=6).map(|number| line(text, number)).collect();
        assert_eq!(lines, [Some("one"), Some("two"), Some("three"), Some(""), Some("five"), None]);
    }

    #[test]
    fn a_line_that_would_instruct_the_terminal_is_shown_and_not_obeyed() {
        assert_eq!(excerpt("a\u{1b}[2Jb\t\0c", 3), "a\u{fffd}[2Jb\t\u{fffd}c");
    }

    #[test]
    fn a_line_that_was_generated_does_not_flood_the_screen() {
        let text = format!("{}bad", "x".repeat(100_000));
        let findings = [Place { file: 0, line: 1, column: 1 }, Place { file: 0, line: 1, column: 100_001 }]
            .map(|place| shown(&[Source { name: "a", text: &text }], (place, "wrong".to_owned(), None)));
        let [begin, end] = findings.map(|finding| finding.to_string());
        assert_eq!(begin, format!("a:1:1: wrong\n  {}\n  ^", "x".repeat(EXCERPT_MAX)));
        assert_eq!(end, "a:1:100001: wrong\n  …bad\n   ^");
    }
}
