//! A map whose keys are fixed: settings that may be known, unknown, missing, or not available yet.

use super::{
    finding::{Findings, Place},
    text::{listed, nearest, quoted},
    tree::{Content, Entry},
    value::Value,
};

/// The keys that a map may have.
pub(super) struct Keys {
    /// Keys that are read.
    pub(super) known: &'static [&'static str],
    /// Keys that may come one day and that this version cannot do.
    pub(super) later: &'static [&'static str],
    /// Keys that somebody might well write, and what to write instead.
    pub(super) renamed: &'static [(&'static str, &'static str)],
}

/// A map of settings.
pub(super) struct Fields<'t> {
    name: &'t str,
    at: Place,
    entries: &'t [Entry],
    findings: &'t Findings<'t>,
}

impl Findings<'_> {
    /// Whether a word is one of those known; if not, says what it is instead.
    pub(super) fn check_word(
        &self,
        kind: &str,
        word: &str,
        at: Place,
        known: &[&'static str],
        later: &[&'static str],
    ) -> bool {
        if known.contains(&word) {
            return true;
        }
        let allowed = match known {
            [] => "nothing is set here".to_owned(),
            _ => format!("allowed here: {}", listed(known.iter().copied())),
        };
        if later.contains(&word) {
            self.hint(at, format!("{kind} {} is not available in this version", quoted(word)), allowed);
            return false;
        }
        let guess = nearest(word, known.iter().chain(later).copied());
        let guess = guess.map(|guess| format!("; did you mean {}?", quoted(guess))).unwrap_or_default();
        self.hint(at, format!("unknown {kind} {}{guess}", quoted(word)), allowed);
        false
    }
}

impl<'t> Value<'t> {
    /// This value as a map with fixed keys; keys that do not belong here are noted at once.
    pub(super) fn fields(&self, keys: &Keys) -> Option<Fields<'t>> {
        let entries: &'t [Entry] = match &self.node.content {
            Content::Map(entries) => entries,
            _ if self.node.is_blank() => &[],
            _ => {
                let what = format!("{} must be a map of settings", quoted(self.name));
                return match keys.known {
                    [] => self.wrong(format!("{} has nothing to set", quoted(self.name)), "write the word alone"),
                    known => self.wrong(what, format!("its keys: {}", listed(known.iter().copied()))),
                };
            }
        };
        for entry in entries {
            match keys.renamed.iter().find(|(wrong, _)| *wrong == entry.key) {
                Some((wrong, right)) => {
                    self.findings.hint(entry.place, format!("unknown key {}", quoted(wrong)), *right)
                }
                None => {
                    self.findings.check_word("key", &entry.key, entry.place, keys.known, keys.later);
                }
            }
        }
        Some(Fields { name: self.name, at: self.at, entries, findings: self.findings })
    }
}

impl<'t> Fields<'t> {
    fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Whether the key is there and says something.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| !entry.node.is_null())
    }

    /// The value of a key, if the key is there; nothing written after it counts as empty.
    pub(super) fn section(&self, key: &str) -> Option<Value<'t>> {
        self.entry(key).filter(|entry| !entry.node.is_null()).map(|entry| Value::of(entry, self.findings))
    }

    /// Where the value of a key stands; without the key, where the map does.
    pub(super) fn place(&self, key: &str) -> Place {
        self.section(key).map_or(self.at, |value| value.place())
    }

    /// An optional value. `None` is a finding, `Some(None)` an absent key.
    #[expect(
        clippy::option_option,
        reason = "a mistake and an absent key are two different things, and both are common"
    )]
    pub(super) fn optional<T>(&self, key: &str, read: impl FnOnce(&Value<'t>) -> Option<T>) -> Option<Option<T>> {
        match self.section(key) {
            None => Some(None),
            Some(value) => read(&value).map(Some),
        }
    }

    /// A value with a default. `None` is a finding.
    pub(super) fn or<T>(&self, key: &str, default: T, read: impl FnOnce(&Value<'t>) -> Option<T>) -> Option<T> {
        self.optional(key, read).map(|value| value.unwrap_or(default))
    }

    /// A value that must be there. `None` is a finding.
    pub(super) fn need<T>(&self, key: &str, example: &str, read: impl FnOnce(&Value<'t>) -> Option<T>) -> Option<T> {
        match self.section(key) {
            Some(value) => read(&value),
            None => {
                self.findings.hint(
                    self.at,
                    format!("{} has no {}", quoted(self.name), quoted(key)),
                    // Our own, so it needs no cutting: it is to be copied.
                    format!("add `{example}`"),
                );
                None
            }
        }
    }
}
