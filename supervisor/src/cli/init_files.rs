//! The texts of the files that `holdfast init` and `holdfast operator add` make.

use std::{collections::BTreeMap, net::SocketAddr};

use holdfast_policies::names::{HostName, OperatorName};

use super::init::Plan;

/// A host file. Every key stands on one line of its own, so that scripts can replace it.
pub(super) fn host_file(plan: &Plan, host: &HostName) -> String {
    let cluster = &plan.cluster;
    let voters = listed(&plan.voters);
    let guests = !plan.witnesses.contains(host);
    let address = |port| plan.hosts.get(host).map(|ip| SocketAddr::new(*ip, port).to_string()).unwrap_or_default();
    let (listen, api) = (address(plan.port), address(plan.api_port));
    // Values that could be read as something else than text, such as `1` or `true`, are quoted.
    format!(
        "# Host file of {host}, made by `holdfast init`. Paths that are not absolute count from this file's folder.
host: \"{host}\"
# The cluster's id: the same on every host; supervisors of other clusters are refused.
cluster: \"{cluster}\"
# Durable: the raft log, and what must never be forgotten about guests.
state_dir: /var/lib/holdfast
# Must die with the host: a tmpfs.
run_dir: /run/holdfast
# UDP for gossip, beacons and nudges; TCP for mutual-TLS calls between supervisors.
listen: \"{listen}\"
# Read-only HTTP: /metrics, /healthz, /readyz, /v1/... Without this line nothing is served.
api: \"{api}\"
# Who votes when the cluster is born, and whom this host asks first at each start. Who votes later is the cluster's record.
voters: {{ {voters} }}
# Whether this host runs guests; a witness only votes.
guests: {guests}
# The cluster's authority, and this host's certificate and key (mode 0600).
tls: {{ ca: ca.pem, certificate: \"{host}.pem\", key: \"{host}.key\" }}
# Newest first: the first seals, all open. Two only while keys are being changed.
gossip_keys: [gossip.key]
"
    )
}

/// An operator's identity file.
pub(super) fn identity_file(operator: &OperatorName, voters: &BTreeMap<HostName, SocketAddr>) -> String {
    let voters = listed(voters);
    format!(
        "# Identity of the operator {operator}, made by `holdfast operator add`. Paths that are not absolute count from this
# file's folder.
# The authority that the cluster's hosts have their certificates from, and {operator}'s own certificate and key (mode 0600).
tls: {{ ca: ca.pem, certificate: operator.pem, key: operator.key }}
# Who is asked where the coordinator is: the voters, or some of them.
voters: {{ {voters} }}
"
    )
}

fn listed(voters: &BTreeMap<HostName, SocketAddr>) -> String {
    let voters: Vec<String> = voters.iter().map(|(name, at)| format!("\"{name}\": \"{at}\"")).collect();
    voters.join(", ")
}

/// A voter's ticket for the birth of the cluster, good for one use.
pub(super) fn bootstrap(position: usize) -> String {
    format!("{}\n", serde_json::json!({ "node_id": position + 1 }))
}
