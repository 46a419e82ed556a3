//! Identifiers. Each is its own type, so that a host's name cannot be passed where a guest's is meant.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};
use smol_str::SmolStr;

/// Longest name accepted anywhere, in bytes: names become file names, cgroup names and gossip keys.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "name {text:?} is not 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.', beginning with a letter or digit"
)]
pub struct BadName {
    /// The text that was offered.
    pub text: String,
}

fn checked(text: &str) -> Result<(), BadName> {
    let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let all_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if first_ok && all_ok && text.len() <= NAME_BYTES_MAX { Ok(()) } else { Err(BadName { text: text.to_owned() }) }
}

/// The text of a name, with its first bytes at hand: names are compared more than anything else, and mostly these decide.
#[derive(Clone)]
struct Text {
    /// The first 16 bytes, the first one highest, and zeros behind a text that is shorter: no name has any in it. Most names are no
    /// longer.
    head: (u64, u64),
    whole: SmolStr,
}

impl Text {
    fn checked(text: &str) -> Result<Self, BadName> {
        checked(text)?;
        let eight = |from: usize| {
            let bytes = text.bytes().skip(from).chain(std::iter::repeat(0)).take(8);
            bytes.fold(0, |word, byte| word << 8 | u64::from(byte))
        };
        Ok(Self { head: (eight(0), eight(8)), whole: SmolStr::new(text) })
    }

    /// Whether the head is all of it: it ends with a zero. Of a text that just fits, its whole is looked at too.
    fn is_short(&self) -> bool {
        self.head.1.trailing_zeros() >= u8::BITS
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        // Of two heads that are the same, either both are all of it or none is.
        self.head == other.head && (self.is_short() || self.whole == other.whole)
    }
}

impl Eq for Text {}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| match self.is_short() {
            true => Ordering::Equal,
            false => self.whole.cmp(&other.whole),
        })
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.whole.hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.whole, f)
    }
}

/// Takes a name from the text that is being read.
struct Reader;

impl Visitor<'_> for Reader {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Text::checked(text).map_err(E::custom)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Text);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`BadName`] when the text has other characters than a name may have, or is too long.
            pub fn new(text: impl AsRef<str>) -> Result<Self, BadName> {
                Text::checked(text.as_ref()).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0.whole
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        // By hand, because what serde derives makes a copy first, and the guard writes names without allocating.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        // And reading without a copy between.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_string(Reader).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.whole.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }
    };
}

name!(
    /// A physical machine that runs guests, or a witness.
    HostName
);
name!(
    /// A virtual machine.
    GuestName
);
name!(
    /// A person who gives orders, as their certificate names them.
    OperatorName
);
name!(
    /// Something in a guest that must answer.
    ServiceName
);
name!(
    /// One entry under `policies:`.
    PolicyName
);
name!(
    /// One entry under `rules:`.
    RuleName
);
name!(
    /// One boot of one host: made at boot, in storage that dies with the host (R11).
    Incarnation
);

/// Number of a guest's assignment to a host (R7): the log index that committed it, made monotonic
/// across a recovery by the cluster generation, which compares first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Epoch {
    /// The cluster generation: grows only by `recover --force`.
    pub generation: u32,
    /// The log index.
    pub index: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.index)
    }
}

/// One order, unique for the life of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub u64);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "o{}", self.0)
    }
}

/// From where a probe looked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Vantage {
    /// In the guest, through its agent.
    Inside,
    /// From this host, over the network.
    Host(HostName),
}

impl fmt::Display for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside => f.write_str("inside"),
            Self::Host(host) => write!(f, "host:{host}"),
        }
    }
}

impl From<Vantage> for String {
    fn from(vantage: Vantage) -> String {
        vantage.to_string()
    }
}

impl TryFrom<String> for Vantage {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        match text.strip_prefix("host:") {
            Some(host) => Ok(Self::Host(HostName::new(host)?)),
            None if text == "inside" => Ok(Self::Inside),
            None => Err(BadName { text }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_escape_a_path_are_refused() {
        for bad in ["", "../x", "a/b", "-a", "a b", "é", &"x".repeat(64)] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
        assert!(HostName::new("hv-a.rack_1").is_ok());
    }

    #[test]
    fn names_are_equal_and_in_order_as_their_texts_are() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let sixteen = "node-in-rack-004";
        let texts =
            ["a", "a-", "a0", "ab", "b", "node-in-rack-00", sixteen, "node-in-rack-0041", "node-in-rack-0042", &long];
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (one, other))) {
            let (first, second) = (HostName::new(one).unwrap(), HostName::new(other).unwrap());
            assert_eq!(first.cmp(&second), one.cmp(other), "{one} and {other}");
            assert_eq!(first == second, one == other, "{one} and {other}");
        }
    }

    #[test]
    fn a_name_is_written_and_read_as_its_text() {
        let name = HostName::new("hv-a").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"hv-a\"");
        assert_eq!(serde_json::from_str::<HostName>("\"hv-a\"").unwrap(), name);
        let bad = serde_json::from_str::<HostName>("\"../x\"").unwrap_err();
        assert!(bad.to_string().starts_with("name \"../x\" is not 1 to 63 letters"), "{bad}");
    }

    #[test]
    fn a_later_generation_outranks_any_index() {
        assert!(Epoch { generation: 2, index: 1 } > Epoch { generation: 1, index: 999 });
    }
}
