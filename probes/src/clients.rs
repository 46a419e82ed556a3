//! The HTTP clients of one supervisor: no proxy, no redirects, no connection kept, so that every probe really asks.

use std::{fmt, io, sync::OnceLock};

use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};

/// HTTP clients, made once and shared by all probes.
pub struct Clients {
    plain: Client,
    tls: OnceLock<Result<Client, String>>,
}

/// Why there are no HTTP clients.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an http client")]
pub struct ClientsError {
    #[source]
    cause: reqwest::Error,
}

impl Clients {
    /// Makes the client for `http://`; the one for `https://` is made when it is first needed, because it reads the
    /// system's certificates.
    ///
    /// # Errors
    /// [`ClientsError`] when the client cannot be built.
    pub fn new() -> Result<Self, ClientsError> {
        // Whoever installed a provider first keeps it; ours is only needed where nobody did.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = bare().tls_certs_only([]).build().map_err(|cause| ClientsError { cause })?;
        Ok(Self { plain, tls: OnceLock::new() })
    }

    /// The client for a URL, or why there is none.
    pub(crate) fn for_url(&self, url: &str) -> Result<&Client, &str> {
        if !url.starts_with("https://") {
            return Ok(&self.plain);
        }
        let made = self.tls.get_or_init(|| bare().build().map_err(|error| deepest(&error)));
        made.as_ref().map_err(String::as_str)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

fn bare() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .http1_only()
        .pool_max_idle_per_host(0)
        .retry(reqwest::retry::never())
        .dns_resolver(Names)
}

/// The innermost cause of an error: the part that people understand.
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// A name that could not be resolved; its own type, so that it is told apart from a refusal by the service.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {name:?}: {cause}")]
pub(crate) struct Unresolved {
    name: String,
    cause: io::Error,
}

/// The system's resolver, with errors of a type of ours.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(found) => Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs),
                Err(cause) => Err(Unresolved { name: name.as_str().to_owned(), cause }.into()),
            }
        })
    }
}
