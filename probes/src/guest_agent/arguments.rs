//! What the command line of `holdfast-guest` asks for.

use std::path::PathBuf;

use super::protocol::PORT_NAME;

/// Where the guest's operator says what may be asked.
const CONFIG: &str = "/etc/holdfast/guest.yaml";

/// How it is called.
pub const USAGE: &str = "usage: holdfast-guest [--config FILE] [--port FILE] [--check]
  --config   what may be asked; default /etc/holdfast/guest.yaml
  --port     the virtio-serial port; default /dev/virtio-ports/holdfast.0; not used where the config has `vsock`
  --check    says whether the config has a mistake, and ends; nothing is served
  --help, --version";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To answer the host.
    Serve {
        /// The file that says what may be asked.
        config: PathBuf,
        /// The virtio-serial port.
        port: PathBuf,
    },
    /// To look at the config alone.
    Check {
        /// The file that is looked at.
        config: PathBuf,
    },
    /// To say this, and end.
    Say(String),
}

/// What these arguments ask for; `None` where they are wrong.
#[must_use]
pub fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Asked> {
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
