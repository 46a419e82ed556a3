//! The arguments: what may be written on the command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use holdfast_policies::names::{GuestName, HostName};

/// Longest name of a person, in characters: names are kept in the journal.
const PERSON_CHARACTERS_MAX: usize = 100;

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or it was so already
  1  refused, or failed
  2  the command line is wrong, or files have mistakes (all are shown)
  3  no quorum, or the supervisor cannot be reached: it may work later";

/// Keeps the services inside virtual machines answering.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// This host's file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/holdfast/holdfast.yaml")]
    pub(super) config: PathBuf,
    /// Prints JSON: the answer, or {"error": …}.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) order: Order,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Order {
    /// Makes certificates, the gossip key and host files for a new cluster.
    Init(Init),
    /// Runs this host's supervisor.
    Run,
    /// Runs this host's guard, which outlives the supervisor.
    Guard,
    /// Reads policy files (together), folders of them, or host files, and shows every mistake.
    Check {
        /// Files and folders.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Makes these files the cluster's policies, and shows what that changes.
    Apply {
        /// Files, and folders whose *.yaml files are read. Together they are the whole declaration.
        #[arg(required = true, value_name = "DIR|FILE")]
        files: Vec<PathBuf>,
        /// Only shows what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Shows how everything is: what is wrong first.
    Status,
    /// Explains a guest: how it is, what protects it, and the story of its incidents.
    Explain {
        /// Which.
        guest: GuestName,
    },
    /// Shows what was decided, and why.
    Journal {
        /// How many entries.
        #[arg(long, default_value_t = 50, value_name = "N")]
        last: usize,
    },
    /// Does something to a guest.
    #[command(subcommand)]
    Guest(GuestOrder),
    /// Does something to a host.
    #[command(subcommand)]
    Host(HostOrder),
}

/// What is to be done to a guest.
#[derive(Debug, Subcommand)]
pub(super) enum GuestOrder {
    /// Moves a guest to another host while it runs.
    Migrate {
        /// Which.
        guest: GuestName,
        /// Where to; Holdfast chooses when it is not said.
        #[arg(long, value_name = "HOST")]
        to: Option<HostName>,
        #[command(flatten)]
        operator: Operator,
    },
}

/// What is to be done to a host.
#[derive(Debug, Subcommand)]
pub(super) enum HostOrder {
    /// Moves its guests away, and gives it no new ones.
    Drain {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets a drained host run guests again.
    Resume {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that you have made sure that a host is off: its guests start elsewhere on your word alone.
    ConfirmOff {
        /// Which.
        host: HostName,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
}

/// Who says so.
#[derive(Debug, Args)]
pub(super) struct Operator {
    /// Your name; it is recorded. Default: $SUDO_USER, else $USER.
    #[arg(long, value_name = "NAME", value_parser = person)]
    operator: Option<String>,
}

/// A new cluster.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The folder to make; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// A host and the address at which the others reach it; once per host.
    #[arg(long = "host", required = true, value_name = "NAME=IP", value_parser = host_address)]
    pub(super) hosts: Vec<(HostName, IpAddr)>,
    /// The hosts that vote: 1, 3, 5 or 7. Default: all hosts, or the first of them up to such a number.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(super) voters: Vec<HostName>,
    /// A host that votes and runs no guests; may be repeated.
    #[arg(long = "witness", value_name = "NAME")]
    pub(super) witnesses: Vec<HostName>,
    /// Port for gossip (UDP) and calls between supervisors (TCP).
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: u16,
    /// Port of the read-only HTTP pages.
    #[arg(long, default_value_t = 7480, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) api_port: u16,
}

impl Operator {
    /// The name given, else that of the login, else the number of the user.
    pub(super) fn name(self) -> String {
        let from = |variable| std::env::var(variable).ok().and_then(|name| person(&name).ok());
        let login = || from("SUDO_USER").or_else(|| from("USER"));
        self.operator.or_else(login).unwrap_or_else(|| format!("user {}", nix::unistd::getuid()))
    }
}

fn person(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = (1..=PERSON_CHARACTERS_MAX).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("a name has 1 to {PERSON_CHARACTERS_MAX} characters, none of them a control character"))
    }
}

fn host_address(text: &str) -> Result<(HostName, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=IP, such as hv-a=10.0.0.1")?;
    let name = HostName::new(name).map_err(|error| error.to_string())?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("no host can be reached at {address}"));
    }
    Ok((name, address))
}
