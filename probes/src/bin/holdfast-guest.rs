//! `holdfast-guest`: Holdfast's own agent in a guest. See `holdfast_probes::guest_agent`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use holdfast_probes::guest_agent::{Agent, GuestConfig, Seldom, protocol::PORT_NAME, vsock};

/// Where the guest's operator says what may be asked.
const CONFIG: &str = "/etc/holdfast/guest.yaml";
/// How long a port that is not there, or has failed, is waited for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

const USAGE: &str = "usage: holdfast-guest [--config FILE] [--port FILE]
  --config   what may be asked; default /etc/holdfast/guest.yaml
  --port     the virtio-serial port; default /dev/virtio-ports/holdfast.0; not used where the config has `vsock`";

fn main() -> ExitCode {
    let (mut config, mut port) = (PathBuf::from(CONFIG), PathBuf::from("/dev/virtio-ports").join(PORT_NAME));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--config", Some(path)) => config = path.into(),
            ("--port", Some(path)) => port = path.into(),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let read = std::fs::read_to_string(&config).map_err(|error| error.to_string());
    let agent = match read.and_then(|text| GuestConfig::parse(&text).map_err(|error| error.to_string())) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("holdfast-guest: {}: {error}", config.display());
            return ExitCode::from(2);
        }
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
