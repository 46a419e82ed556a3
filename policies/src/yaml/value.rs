//! One value of the tree, read as what it should be; whatever it is not becomes a finding.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, path::PathBuf, str::FromStr};

use super::{
    finding::{Findings, Place},
    text::{listed, nearest, quoted},
    tree::{Content, Entry, Node},
};
use crate::{
    names::BadName,
    time::{SPAN_MAX, Span},
};

/// Longest text anywhere, in bytes: a kernel command line is the longest that is in use.
const TEXT_BYTES_MAX: usize = 4096;

/// Stands for the value of a bare word such as `- operator`.
static BLANK: Node = Node { place: Place::start(0), content: Content::Scalar { text: String::new(), plain: true } };

/// A value under a key (or in a list), about to be read. Readers give `None` when they have noted a finding.
#[derive(Clone, Copy)]
pub(super) struct Value<'t> {
    /// The key it stands under.
    pub(super) name: &'t str,
    /// Where the key stands; for list items, where the item begins.
    pub(super) at: Place,
    /// The value.
    pub(super) node: &'t Node,
    /// Where mistakes go.
    pub(super) findings: &'t Findings<'t>,
}

impl<'t> Value<'t> {
    /// The value of a whole document.
    pub(super) fn root(node: &'t Node, findings: &'t Findings<'t>) -> Self {
        Self { name: "file", at: node.place, node, findings }
    }

    /// The value of one key of a map.
    pub(super) fn of(entry: &'t Entry, findings: &'t Findings<'t>) -> Self {
        Self { name: &entry.key, at: entry.place, node: &entry.node, findings }
    }

    /// Where to point for a mistake in the value.
    pub(super) fn place(&self) -> Place {
        // A bare word has no value; a blank one is best shown at its key.
        if self.node.is_blank() { self.at } else { self.node.place }
    }

    /// Notes a mistake in this value.
    pub(super) fn wrong<T>(&self, what: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.findings.hint(self.place(), what, hint);
        None
    }

    /// Notes that something else stands here than what is expected.
    pub(super) fn unexpected<T>(&self, expected: &str, example: &str) -> Option<T> {
        let found = match &self.node.content {
            Content::Map(_) => "a map".to_owned(),
            Content::List(_) => "a list".to_owned(),
            Content::Scalar { .. } if self.node.is_blank() => "nothing".to_owned(),
            Content::Scalar { text, plain: true } => quoted(text),
            Content::Scalar { text, plain: false } => format!("the text {}", quoted(&format!("{text:?}"))),
        };
        self.wrong(format!("{} must be {expected}, not {found}", quoted(self.name)), example)
    }

    fn plain(&self) -> Option<&'t str> {
        match &self.node.content {
            Content::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// Any text that is not empty, as written: `1.10` stays `1.10`, `no` stays `no`.
    pub(super) fn text(&self) -> Option<&'t str> {
        match &self.node.content {
            Content::Scalar { text, .. } if text.is_empty() || self.node.is_null() => {
                self.unexpected("text", "give a value, or leave the key out where it is optional")
            }
            Content::Scalar { text, .. } if text.len() > TEXT_BYTES_MAX => {
                self.wrong(format!("{} is longer than {TEXT_BYTES_MAX} bytes", quoted(self.name)), "shorten it")
            }
            Content::Scalar { text, .. } if text.contains(|c: char| c.is_control()) => self.wrong(
                format!("{} has a line break or another control character", quoted(self.name)),
                "write it on one line",
            ),
            Content::Scalar { text, .. } => Some(text),
            _ => self.unexpected("text", "write a single value here"),
        }
    }

