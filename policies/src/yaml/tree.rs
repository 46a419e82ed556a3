//! YAML text as a tree in which every key and value knows where it stands.
//!
//! Built from the parser's events rather than through serde, because serde hands over neither the places of keys nor
//! whether a scalar was quoted.

use std::collections::BTreeMap;

use serde_yaml::granit_parser::{Event, Marker, Options, Parser, ScalarStyle};

use super::{
    finding::{Findings, Place},
    text::quoted,
};

/// Most nodes of one file, aliases counted as what they stand for, so that nested aliases cannot multiply. A guest
/// takes about 40 nodes.
const NODES_MAX: usize = 100_000;
/// Deepest nesting. The deepest place in a policy is 8 deep.
const DEPTH_MAX: usize = 32;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) place: Place,
    /// What it is.
    pub(super) content: Content,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A single value as written.
    Scalar {
        /// Its text, without quotes and escapes.
        text: String,
        /// Whether it was written without quotes: only then can it be a number, a boolean or nothing.
        plain: bool,
    },
    /// Values by key, in the order of the file.
    Map(Vec<Entry>),
    /// Values in order.
    List(Vec<Node>),
}

/// One key of a map with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) place: Place,
    /// Its value.
    pub(super) node: Node,
}

impl Node {
    /// Whether nothing at all is written here.
    pub(super) fn is_blank(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if text.is_empty())
    }

    /// Whether it says "none" in words: `null` or `~`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "~" | "null" | "Null" | "NULL"))
    }

    /// Number of nodes in it and its depth. Its recursion is bounded by [`DEPTH_MAX`].
    fn measure(&self) -> (usize, usize) {
        let below = |all: &mut dyn Iterator<Item = &Node>| {
            all.map(Node::measure).fold((1, 1), |(nodes, depth), (n, d)| (nodes + n, depth.max(d + 1)))
        };
        match &self.content {
            Content::Scalar { .. } => (1, 1),
            Content::Map(entries) => below(&mut entries.iter().map(|entry| &entry.node)),
            Content::List(items) => below(&mut items.iter()),
        }
    }
}

/// What is usually meant where the parser says these words of a text. `tests.rs` has each of them from the parser itself.
const ADVICE: [(&str, &str); 11] = [
    ("tab", "indent with spaces"),
    ("unclosed bracket", "close it with `}` or `]`, as it was opened"),
    ("unclosed quote", "close it on the same line"),
    ("misplaced bracket", "a colon and a space stand between a key and its `{`: `web-1: { … }`"),
    ("expected ',' or", "put a comma between two settings, and close with `}` or `]` what was opened before"),
    ("simple key expected", "write `key: value`; a text goes on only in lines that are indented more"),
    ("expected key", "keys of one map begin in one column: compare the indentation of this line with those above"),
    ("expected '-' indicator", "items of one list begin in one column, each with `- `"),
    (
        "mapping values are not allowed",
        "quote a text with `: ` in it; settings of a key stand on deeper lines, or in `{ }`",
    ),
    ("unexpected character", "quote a text that begins like this"),
    ("unknown anchor", "quote a text that begins with `*`"),
];

/// The documents of one file. After a syntax error there are none: half a tree would only cause findings that go away
/// by themselves.
pub(super) fn read(file: usize, text: &str, findings: &Findings<'_>) -> Vec<Node> {
    let mut options = Options::default();
    options.emit_comments = false;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder =
        Builder { file, findings, open: Vec::new(), documents: Vec::new(), anchors: BTreeMap::new(), nodes: 0 };
    for next in Parser::new_from_str_with_options(text, options) {
        let step = match next {
            Ok((event, span)) => {
                builder.event(event, builder.place(span.start), span.start.index() == span.end.index())
            }
            Err(error) => {
                not_yaml(builder.place(*error.marker()), &error.info(), findings);
                return Vec::new();
            }
        };
        if let Err((place, what)) = step {
            findings.add(place, what);
            return Vec::new();
        }
    }
    builder.documents.retain(|document| !document.is_blank());
    builder.documents
}

