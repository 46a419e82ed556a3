//! How long the guests of a dead host wait does not depend on how many hosts there are (L2).

use super::*;

/// Milliseconds between two rounds; what was asked in one is answered before the next.
const ROUND_MS: u64 = 50;
/// Milliseconds that a power device takes to switch a host off.
const SWITCH_MS: u64 = 1_000;
/// Rounds by which everything is over: ten seconds.
const ROUNDS_MAX: usize = 200;
/// The guests of the host that dies: as many as the two hosts that are left of three start at a time.
const WEBS: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];
/// What a dead host and its guests come to.
const STEPS: [&str; 4] = ["FenceOpened", "FenceAttempted", "HostGone", "Place"];

/// So many hosts, each with a guest, of which `a`, `b` and `c` vote; `c` runs four guests instead.
fn cluster(count: usize) -> Scene {
    let voters = ["a", "b", "c"].map(str::to_owned);
    let names: Vec<String> = voters.into_iter().chain((3..count).map(|row| format!("h{row}"))).collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    let others = hosts.iter().filter(|on| **on != "c");
    let others: Vec<(String, &str)> = others.map(|on| (format!("on-{on}"), *on)).collect();
    let guests: Vec<&str> = WEBS.into_iter().chain(others.iter().map(|(guest, _)| guest.as_str())).collect();
    let mut scene = Scene::new(&hosts, &guests);
    for guest in WEBS {
        scene.stage.run(guest, "c");
    }
    for (guest, on) in &others {
        scene.stage.run(guest, on);
    }
    scene.evidence.voters = ["a", "b", "c"].map(host).into();
    scene.later(600_000);
    scene
}

/// All but `c` sync, and whoever is asked about `c` answers.
fn hear(scene: &mut Scene, died: u64, wishes: &[Wish], is_off: bool) {
    let alive: Vec<String> = scene.stage.state.hosts.keys().map(ToString::to_string).filter(|on| on != "c").collect();
    for on in alive {
        scene.synced(&on, scene.now);
    }
    for wish in wishes {
        match wish {
            Wish::AskVoters { host: of, .. } if *of == host("c") => scene.asked("c", Some(scene.now - died)),
            Wish::AskPower { host: of, .. } if *of == host("c") => {
                let power = if is_off { Power::Off } else { Power::On };
                scene.power("c", PowerReading { power, ..off("c", Moment(scene.now)) });
            }
            Wish::AskVoters { .. } | Wish::AskPower { .. } => {}
        }
    }
}

/// Each step from the death of `c` until its guests are ordered to start elsewhere, with the milliseconds since that death.
fn story(count: usize) -> Vec<(u64, String)> {
    let mut scene = cluster(count);
    let died = scene.now;
    let mut story: Vec<(u64, String)> = Vec::new();
    let mut wishes: Vec<Wish> = Vec::new();
    let mut off_at: Option<u64> = None;
    for _ in 0..ROUNDS_MAX {
        scene.now += ROUND_MS;
        let is_off = off_at.is_some_and(|at| scene.now >= at);
        hear(&mut scene, died, &wishes, is_off);
        let fence = scene.stage.state.fence_under_way(&host("c"));
        off_at = off_at.or(fence.map(|_| scene.now + SWITCH_MS));
        if let Some(order) = fence.filter(|_| is_off) {
            scene.stage.must(Change::OrderEnded { order, outcome: done() });
            scene.power("c", off("c", Moment(scene.now)));
        }
        let decision = scene.decide();
        for command in decision.commands {
            let word = format!("{command:?}").split([' ', '(']).next().unwrap_or_default().to_owned();
            let is_done = scene.stage.apply(command).refused.is_none();
            if is_done && STEPS.contains(&word.as_str()) {
                story.push((scene.now - died, word));
            }
        }
        scene.evidence.marks.applied(scene.stage.index, Moment(scene.now));
        wishes = decision.wishes;
        let starts = |guest: &str| match scene.stage.phase(guest) {
            Phase::Starting { tenure, .. } => tenure.host != host("c"),
            _ => false,
        };
        if WEBS.into_iter().all(starts) {
            return story;
        }
    }
    panic!("{count} hosts: not all guests are ordered to start within {ROUNDS_MAX} rounds: {story:?}");
}

#[test]
fn guests_of_a_dead_host_are_started_as_soon_with_three_hundred_hosts_as_with_three() {
    let three = story(3);
    let steps: Vec<&str> = three.iter().map(|(_, step)| step.as_str()).collect();
    assert_eq!(steps, ["FenceOpened", "FenceAttempted", "HostGone", "Place", "Place", "Place", "Place"]);
    for count in [30, 300] {
        assert_eq!(story(count), three, "{count} hosts");
    }
}