    /// Whether a single value stands here, and not a list or a map.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.node.content, Content::Scalar { .. }) && !self.node.is_blank()
    }

    /// A whole number in a range.
    pub(super) fn number<N>(&self, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + Display + Copy,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let digits = self.plain().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
        // A leading zero means octal to some readers of YAML and nothing to others.
        let digits = digits.filter(|text| *text == "0" || !text.starts_with('0'));
        let number = digits.and_then(|text| text.parse::<u64>().ok()).and_then(|number| N::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.unexpected(&expected, number_advice(digits.is_some())),
        }
    }

    /// A whole number in a range, perhaps negative.
    pub(super) fn signed(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let text = self.plain().unwrap_or_default();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let written = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
        let written = written && digits.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|_| written);
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.unexpected(&expected, number_advice(written)),
        }
    }

    /// `true` or `false`, and nothing else that YAML has been known to take for them.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.plain() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => self.unexpected("`true` or `false`", "write one of these two words, without quotes"),
        }
    }

    /// A duration, perhaps zero.
    pub(super) fn span(&self) -> Option<Span> {
        let text = self.text()?;
        match Span::try_from(text.to_owned()) {
            Ok(span) if span.0 <= SPAN_MAX => Some(span),
            Ok(_) | Err(_) => {
                self.unexpected("a duration of at most 30 days", "write a number and a unit: 250ms, 1s, 1.5s, 2m, 1h")
            }
        }
    }

    /// A duration of at least `least`.
    pub(super) fn span_from(&self, least: Span) -> Option<Span> {
        let span = self.span()?;
        if span < least { self.unexpected(&format!("at least {least}"), "write a longer duration") } else { Some(span) }
    }

    /// A size in MiB, written with its unit.
    pub(super) fn memory(&self) -> Option<u32> {
        let text = self.text()?;
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text.get(digits.len()..).map(str::trim) {
            Some("MiB") => Some(1),
            Some("GiB") => Some(1024),
            _ => None,
        };
        let mib = factor.and_then(|factor: u32| digits.parse::<u32>().ok()?.checked_mul(factor));
        match mib.filter(|mib| *mib > 0) {
            Some(mib) => Some(mib),
            None => self.unexpected("a memory size", "write a whole number and a unit: 256MiB, 4GiB"),
        }
    }

    /// A path as written.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.text().map(PathBuf::from)
    }

    /// A path that means the same file whoever opens it.
    pub(super) fn absolute_path(&self) -> Option<PathBuf> {
        let path = self.path()?;
        if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            return self.unexpected("an absolute path without `..`", "it is opened on every host: begin it with `/`");
        }
        // Components leave out `.` and doubled slashes, so that one file has one spelling.
        Some(path.components().collect())
    }

    /// An address that one machine can have.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let address = self.parsed::<IpAddr>("an IP address", "write an IPv4 or IPv6 address: 10.0.0.5, fd00::5")?;
        if address.is_unspecified() || address.is_multicast() {
            return self.unexpected("the address of one machine", "write an IPv4 or IPv6 address: 10.0.0.5, fd00::5");
        }
        Some(address)
    }

    /// Anything that Rust can read from text.
    pub(super) fn parsed<T: FromStr>(&self, expected: &str, example: &str) -> Option<T> {
        match self.text()?.parse() {
            Ok(parsed) => Some(parsed),
            Err(_) => self.unexpected(expected, example),
        }
    }

    /// A name as a value.
    pub(super) fn named<N: FromStr<Err = BadName>>(&self) -> Option<N> {
        match self.text()?.parse() {
            Ok(name) => Some(name),
            Err(error) => self.wrong(clipped(&error), "shorten it, or replace the other characters"),
        }
    }

    /// The key itself as a name.
    pub(super) fn key_name<N: FromStr<Err = BadName>>(&self) -> Option<N> {
        match self.name.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.findings.hint(self.at, clipped(&error), "shorten it, or replace the other characters");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, meant)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meant);
        }
        let all = || words.iter().map(|(word, _)| *word);
        let guess = nearest(text, all()).map(|word| format!("; did you mean {}?", quoted(word))).unwrap_or_default();
        self.wrong(format!("unknown {} {}{guess}", self.name, quoted(text)), format!("one of {}", listed(all())))
    }

    /// The items of a list; nothing counts as an empty list.
    pub(super) fn list(&self, example: &str) -> Option<Vec<Value<'t>>> {
        match &self.node.content {
            Content::List(items) => {
                let item = |node: &'t Node| Value { name: self.name, at: node.place, node, findings: self.findings };
                Some(items.iter().map(item).collect())
            }
            _ if self.node.is_blank() => Some(Vec::new()),
            _ => self.unexpected("a list", example),
        }
    }

    /// The values of a map by key; nothing counts as an empty map.
    pub(super) fn map(&self) -> Option<Vec<Value<'t>>> {
        match &self.node.content {
            Content::Map(entries) => Some(entries.iter().map(|entry| Value::of(entry, self.findings)).collect()),
            _ if self.node.is_blank() => Some(Vec::new()),
            _ => self.unexpected("a map of names to values", "write `name:` and the value below it, indented"),
        }
    }

    /// A choice: one key with its settings, or the bare word when there is nothing to set.
    pub(super) fn variant(&self, kind: &str, known: &[&'static str], later: &[&'static str]) -> Option<Value<'t>> {
        let neither = || self.unexpected(&format!("a {kind}"), &format!("one of {}", listed(known.iter().copied())));
        let chosen = match &self.node.content {
            Content::Map(entries) => match entries.as_slice() {
                [entry] => Value::of(entry, self.findings),
                [first, second, ..] => {
                    self.findings.hint(
                        second.place,
                        format!("a {kind} has one key; {} is a second one", quoted(&second.key)),
                        format!(
                            "a setting of {} stands in its `{{ }}` or on deeper lines; another {kind} stands by itself",
                            quoted(&first.key)
                        ),
                    );
                    return None;
                }
                [] => return neither(),
            },
            Content::Scalar { text, plain: true } if !text.is_empty() => {
                Value { name: text, at: self.node.place, node: &BLANK, findings: self.findings }
            }
            _ => return neither(),
        };
        self.findings.check_word(kind, chosen.name, chosen.at, known, later).then_some(chosen)
    }

    /// Program and arguments.
    pub(super) fn command(&self) -> Option<Vec<String>> {
        let example = self.command_example();
        let items = self.list(&example)?;
        if items.is_empty() {
            return self.unexpected("a program and its arguments", &example);
        }
        let words: Vec<Option<&str>> = items.iter().map(Value::text).collect();
        words.into_iter().map(|word| word.map(str::to_owned)).collect()
    }

    /// How a command is written: the one that stands here as text, where splitting it needs no shell.
    fn command_example(&self) -> String {
        let text = match &self.node.content {
            Content::Scalar { text, .. } if is_plain_command(text) => text.as_str(),
            _ => "systemctl restart nginx",
        };
        let words: Vec<String> = text.split_whitespace().map(|word| format!("{word:?}")).collect();
        format!("no shell is involved: write [{}]", words.join(", "))
    }

    /// An `http://` or `https://` URL. Only in probes may it contain `{address}`.
    pub(super) fn url(&self, placeholder: bool) -> Option<String> {
        let text = self.text()?;
        match url_mistake(text, placeholder) {
            Some((what, hint)) => self.wrong(format!("URL {}: {what}", quoted(text)), hint),
            None => Some(text.to_owned()),
        }
    }
}

