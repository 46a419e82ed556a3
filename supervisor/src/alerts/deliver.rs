//! Sends one request and says what came of it: accepted, to be tried again, or refused.

use std::time::Duration;

use holdfast_policies::{observe::clean, time::WallTime};
use reqwest::{
    Client, ClientBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, RETRY_AFTER},
    redirect::Policy,
};

use super::{super::causes::with_causes, clocks::Clocks, request::Request};

/// Longest time for one request, from the look-up of the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a refusal is read: enough for its reason, little enough for a hostile server.
const ANSWER_BYTES_MAX: usize = 2_048;

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has it.
    Accepted,
    /// Try again later.
    Retry {
        /// How long the receiver asked to be left alone.
        after: Option<Duration>,
        /// Why; carries no secret.
        detail: String,
        /// Whether the receiver may have taken it all the same, as after silence.
        perhaps_taken: bool,
    },
    /// The receiver does not take this one; that it ever will, somebody has to put something right.
    Rejected {
        /// Why; carries no secret.
        detail: String,
    },
}

/// Why there is no HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an http client for alerts")]
pub struct ClientError(#[source] reqwest::Error);

/// Sends requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deliverer {
    client: Client,
    /// What is known of receivers' clocks.
    pub(super) clocks: Clocks,
}

impl Deliverer {
    /// A deliverer with its own HTTP client: rustls with ring, no redirects (an alert must not wander to a host that
    /// nobody declared), no proxy from the environment.
    ///
    /// # Errors
    /// [`ClientError`] when TLS cannot be set up.
    pub fn new() -> Result<Self, ClientError> {
        // An error says that a provider is installed already, which is just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = match builder().build() {
            Ok(client) => client,
            Err(error) => {
                // A host without any CA certificate can still tell an Alertmanager over plain HTTP.
                tracing::warn!(error = %with_causes(&error), "no CA certificates; alerts over https will fail");
                builder().tls_certs_only([]).build().map_err(ClientError)?
            }
        };
        Ok(Self { client, clocks: Clocks::default() })
    }

    /// Sends `request` once. Returns what came of it, and what time it was there by the receiver's word.
    pub async fn send(&self, request: &Request) -> (Delivery, Option<WallTime>) {
        let mut post = self.client.post(request.url.clone()).header(CONTENT_TYPE, "application/json");
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        match post.body(request.body.clone()).send().await {
            Ok(response) => {
                let date = date(&response);
                (judge(request, response).await, date)
            }
            Err(error) => {
                let perhaps_taken = !error.is_connect() && !error.is_builder();
                let detail = shown(request, &with_causes(&error.without_url()));
                (Delivery::Retry { after: None, detail, perhaps_taken }, None)
            }
        }
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
}

async fn judge(request: &Request, response: Response) -> Delivery {
    let status = response.status();
    if status.is_success() {
        return Delivery::Accepted;
    }
    let after = retry_after(&response);
    let said = begin_of(response).await;
    let detail = shown(request, &format!("{status}: {said}"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        Delivery::Retry { after, detail, perhaps_taken: false }
    } else if status.is_server_error() {
        Delivery::Retry { after, detail, perhaps_taken: true }
    } else {
        Delivery::Rejected { detail }
    }
}

/// The seconds in `Retry-After`; its other form, a date, would need the receiver's clock and is left to the back-off.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u32 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// When the answer was made, by the clock of whoever made it.
fn date(response: &Response) -> Option<WallTime> {
    let text = response.headers().get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(date.as_millisecond()).ok().map(WallTime)
}

async fn begin_of(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend(chunk.iter().take(ANSWER_BYTES_MAX.saturating_sub(bytes.len()))),
            Ok(None) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text from outside, fit for logs: secrets first, so that none is cut in half and slips through.
fn shown(request: &Request, text: &str) -> String {
    clean(&request.without_secrets(text))
}
