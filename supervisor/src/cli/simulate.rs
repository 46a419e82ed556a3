//! `holdfast simulate`: what the loss of hosts would come to, from policy files alone or by the word of the supervisor.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use holdfast_policies::{
    hostfile::Timing,
    model::FenceLevel,
    names::{HostName, Incarnation},
    plan::{
        Circumstances, Lose, Problem, ProofEstimate, QUESTION_LOOKS_MAX, Question, Simulation, Standing, imagine,
        simulate,
    },
    state::ClusterState,
    yaml::{self, Source},
};

use super::{
    super::desk::simulation_text,
    arguments::Simulate,
    outcome::{Failure, Reply},
    sources,
};

/// The boot and the address of hosts that nobody has built: nothing is ever sent there.
const IMAGINED_BOOT: &str = "imagined";
const IMAGINED_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);

/// What is asked, with mistakes of the command line told.
pub(super) fn question(order: &Simulate) -> Result<Question, Failure> {
    let usage = |what: &str| Err(Failure::Usage(format!("error: {what}")));
    let named = !order.lose.is_empty() || !order.lose_domain.is_empty();
    let lose = match (order.any, named) {
        (Some(losses), false) => Lose::Any { losses, by_domain: order.by_domain },
        (None, true) if order.by_domain => {
            return usage("--by-domain belongs to --any; a domain by its name is --lose-domain KEY=VALUE");
        }
        (None, true) => Lose::These {
            hosts: order.lose.iter().cloned().collect(),
            domains: order.lose_domain.iter().cloned().collect(),
        },
        (Some(_), true) => return usage("either --any or --lose and --lose-domain"),
        (None, false) => return usage("say what is lost: --lose HOST, --lose-domain KEY=VALUE or --any N"),
    };
    Ok(Question { lose, boot: order.boot })
}

/// Answers from policy files, for hosts that are well and have nothing to do but these guests.
pub(super) fn offline(order: &Simulate) -> Result<Reply, Failure> {
    let question = question(order)?;
    if order.files.is_empty() || order.hosts.is_empty() {
        return Err(Failure::Usage(
            "error: policy files and --host go together; without both, the supervisor is asked".to_owned(),
        ));
    }
    let files = sources::collect(&order.files)?;
    let parsed: Vec<Source<'_>> = files.iter().map(sources::SourceFile::source).collect();
    let policies = yaml::parse(&parsed).map_err(Failure::Findings)?;
    let mut hosts: BTreeMap<HostName, (u64, u32)> = BTreeMap::new();
    for (name, memory_mib, cores) in &order.hosts {
        if hosts.insert(name.clone(), (*memory_mib, *cores)).is_some() {
            return Err(Failure::Usage(format!("error: the host {name} is given twice")));
        }
    }
    let boot = Incarnation::new(IMAGINED_BOOT).map_err(|error| Failure::Failed(error.to_string()))?;
    let state = imagine(policies, &hosts, &boot, IMAGINED_ADDRESS);
    let problem = Problem::of(&state, |_| Standing::Well);
    let (timing, around) = (Timing::default(), Circumstances::default());
    let simulation = simulate(&problem, &state, &timing, &around, &question, QUESTION_LOOKS_MAX);
    let mut simulation = simulation.map_err(|bad| Failure::Failed(bad.to_string()))?;
    let unverified = unverified(&state, &simulation);
    simulation.notes.extend(unverified);
    Ok(reply(&simulation))
}

/// Whether a device is the host's own, which makes its word proof, stands in files only where somebody vouches for it.
fn unverified(state: &ClusterState, simulation: &Simulation) -> Option<String> {
    let by_person = simulation.lost.iter().filter(|(_, proof)| **proof == ProofEstimate::Person);
    let hosts = by_person.map(|(host, _)| host);
    let hosts = hosts.filter(|host| state.policies.levels_of(host).iter().any(FenceLevel::has_device));
    let names: Vec<&str> = hosts.map(HostName::as_str).collect();
    (!names.is_empty()).then(|| {
        format!(
            "nobody vouches in these files that the power devices of {} are its own: in a cluster, those that can tell are \
             asked, and count then",
            names.join(", ")
        )
    })
}

/// The answer; exit code 1 when not every guest comes back by itself.
pub(super) fn reply(simulation: &Simulation) -> Reply {
    let json = serde_json::to_value(simulation).unwrap_or_default();
    Reply { text: simulation_text(simulation), json, code: u8::from(!simulation.survives) }
}
