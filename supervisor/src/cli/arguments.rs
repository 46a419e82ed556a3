//! The arguments: what may be written on the command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use holdfast_policies::{
    names::{GuestName, HostName, OperatorName},
    operators::Serial,
    time::Span,
};

use super::values::{host_address, host_size, label, machine, person, reachable, reason, span};

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
    /// Does something to a guest.
    #[command(subcommand)]
    Guest(GuestOrder),
    /// Does something to a host.
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

/// What is to be done to a guest.
#[derive(Debug, Subcommand)]
pub(super) enum GuestOrder {
    /// Moves a guest to another host: while it runs, where it can move so.
    Migrate {
        /// Which.
        guest: GuestName,
        /// Where to; Holdfast chooses when it is not said. The host that it runs on calls a live move off.
        #[arg(long, value_name = "HOST")]
        to: Option<HostName>,
        /// By a stop and a start in any case, also in place of a live move that has not arrived yet.
        #[arg(long)]
        cold: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Stops a guest; it stays stopped until it is started.
    Stop {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Starts a guest that was stopped, or whose starts failed until a person was needed.
    Start {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Leaves a guest alone, however it is: no restart, no move, no stop.
    Unmanage {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Takes a guest that was left alone back into care.
    Manage {
        /// Which.
        guest: GuestName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that you have looked after a guest: its failed starts and taken rungs are forgotten, and it is tried anew.
    Cleanup {
        /// Which.
        guest: GuestName,
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
    /// Leaves a host as it is: it gets no new guests, its guests are not helped, and it is not fenced.
    Maintenance {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Says that a host is about to go down on purpose, so that its silence is no failure.
    Leaving {
        /// Which.
        host: HostName,
        /// It comes back soon: its guests may wait for it.
        #[arg(long)]
        reboot: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets a host that is drained, in maintenance or leaving run guests again.
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
    /// Says that a quarantined host may run guests again, and that no other machine and no earlier boot runs any under its
    /// name.
    LiftQuarantine {
        /// Which.
        host: HostName,
        /// The machine that has the name from here on, where another one than before came under it.
        #[arg(long, value_name = "ID", value_parser = machine)]
        machine: Option<String>,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Says that you have checked which machine a host's power devices are wired to: their word counts again.
    TrustDevice {
        /// Which.
        host: HostName,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Takes a host that is proven gone, and has no vote, out of the cluster for good: none of its certificates counts any
    /// more.
    Revoke {
        /// Which.
        host: HostName,
        /// Why; it is recorded.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        why: String,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Lets a host join under a revoked name, with this certificate and no other.
    Readmit {
        /// Which.
        host: HostName,
        /// The serial number of its new certificate.
        #[arg(long, value_name = "NUMBER")]
        serial: Serial,
        /// Your name; it is recorded.
        #[arg(long, value_name = "NAME", value_parser = person)]
        operator: String,
    },
    /// Signs another certificate of a host, with the cluster's authority.
    Certificate(MakeCertificate),
}

/// Another certificate of a host.
#[derive(Debug, Args)]
pub(super) struct MakeCertificate {
    /// The host's name.
    pub(super) host: HostName,
    /// The folder of the authority, with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    pub(super) ca: PathBuf,
    /// The folder to make; it must not exist, or be empty. Default: one called like the host.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// The host file of a host of the cluster: the new one gets a host file and the gossip key as well.
    #[arg(long, value_name = "FILE", requires = "address")]
    pub(super) like: Option<PathBuf>,
    /// The address at which the others reach the new host.
    #[arg(long, value_name = "IP", requires = "like", value_parser = reachable)]
    pub(super) address: Option<IpAddr>,
}

/// What is to be done with the power devices of a host.
#[derive(Debug, Subcommand)]
pub(super) enum FenceOrder {
    /// Asks every power device of a host for its status, from other hosts. Nothing is switched.
    Test {
        /// Which.
        host: HostName,
        /// Who is to ask them; without it several hosts do.
        #[arg(long, value_name = "HOST")]
        from: Option<HostName>,
    },
    /// Switches a drained host off, sees that it is off, switches it on, and waits for it to join again. It then counts as
    /// verified that the power devices of that level are this host's.
    Drill {
        /// Which.
        host: HostName,
        /// By which of its levels.
        #[arg(long, default_value_t = 1, value_name = "N")]
        level: usize,
        #[command(flatten)]
        operator: Operator,
    },
    /// Lets the fence of a host go on that waits for room in the hour (`fences_per_hour`, `fences_per_hour_in_all`): it is
    /// switched off at once. Once: its next fence needs room again.
    Allow {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
}

/// Who is to vote. A host whose raft store was lost comes back by `add` and then `promote`.
#[derive(Debug, Subcommand)]
pub(super) enum VoterOrder {
    /// Shows the voters and the learners: who answers, and who has caught up.
    List,
    /// Gives a host the log under a new raft id; it does not vote yet.
    Add {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Gives a host that has caught up its vote; the id under which it voted before leaves in the same change.
    Promote {
        /// Which.
        host: HostName,
        #[command(flatten)]
        operator: Operator,
    },
    /// Takes a host's vote away, or takes an addition back.
    Remove {
        /// Which.
        host: HostName,
        /// Even when fewer than three voters are left.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: Operator,
    },
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

/// What is to be done about operators.
#[derive(Debug, Subcommand)]
pub(super) enum OperatorOrder {
    /// Signs a certificate of an operator's own, with the cluster's authority. --config names any host file of the cluster,
    /// for who votes.
    Add(AddOperator),
}

/// A new certificate of an operator.
#[derive(Debug, Args)]
pub(super) struct AddOperator {
    /// The operator's name, as the journal will have it.
    pub(super) name: OperatorName,
    /// The folder of the authority, with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    pub(super) ca: PathBuf,
    /// The folder to make; it must not exist, or be empty. Default: one called like the operator.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// How many days it is good for.
    #[arg(long, default_value_t = 365, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(super) days: u16,
}

/// What is supposed to be lost, and of which cluster.
#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Policy files and folders, for a question about a cluster that need not exist; with --host.
    #[arg(value_name = "DIR|FILE")]
    pub(super) files: Vec<PathBuf>,
    /// A host with its memory for guests, and its processors; once per host. Guests are placed on them first.
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
    /// The name given, else that of the identity, else that of the login, else the number of the user.
    pub(super) fn name(self, speaker: Option<&OperatorName>) -> String {
        let from = |variable| std::env::var(variable).ok().and_then(|name| person(&name).ok());
        let login = || from("SUDO_USER").or_else(|| from("USER"));
        let known = self.operator.or_else(|| speaker.map(ToString::to_string));
        known.or_else(login).unwrap_or_else(|| format!("user {}", nix::unistd::getuid()))
    }
}
