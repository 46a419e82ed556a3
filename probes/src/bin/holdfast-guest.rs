//! `holdfast-guest`: Holdfast's own agent in a guest. See `holdfast_probes::guest_agent`.

use std::{process::ExitCode, time::Duration};

use holdfast_probes::guest_agent::{
    Agent, GuestConfig, Seldom,
    arguments::{Asked, USAGE, asked},
    vsock,
};

/// How long a port that is not there, or has failed, is waited for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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
