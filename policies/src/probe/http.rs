//! A question over HTTP, and which answers pass.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ADDRESS, tls::TlsSettings};

/// Asks over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// `http://` or `https://`; `{address}` stands for the guest's address.
    pub url: String,
    /// The statuses that pass. Default 200.
    pub status: Statuses,
    /// Text that the body must contain.
    pub body: Option<String>,
    /// Pattern that the body must match somewhere.
    #[serde(default)]
    pub body_matches: Option<String>,
    /// JSON pointers (RFC 6901) into the body, and what must stand there.
    #[serde(default)]
    pub json: BTreeMap<String, Value>,
    /// Default GET.
    #[serde(default)]
    pub method: Method,
    /// Request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Request headers whose values are secret: files with them, on every host, readable by root only.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// The request's body.
    #[serde(default)]
    pub send: Option<String>,
    /// How many redirects are followed. Default 0.
    #[serde(default)]
    pub redirects: u32,
    /// Default 1.1.
    #[serde(default)]
    pub version: HttpVersion,
    /// Where to connect instead of the URL's host: an address or `{address}`, perhaps with a port.
    #[serde(default)]
    pub connect_to: Option<String>,
    /// How to speak TLS where the URL wants it.
    #[serde(default)]
    pub tls: TlsSettings,
}

/// Methods of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Asks for a page.
    #[default]
    Get,
    /// Asks for a page's headers alone.
    Head,
    /// Asks what is possible.
    Options,
    /// Sends something to be worked on.
    Post,
    /// Sends something to be kept.
    Put,
}

/// Versions of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2; over `http://` with prior knowledge.
    #[serde(rename = "2")]
    Two,
}

/// Statuses that pass, as inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Statuses(pub Vec<(u16, u16)>);

/// A single number stands in logs that were written before there were ranges.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(u16),
    Ranges(Vec<(u16, u16)>),
}

impl From<Written> for Statuses {
    fn from(written: Written) -> Self {
        match written {
            Written::One(status) => Self::only(status),
            Written::Ranges(ranges) => Self(ranges),
        }
    }
}

impl Statuses {
    /// One status alone.
    #[must_use]
    pub fn only(status: u16) -> Self {
        Self(vec![(status, status)])
    }

    /// Whether a status passes.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(least, most)| (*least..=*most).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (least, most)) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(" or ")?;
            }
            if least == most { write!(f, "{least}")? } else { write!(f, "{least}-{most}")? }
        }
        Ok(())
    }
}

impl Method {
    /// The method's word in a request.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

impl HttpProbe {
    /// A GET that passes with status 200.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            status: Statuses::only(200),
            body: None,
            body_matches: None,
            json: BTreeMap::new(),
            method: Method::Get,
            headers: BTreeMap::new(),
            header_files: BTreeMap::new(),
            send: None,
            redirects: 0,
            version: HttpVersion::One,
            connect_to: None,
            tls: TlsSettings::default(),
        }
    }

    /// Why it cannot be asked in the guest; `None` where it can.
    #[must_use]
    pub fn not_inside(&self) -> Option<&'static str> {
        if !self.header_files.is_empty() {
            Some("`header_files` are on the hosts, and a guest's command line would show what they hold")
        } else if self.tls.certificate_file.is_some() {
            Some("the client certificate is on the hosts")
        } else if self.redirects > 0 {
            Some("redirects lead away from the guest's own service")
        } else if self.connect_to.is_some() {
            Some("`connect_to` names a place on the network")
        } else if self.version == HttpVersion::Two {
            Some("the guest's own programs need not know HTTP/2")
        } else {
            None
        }
    }

    pub(super) fn needs_address(&self) -> bool {
        match &self.connect_to {
            // Without a host in the URL its name comes from the address.
            Some(place) => place.contains(ADDRESS) || self.url.contains(ADDRESS),
            None => self.url.contains(ADDRESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_from_an_older_log_still_reads() {
        let old = r#"{"url":"http://{address}/","status":200,"body":null}"#;
        let probe: HttpProbe = serde_json::from_str(old).unwrap();
        assert_eq!(probe, HttpProbe::get("http://{address}/"));
        let again: HttpProbe = serde_json::from_str(&serde_json::to_string(&probe).unwrap()).unwrap();
        assert_eq!(again, probe);
    }

    #[test]
    fn a_set_of_statuses_holds_its_ends_and_nothing_beyond() {
        let statuses = Statuses(vec![(200, 204), (301, 301)]);
        for (status, fine) in [(199, false), (200, true), (204, true), (205, false), (301, true)] {
            assert_eq!(statuses.contains(status), fine, "{status}");
        }
        assert_eq!(statuses.to_string(), "200-204 or 301");
    }
}
