//! Logging of the processes that stay: to standard error, where the service manager takes it up.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// The environment variable with the filter.
const VARIABLE: &str = "HOLDFAST_LOG";
/// What is logged when it says nothing.
const DEFAULT: &str = "info,openraft=warn,chitchat=warn,hyper=warn,reqwest=warn";

/// Begins to log. A filter that cannot be read is no reason not to protect guests.
pub(super) fn begin() {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| DEFAULT.to_owned());
    let (filter, wrong) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let colours = io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    if logs.try_init().is_err() {
        // Somebody has set up logging before, and is welcome to it.
        return;
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "{VARIABLE} is not a filter; using the default");
    }
}