/// Notes what the parser cannot read.
fn not_yaml(place: Place, info: &str, findings: &Findings<'_>) {
    let what = format!("not YAML: {info}");
    match ADVICE.iter().find(|(words, _)| info.contains(words)) {
        Some((_, advice)) => findings.hint(place, what, *advice),
        None => findings.add(place, what),
    }
}

/// A collection whose end has not come yet.
enum Open {
    List { place: Place, anchor: usize, items: Vec<Node> },
    Map { place: Place, anchor: usize, entries: Vec<Entry>, keys: BTreeMap<String, Place>, key: Key },
}

/// What a map in the making waits for.
enum Key {
    Awaited,
    Given(String, Place),
    /// The key was refused, so its value is dropped.
    Refused,
}

type Step = Result<(), (Place, String)>;

struct Builder<'f> {
    file: usize,
    findings: &'f Findings<'f>,
    open: Vec<Open>,
    documents: Vec<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl Builder<'_> {
    fn place(&self, marker: Marker) -> Place {
        Place { file: self.file, line: marker.line().max(1), column: marker.col() + 1 }
    }

    /// `empty`: the event stands for nothing that is written.
    fn event(&mut self, event: Event<'_>, place: Place, empty: bool) -> Step {
        if event.tag().is_some() {
            self.findings.hint(
                place,
                "YAML tags are not supported",
                "leave the tag out; quote a value that must be text",
            );
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                // For a value that is not written the parser says `~`; an operator who writes `~` means it.
                let text = if plain && empty { String::new() } else { text.into_owned() };
                let content = Content::Scalar { text, plain };
                self.put(Node { place, content }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Open::List { place, anchor, items: Vec::new() }, place),
            Event::MappingStart(_, anchor, _) => {
                let (entries, keys) = (Vec::new(), BTreeMap::new());
                self.begin(Open::Map { place, anchor, entries, keys, key: Key::Awaited }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { place, anchor, items }) => {
                    self.put(Node { place, content: Content::List(items) }, anchor)
                }
                Some(Open::Map { place, anchor, entries, .. }) => {
                    self.put(Node { place, content: Content::Map(entries) }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, place),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open, place: Place) -> Step {
        if self.open.len() >= DEPTH_MAX {
            return Err((place, format!("nested more than {DEPTH_MAX} deep")));
        }
        self.open.push(open);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Step {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err((place, "this alias stands inside what it stands for".to_owned()));
        };
        let (nodes, depth) = node.measure();
        if self.open.len() + depth > DEPTH_MAX {
            return Err((place, format!("nested more than {DEPTH_MAX} deep, with aliases")));
        }
        let node = node.clone();
        self.count(nodes, place)?;
        self.put(node, 0)
    }

    fn count(&mut self, nodes: usize, place: Place) -> Step {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err((
                place,
                format!(
                    "more than {NODES_MAX} values in one file, with aliases; thousands of guests go into several files"
                ),
            ));
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Step {
        self.count(1, node.place)?;
        if anchor != 0 {
            // The copy that is kept for aliases counts too, else anchors within anchors would be free.
            self.count(node.measure().0, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, keys, key, .. }) => match std::mem::replace(key, Key::Awaited) {
                Key::Awaited => *key = accept_key(node, keys, self.findings),
                Key::Given(name, place) => entries.push(Entry { key: name, place, node }),
                Key::Refused => {}
            },
        }
        Ok(())
    }
}

fn accept_key(node: Node, keys: &mut BTreeMap<String, Place>, findings: &Findings<'_>) -> Key {
    let blank = node.is_blank();
    let Node { place, content } = node;
    let text = match content {
        Content::Scalar { text, .. } if !blank => text,
        _ => {
            findings.add(place, "a key must be text");
            return Key::Refused;
        }
    };
    if text == "<<" {
        findings.hint(
            place,
            "merge keys (`<<`) are not supported",
            "write the values out, or use an alias for a whole value",
        );
        return Key::Refused;
    }
    if let Some(first) = keys.get(&text) {
        let what = format!("key {} is given twice", quoted(&text));
        findings.hint(place, what, format!("it is first given in line {}; keep one of them", first.line));
        return Key::Refused;
    }
    keys.insert(text.clone(), place);
    Key::Given(text, place)
}
