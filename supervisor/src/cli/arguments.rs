//! The arguments: what may be written on the command line. Those of orders are in `orders.rs`, those of what makes certificates
//! and files in `making.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use holdfast_policies::{
    names::{GuestName, HostName, OperatorName},
    time::Span,
};

use super::{
    making::{Init, OperatorOrder},
    orders::{FenceOrder, GuestOrder, HostOrder, VoterOrder},
    values::{host_size, label, person, span},
};

/// Lines of at most 79 characters: wider ones are broken anew by terminals, without their indentation.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, or it was so already
  1  refused, or failed; or an answer that is a no: of `simulate`, not every
     guest would come back by itself; of `fence test`, a level is reached by
     nobody, or a device is another machine's; of `recover`, it is not to be
     made here
  2  the command line is wrong, or files have mistakes (all are shown)
  3  no quorum, no answer from the supervisor, or a host has not said yet what
     has to be known of it: it may work later. What was told without an answer
     may still be carried out: look before you tell it again";

/// Keeps the services inside virtual machines answering.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// This host's file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/holdfast/holdfast.yaml")]
    pub(super) config: PathBuf,
    /// Speaks as the operator whose identity file this is, to the coordinator itself. Default: $HOLDFAST_IDENTITY, else
    /// ~/.config/holdfast/identity.yaml where it exists, else this host's supervisor is asked and vouches.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,
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
    /// Makes certificates for operators.
    #[command(subcommand)]
    Operator(OperatorOrder),
    /// Runs this host's supervisor.
    Run,
    /// Runs this host's guard, which outlives the supervisor.
    Guard {
        /// Takes over from a guard that runs, with its lease, its guests and its watchdog, and without a gap. Without
        /// this, a second guard refuses to start.
        #[arg(long)]
        take_over: bool,
    },
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
    /// Shows the policy files that are in force, as they were applied.
    Policies {
        /// Writes them there; the folder must not exist, or be empty.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Shows what the loss of hosts would come to: of the running cluster, or of policy files with --host.
    Simulate(Simulate),
    /// Shows how everything is: what is wrong first.
    Status {
        /// Lists every host and guest; without it, those that are well are only counted where there are many.
        #[arg(long)]
        all: bool,
    },
    /// Explains a guest: how it is, what protects it, and the story of its incidents.
    Explain {
        /// Which.
        guest: GuestName,
    },
    /// Shows what was decided, and why.
    Journal(Journal),
    /// Suspends deciding: what is under way is finished, nothing else is begun. Guests run on, nobody is fenced.
    Suspend {
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets deciding go on.
    Resume {
        #[command(flatten)]
        operator: Operator,
    },
    /// Moves, stops and starts a guest, leaves it alone, or has it tried anew.
    #[command(subcommand)]
    Guest(GuestOrder),
    /// Drains a host, leaves it alone, announces that it goes, confirms that it is off, revokes it, and more.
    #[command(subcommand)]
    Host(HostOrder),
    /// Shows or changes who votes.
    #[command(subcommand)]
    Voter(VoterOrder),
    /// Asks the power devices of a host, or tries them.
    #[command(subcommand)]
    Fence(FenceOrder),
    /// Shows what is left of a cluster whose majority of voters is lost for good, and with --force goes on with it. Run it on
    /// one surviving voter, whose supervisor is stopped.
    Recover(Recover),
    /// Lets fencing go on in the present storm: you have looked, and the silent hosts have really failed.
    ReleaseStormHold {
        #[command(flatten)]
        operator: Operator,
    },
    /// Prints what completes these commands in bash.
    Completions,
}

/// Which part of the journal.
#[derive(Debug, Args)]
pub(super) struct Journal {
    /// How many entries, the newest; 2000 at most are shown. Default: 50, with --since all of that time.
    #[arg(long, value_name = "N")]
    pub(super) last: Option<usize>,
    /// What was decided within this time, such as 2h.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(super) since: Option<Span>,
    /// Goes on with what is decided from now on, until it is interrupted; with --json a line each.
    #[arg(long, short)]
    pub(super) follow: bool,
}

/// A recovery after a majority of the voters was lost.
#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Does it. Without this, nothing is changed.
    #[arg(long)]
    pub(super) force: bool,
    /// The words that are shown without --force: that you know what is lost.
    #[arg(long, value_name = "WORDS")]
    pub(super) i_understand: Option<String>,
    /// Your name; it is recorded.
    #[arg(long, value_name = "NAME", value_parser = person)]
    pub(super) operator: Option<String>,
}

/// What is supposed to be lost, and of which cluster.
#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Policy files and folders, for a question about a cluster that need not exist; with --host.
    #[arg(value_name = "DIR|FILE")]
    pub(super) files: Vec<PathBuf>,
    /// A host with its memory for guests, and its processors (16 where they are not said); once per host. Guests are placed on
    /// them first.
    #[arg(long = "host", value_name = "NAME=SIZE[,CPUS]", value_parser = host_size)]
    pub(super) hosts: Vec<(HostName, u64, u32)>,
    /// A host that is lost; may be repeated.
    #[arg(long, value_name = "HOST")]
    pub(super) lose: Vec<HostName>,
    /// All hosts with this label are lost, such as rack=r1; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(super) lose_domain: Vec<(String, String)>,
    /// Any so many hosts are lost at once: the worst case is shown.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) any: Option<u32>,
    /// --any counts failure domains (`cluster.failure_domain`) instead of hosts.
    #[arg(long)]
    pub(super) by_domain: bool,
    /// How long a guest takes to boot until it answers.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = span)]
    pub(super) boot: Span,
}

impl Simulate {
    /// Whether it is about files, and not about the running cluster.
    pub(super) fn is_offline(&self) -> bool {
        !self.files.is_empty() || !self.hosts.is_empty()
    }
}

/// Who says so.
#[derive(Debug, Args)]
pub(super) struct Operator {
    /// Your name; it is recorded. Default: that of your identity file, else $SUDO_USER, else $USER.
    #[arg(long, value_name = "NAME", value_parser = person)]
    operator: Option<String>,
}

impl Operator {
    /// The name given, else that of the identity, else that of the login, else the number of the user.
    pub(super) fn name(self, speaker: Option<&OperatorName>) -> String {
        let from = |variable| std::env::var(variable).ok().and_then(|name| person(&name).ok());
        let login = || from("SUDO_USER").or_else(|| from("USER"));
        let known = self.operator.or_else(|| speaker.map(ToString::to_string));
        known.or_else(login).unwrap_or_else(|| format!("user {}", nix::unistd::getuid()))
    }
}