/// What to do about a number that is none, or is one and out of its range.
fn number_advice(is_number: bool) -> &'static str {
    if is_number { "choose a number within these two" } else { "write digits only, without quotes or a unit" }
}

/// Whether a text is words with nothing in between that only a shell understands, and short enough to be repeated.
fn is_plain_command(text: &str) -> bool {
    const LONGEST: usize = 100;
    let plain = |c: char| c.is_ascii_alphanumeric() || " -_./:=@,+%".contains(c);
    !text.trim().is_empty() && text.len() <= LONGEST && text.chars().all(plain)
}

/// A name's error repeats the name, which may be as long as the file.
fn clipped(error: &BadName) -> String {
    let text: String = error.text.chars().take(60).collect();
    BadName { text }.to_string()
}

fn url_mistake(text: &str, placeholder: bool) -> Option<(&'static str, &'static str)> {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return Some(("its scheme is not supported", "begin it with `http://` or `https://`"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let filled = if placeholder { authority.replace("{address}", "address") } else { authority.to_owned() };
    let (host, port) = match filled.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (filled.as_str(), "80"),
    };
    if text.contains(char::is_whitespace) {
        Some(("it contains a space", "write `%20` instead"))
    } else if placeholder && text.replace("{address}", "").contains(['{', '}']) {
        Some(("it has an unknown placeholder", "only `{address}` is filled in: the guest's address"))
    } else if !placeholder && text.contains(['{', '}']) {
        Some(("nothing is filled in here", "write the address itself"))
    } else if authority.contains('@') {
        Some(("it contains a user or a password, which would end up in the journal", "leave it out"))
    } else if host.is_empty() {
        Some(("it names no host", "write it like `http://10.0.0.5:8080/path`"))
    } else if host.contains(':') && !host.starts_with('[') {
        Some(("an IPv6 address needs brackets", "write it like `http://[fd00::5]:8080/path`"))
    } else if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        Some(("its port is not a number from 1 to 65535", "write it like `http://10.0.0.5:8080/path`"))
    } else {
        None
    }
}
