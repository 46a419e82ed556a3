//! Shrinking: leaves happenings out of a plan for as long as the same promise is still broken.

use super::{
    faults::{Happening, Plan},
    report::{End, Options},
    setup::Setup,
};

/// Runs that shrinking may take: it is for people, who wait for it.
const RUNS_MAX: u32 = 400;

/// The shortest plan found that still ends like `end`.
#[must_use]
pub fn shrink(options: &Options, setup: &Setup, mut plan: Plan, end: &End) -> Plan {
    let mut runs = 0;
    let mut shows = |plan: &Plan| {
        runs += 1;
        runs <= RUNS_MAX && alike(&options.run_plan(setup, plan.clone(), false).end, end)
    };
    if !shows(&plan) {
        return plan;
    }
    if let End::Violated(violation) = end {
        let until: Plan = plan.iter().filter(|(at, _)| *at <= violation.at).cloned().collect();
        if shows(&until) {
            plan = until;
        }
    }
    let mut size = plan.len().div_ceil(2).max(1);
    loop {
        let before = plan.len();
        let mut from = 0;
        while from < plan.len() {
            let to = (from + size).min(plan.len());
            let without: Plan = plan[..from].iter().chain(&plan[to..]).cloned().collect();
            let needed = matches!(end, End::Unhealed(_)) && !ends_with_heal(&without);
            if !needed && shows(&without) {
                plan = without;
            } else {
                from = to;
            }
        }
        // What was needed beside something else may be left out once that is.
        if size == 1 && plan.len() == before {
            return plan;
        }
        size = size.div_ceil(2);
    }
}

/// Without an end of the faults nothing has to heal.
fn ends_with_heal(plan: &Plan) -> bool {
    plan.last().is_some_and(|(_, what)| matches!(what, Happening::Heal))
}

fn alike(one: &End, other: &End) -> bool {
    match (one, other) {
        (End::Well, End::Well) | (End::Unhealed(_), End::Unhealed(_)) => true,
        (End::Violated(one), End::Violated(other)) => one.promise == other.promise,
        (End::Well | End::Unhealed(_) | End::Violated(_), _) => false,
    }
}
