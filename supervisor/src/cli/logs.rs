//! Logging of the processes that stay: to standard error, where the service manager takes it up.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

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
    if to_standard_error(filter).try_init().is_err() {
        // Somebody has set up logging before, and is welcome to it.
        return;
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "{VARIABLE} is not a filter; using the default");
    }
}

/// What cannot be written is lost, and nothing else. By default that would be said on standard error, which is what has just failed, and
/// saying so would end the thread: a guard would end with the log, and its host with the guard.
fn to_standard_error(filter: EnvFilter) -> impl tracing::Subscriber + Send + Sync {
    let colours = io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    logs.log_internal_errors(false).finish()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        process::{Command, Stdio},
    };

    use super::*;

    /// Set for the process in which somebody logs.
    const LOGS: &str = "HOLDFAST_TEST_LOGS";

    /// As when the service manager's journal has died.
    #[test]
    fn a_log_that_nobody_takes_up_any_more_ends_nobody() {
        if std::env::var_os(LOGS).is_some() {
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            let logs = to_standard_error(EnvFilter::new("info"));
            return tracing::subscriber::with_default(logs, || tracing::info!("nobody reads this"));
        }
        let name = format!("{}::a_log_that_nobody_takes_up_any_more_ends_nobody", module_path!());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name.trim_start_matches("holdfast::"), "--nocapture"]).env(LOGS, "1");
        let mut logging = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(logging.stderr.take());
        // With the end of its input it begins to log.
        let output = logging.wait_with_output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
}
