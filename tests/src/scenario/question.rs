//! Questions about a situation: answered by the product's own admission check, nothing runs.
//!
//! "Cannot tell" counts as no: whoever asks whether failures are survived needs a yes that holds.

use std::collections::BTreeSet;

use holdfast_policies::{
    plan::{Problem, Standing, Verdict, admission, if_lost},
    state::Wanted,
};
use serde_json::{Value, json};

use super::{
    build,
    format::{Question, Scenario, Vm},
    world::World,
};

/// Most failures that are counted.
const FAILURES_MAX: u32 = 100;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Whether so many failures are survived.
    Survives,
    /// Whether the loss of these hosts is survived.
    SurvivesThese,
    /// How many failures are survived.
    MaxFailures,
    /// Whether so many failures are still survived when one guest more runs.
    Admits,
    /// Which guests are brought back when their hosts fail.
    Protected,
}

/// What is asked, if it is known; other questions are not guessed at.
#[must_use]
pub fn asked(question: &Question) -> Option<Asked> {
    match question.kind.as_str() {
        "survives-host-failures" | "survives-host-failure" => Some(Asked::Survives),
        "survives-loss-of" | "can-evacuate" => Some(Asked::SurvivesThese),
        "max-host-failures" | "host-failures-tolerated" => Some(Asked::MaxFailures),
        "admission" | "admit-vm" | "can-start-vm" | "new-vm-preserves-plan" | "vm-start-allowed"
            if question.more.contains_key("vm") =>
        {
            Some(Asked::Admits)
        }
        "protected-vms" => Some(Asked::Protected),
        _ => None,
    }
}

/// Answers the scenario's question.
#[must_use]
pub fn answer(scenario: &Scenario) -> Value {
    let Some(question) = &scenario.expect.question else { return Value::Null };
    let losses = question.n.unwrap_or(1);
    let Some(asked) = asked(question) else { return Value::Null };
    let (world, _) = build::build(scenario);
    match asked {
        Asked::MaxFailures => {
            let hosts = u32::try_from(scenario.hosts.len()).unwrap_or(0).min(FAILURES_MAX);
            json!((1..=hosts).take_while(|losses| survives(&world, *losses)).last().unwrap_or(0))
        }
        Asked::SurvivesThese => yes(survives_these(&world, question)),
        // Where it does not hold already, one guest more is the operator's to judge, as in the product.
        Asked::Admits => {
            let still = || survives(&build::build(&with_it(scenario, question)).0, losses);
            yes(!survives(&world, losses) || still())
        }
        Asked::Protected => protected(scenario),
        Asked::Survives => yes(survives(&world, losses)),
    }
}

/// The situation in which the guest in question is wanted as well; one that the question describes is not listed yet.
fn with_it(scenario: &Scenario, question: &Question) -> Scenario {
    let mut with_it = scenario.clone();
    let said = question.more.get("vm");
    let described = said.filter(|said| said.is_object()).cloned();
    let described = described.and_then(|said| serde_json::from_value::<Vm>(said).ok());
    let it = described.as_ref().map(|vm| vm.name.clone()).or_else(|| Some(said?.as_str()?.to_owned()));
    if let Some(described) = described.filter(|vm| with_it.vms.iter().all(|known| known.name != vm.name)) {
        with_it.vms.push(described);
    }
    for vm in with_it.vms.iter_mut().filter(|vm| Some(&vm.name) == it.as_ref()) {
        (vm.desired, vm.managed, vm.ha_enabled) = (Some("running".to_owned()), None, None);
    }
    with_it
}

/// The guests that are looked after, by name.
fn protected(scenario: &Scenario) -> Value {
    let looked_after = scenario.vms.iter().filter(|vm| build::wanted(scenario, vm) == Wanted::Running);
    let names: BTreeSet<&str> = looked_after.map(|vm| vm.name.as_str()).collect();
    json!(names)
}

fn yes(answer: bool) -> Value {
    json!(if answer { "yes" } else { "no" })
}

fn problem(world: &World) -> Problem<'_> {
    let heard = |name: &_| world.nodes.iter().any(|node| node.name == *name && node.connected());
    Problem::of(&world.state, |name| if heard(name) { Standing::Well } else { Standing::Unheard })
}

fn survives(world: &World, losses: u32) -> bool {
    let losses = usize::try_from(losses).unwrap_or(usize::MAX);
    admission(&problem(world), losses, false).verdict == Verdict::Yes
}

fn survives_these(world: &World, question: &Question) -> bool {
    let problem = problem(world);
    let one = question.more.get("host").into_iter();
    let named = question.more.get("hosts").and_then(Value::as_array).into_iter().flatten().chain(one);
    let named = named.filter_map(Value::as_str);
    let lost: BTreeSet<_> =
        named.filter_map(|text| world.names.host(text)).filter_map(|host| problem.host(host)).collect();
    if_lost(&problem, &lost).verdict == Verdict::Yes
}
