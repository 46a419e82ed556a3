//! One HTTP request to a receiver, which can be printed without printing a secret.

use std::fmt;

use reqwest::Url;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why no request could be written. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The URL is not one. It is not shown, because webhook URLs are secrets.
    #[error("the receiver's url cannot be used: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The receiver needs a routing key.
    #[error("the receiver needs a routing key and none was given")]
    NoRoutingKey,
    /// The body could not be written as JSON.
    #[error("the message cannot be written as json")]
    Json(#[source] serde_json::Error),
}

/// One POST of JSON.
#[derive(Clone)]
pub struct Request {
    /// Where to; may hold a secret.
    pub url: Url,
    /// Headers besides `content-type`, which is always `application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON.
    pub body: Vec<u8>,
    /// What and where to, in words fit for logs.
    pub description: String,
    /// Texts that must not be repeated from the receiver's answer.
    hidden: Vec<Secret>,
}

impl Request {
    /// A request. `what` says in a few words what it tells; `secret` is what the body holds that nobody may see.
    pub(super) fn new(
        url: Url,
        kind: &str,
        what: &str,
        body: &serde_json::Value,
        secret: Option<&Secret>,
    ) -> Result<Self, RenderError> {
        let body = serde_json::to_vec(body).map_err(RenderError::Json)?;
        let hidden = hidden_in(&url).chain(secret.cloned()).collect();
        let description = format!("{what} to {kind} at {}", origin(&url));
        Ok(Self { url, headers: Vec::new(), body, description, hidden })
    }

    /// A text from the receiver without the secrets that it may repeat.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| text.replace(secret.reveal(), "(secret)"))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {} bytes)", self.description, self.body.len())
    }
}

/// A checked URL: http or https, with a host.
pub(super) fn parse_url(text: &str) -> Result<Url, RenderError> {
    let bad = |reason: String| RenderError::Url { reason };
    let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must begin with http:// or https://".to_owned()));
    }
    if !url.has_host() {
        return Err(bad("it has no host".to_owned()));
    }
    Ok(url)
}

/// A base URL with a path behind it.
pub(super) fn join(base: &str, path: &str) -> Result<Url, RenderError> {
    let mut url = parse_url(base)?;
    let whole = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&whole);
    Ok(url)
}

/// Scheme, host and port: the part of a URL that is never a secret.
fn origin(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

/// The parts of a URL that may be secrets: credentials, path and query. A bare `/` is in every text and hides nothing.
fn hidden_in(url: &Url) -> impl Iterator<Item = Secret> {
    let parts = [url.password(), url.query(), Some(url.path()).filter(|path| path.len() > 1)];
    let parts: Vec<Secret> =
        parts.into_iter().flatten().filter(|part| !part.is_empty()).map(|part| Secret(part.to_owned())).collect();
    parts.into_iter()
}
