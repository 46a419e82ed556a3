//! `holdfast-guest`: Holdfast's own agent in a guest. See `holdfast_probes::guest_agent`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use holdfast_probes::guest_agent::{Agent, GuestConfig, Seldom, protocol::PORT_NAME, vsock};

/// Where the guest's operator says what may be asked.
const CONFIG: &str = "/etc/holdfast/guest.yaml";
/// How long a port that is not there, or has failed, is waited for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

const USAGE: &str = "usage: holdfast-guest [--config FILE] [--port FILE] [--check]
  --config   what may be asked; default /etc/holdfast/guest.yaml
  --port     the virtio-serial port; default /dev/virtio-ports/holdfast.0; not used where the config has `vsock`
  --check    says whether the config has a mistake, and ends; nothing is served
  --help, --version";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// To answer the host.
    Serve { config: PathBuf, port: PathBuf },
    /// To look at the config alone.
    Check { config: PathBuf },
    /// To say this, and end.
    Say(String),
}

/// What these arguments ask for; `None` where they are wrong.
fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Asked> {
    let (mut config, mut port) = (PathBuf::from(CONFIG), PathBuf::from("/dev/virtio-ports").join(PORT_NAME));
    let mut check = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--config" => config = arguments.next()?.into(),
            "--port" => port = arguments.next()?.into(),
            "--check" => check = true,
            "--help" | "-h" => return Some(Asked::Say(USAGE.to_owned())),
            "--version" | "-V" => return Some(Asked::Say(format!("holdfast-guest {}", env!("CARGO_PKG_VERSION")))),
            _ => return None,
        }
    }
    Some(if check { Asked::Check { config } } else { Asked::Serve { config, port } })
}

fn main() -> ExitCode {
    let (config, port) = match asked(std::env::args().skip(1)) {
        Some(Asked::Serve { config, port }) => (config, Some(port)),
        Some(Asked::Check { config }) => (config, None),
        Some(Asked::Say(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let read = std::fs::read_to_string(&config).map_err(|error| error.to_string());
    let agent = match read.and_then(|text| GuestConfig::parse(&text).map_err(|error| error.to_string())) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("holdfast-guest: {}: {error}", config.display());
            return ExitCode::from(2);
        }
    };
    let Some(port) = port else {
        println!("no mistakes in {}", config.display());
        return ExitCode::SUCCESS;
    };
    // One thread besides those that wait for the port: the agent must not weigh on the guest.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("holdfast-guest: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(agent, &port))
}

async fn serve(config: GuestConfig, port: &std::path::Path) -> ExitCode {
    let at = config.vsock;
    let agent = Agent::new(config);
    let mut told = Seldom::default();
    loop {
        let served = async {
            if let Some(at) = at {
                return vsock::serve(&agent, at).await;
            }
            let file = std::fs::OpenOptions::new().read(true).write(true).open(port)?;
            let (read, write) = (tokio::fs::File::from_std(file.try_clone()?), tokio::fs::File::from_std(file));
            agent.serve(read, write).await
        };
        if let Err(error) = served.await
            && told.is_news(&error.to_string(), tokio::time::Instant::now())
        {
            match at {
                Some(at) => eprintln!("holdfast-guest: vsock port {}: {error}", at.port),
                None => eprintln!("holdfast-guest: {}: {error}", port.display()),
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Option<Asked> {
        asked(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn a_config_can_be_checked_and_the_program_asked_what_it_is() {
        let port = PathBuf::from("/dev/virtio-ports/holdfast.0");
        assert_eq!(of(&[]), Some(Asked::Serve { config: CONFIG.into(), port: port.clone() }));
        assert_eq!(of(&["--config", "a.yaml"]), Some(Asked::Serve { config: "a.yaml".into(), port }));
        assert_eq!(of(&["--check", "--config", "a.yaml"]), Some(Asked::Check { config: "a.yaml".into() }));
        assert_eq!(of(&["--help"]), Some(Asked::Say(USAGE.to_owned())));
        assert!(matches!(of(&["--version"]), Some(Asked::Say(text)) if text.starts_with("holdfast-guest ")));
    }

    #[test]
    fn wrong_arguments_are_none_that_are_served() {
        for wrong in [&["run"][..], &["--config"], &["--check", "--port"], &["--conf", "a.yaml"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
