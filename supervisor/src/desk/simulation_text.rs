//! What a loss would come to, for people to read: the verdict first.

use std::fmt::Write as _;

use holdfast_policies::{
    bound::{Bound, Stretch},
    plan::{ProofEstimate, Simulation, Start, Verdict},
    some_of::some_of,
    time::Span,
};

use super::words::{at_most, stretched};

/// Guests named in one line: JSON names them all.
const NAMED_MAX: usize = 5;

/// The whole answer as text.
#[must_use]
pub fn simulation_text(simulation: &Simulation) -> String {
    let mut text = format!("{}\n", verdict(simulation));
    for (host, proof) in &simulation.lost {
        let how = match proof {
            ProofEstimate::Device { soonest_ms, slow_ms } => {
                format!("proven off after {}", between(*soonest_ms, *slow_ms))
            }
            ProofEstimate::Lease { ms } => {
                format!("its lease and its watchdog prove it {} after its last lease", Span::ms(*ms))
            }
            ProofEstimate::NotNeeded => "nothing that has to start elsewhere runs there".to_owned(),
            ProofEstimate::Person => {
                format!("no power device proves it: `holdfast host confirm-off {host} --operator YOUR-NAME`")
            }
        };
        line(&mut text, &format!("lost     {host}: {how}"));
    }
    for (row, start) in simulation.starts.iter().enumerate() {
        line(&mut text, &format!("start {:>3} {}", row + 1, started(simulation, start)));
        if let Some(bound) = &start.bound {
            line(&mut text, &format!("          {}", guaranteed(bound)));
        }
    }
    for (stretch, guests) in stretches(simulation) {
        line(&mut text, &format!("         {} ({})", stretched(stretch), some_of(guests, NAMED_MAX, ", ")));
    }
    for guest in &simulation.gives_way {
        line(&mut text, &format!("stopped  {guest}: it gives way to guests of higher priority"));
    }
    for (guest, why) in &simulation.nowhere {
        line(&mut text, &format!("nowhere  {guest}: {why}"));
    }
    let shown = |guest| simulation.nowhere.contains_key(guest);
    for (guest, (lost, why)) in
        simulation.tried.iter().flat_map(|tried| &tried.unplaced).filter(|(guest, _)| !shown(guest))
    {
        let lost: Vec<&str> = lost.iter().map(|host| host.as_str()).collect();
        line(&mut text, &format!("nowhere  {guest} without {}: {why}", lost.join(", ")));
    }
    line(&mut text, &format!("stay     {} guests", simulation.stays));
    for note in &simulation.notes {
        line(&mut text, &format!("note     {note}"));
    }
    text
}

fn verdict(simulation: &Simulation) -> String {
    let word = match (simulation.survives, simulation.places) {
        (true, _) => "SURVIVES: every guest comes back by itself",
        (false, Verdict::Yes) => "NOT BY ITSELF: every guest has a place, and a person is needed",
        (false, Verdict::No) => "DOES NOT SURVIVE: guests are left without a place",
        (false, Verdict::Unknown) => "UNKNOWN: not everything was tried, and what was tried is not enough to say yes",
    };
    let Some(tried) = &simulation.tried else { return word.to_owned() };
    let what = tried.domain.as_deref().unwrap_or("host");
    format!("{word} (any {} of `{what}`; {} of {} cases tried; the worst follows)", tried.losses, tried.cases, tried.of)
}

fn started(simulation: &Simulation, start: &Start) -> String {
    let by_person = simulation.lost.get(&start.from) == Some(&ProofEstimate::Person);
    let when = match (start.soonest_ms, start.slow_ms) {
        (Some(soonest), Some(slow)) => format!("answers after {}", between(soonest, slow)),
        (Some(soonest), None) => format!(
            "answers after {} if its host's power device says off by itself, else when a person has decided",
            Span::ms(soonest)
        ),
        _ if by_person => "when a person has confirmed that its host is off".to_owned(),
        _ => "not by itself".to_owned(),
    };
    format!("{}: {} -> {}, {when}; {}", start.guest, start.from, start.to, start.why)
}

/// The bound and its parts: `explain` says of each why it takes so long.
fn guaranteed(bound: &Bound) -> String {
    let what = bound.what();
    if let Some(why) = &bound.unbounded {
        return format!("no bound ({what}): {why}");
    }
    let parts = bound.parts.iter().filter(|part| part.within_ms != Some(0));
    let parts: Vec<String> = parts.map(|part| format!("{} {}", part.stage.word(), at_most(part.within_ms))).collect();
    format!("at most {} ({what}): {}", at_most(bound.within_ms), parts.join(" + "))
}

/// What stretches the bounds, each once, with the guests whose bound it stretches.
fn stretches(simulation: &Simulation) -> Vec<(&Stretch, Vec<&str>)> {
    let mut told: Vec<(&Stretch, Vec<&str>)> = Vec::new();
    for start in &simulation.starts {
        let bounded = start.bound.iter().filter(|bound| bound.within_ms.is_some());
        for stretch in bounded.flat_map(|bound| &bound.stretched_by) {
            let guest = start.guest.as_str();
            match told.iter_mut().find(|(known, _)| *known == stretch) {
                Some((_, guests)) => guests.push(guest),
                None => told.push((stretch, vec![guest])),
            }
        }
    }
    told
}

fn between(soonest: u64, slow: u64) -> String {
    let (soonest, slow) = (Span::ms(soonest), Span::ms(slow));
    if soonest == slow { soonest.to_string() } else { format!("{soonest} to {slow}") }
}

fn line(text: &mut String, what: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  {what}");
}
