//! Identifiers. Each is its own type, so that a host's name cannot be passed where a guest's is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

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

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            ///
            /// # Errors
            /// [`BadName`] when the text has other characters than a name may have, or is too long.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                checked(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
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
                serializer.serialize_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
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
    fn a_later_generation_outranks_any_index() {
        assert!(Epoch { generation: 2, index: 1 } > Epoch { generation: 1, index: 999 });
    }
}
