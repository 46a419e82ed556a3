//! The arguments of what makes certificates and files: for a new cluster, for another host, and for operators.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};
use holdfast_policies::names::{HostName, OperatorName};

use super::values::{host_address, reachable};

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
