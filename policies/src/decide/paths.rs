//! Ways to switch hosts off are tried while nothing is wrong: each device now and then, by one host after the other, one
//! at a time. Two others ask each device as soon as it is declared: with two ways known, the loss of one of them leaves one.
//! What does not work, was never tried, or would be no proof is told to people before it is needed.

use std::{cell::OnceCell, time::Duration};

use super::{
    Decision, Round,
    fences::{close, open},
    subject::Subject,
};
use crate::{
    fence_path::{PATHS_MAX, PathTest, TEST_EVERY},
    model::{FenceLevel, Severity},
    names::HostName,
    state::{Host, Life},
    time::Span,
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "path";

/// Rest after a way has failed for both of those who try first, twice as long after each time that follows, and the longest:
/// what hiccups is well within seconds, and a controller restarts within minutes.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));

/// The same once somebody was not let in, and until somebody is: a wrong password does not come right by itself within seconds, and
/// controllers lock users out, for people too, after some five that come within minutes. Another host may know the right one, so it
/// is not given up. A question over IPMI is two logins.
const AGAIN_AFTER_DENIAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How long a coordinator leads before it tries any: until then it has not heard who is there.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// How long nobody is told of devices that nobody has verified: a drill takes minutes, and whoever has just declared them, or
/// has just put the host in, is about to do it.
const VERIFIED_WITHIN: Duration = Duration::from_secs(3600);

/// A way that is to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathToTest {
    /// Whose power devices.
    pub host: HostName,
    /// Who asks them.
    pub executor: HostName,
}

/// Decides which way is tried next, and tells of those that do not work.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision, subjects: &[Subject<'_>]) {
    let shared = OnceCell::new();
    let is_shared = |machine: &str| shared.get_or_init(|| round.state.shared_machine_ids()).contains(machine);
    for subject in subjects {
        if subject.has_device() {
            tell(round, decision, subject, &is_shared);
        } else {
            close(decision, ABOUT, subject);
        }
    }
    let leads_for = round.evidence.quorum_since.map_or(Duration::ZERO, |since| round.now.moment.since(since));
    if round.state.suspended.is_none() && leads_for >= SETTLED_AFTER {
        let up = subjects.iter().filter(|subject| subject.has_device() && subject.host.life == Life::Up);
        let mut up: Vec<_> = up.collect();
        // Whoever has waited longest, so that devices that do not answer do not keep the others from their turn. Who is to
        // ask is looked for only until one is due, because that walks over all hosts.
        up.sort_by_cached_key(|subject| newest(subject.host).map(|path| path.index));
        decision.test = up.into_iter().find_map(|subject| due_for(round, subject));
    }
}

fn newest(host: &Host) -> Option<&PathTest> {
    host.paths.iter().max_by_key(|path| path.index)
}

/// Who is to ask the host's devices now, if somebody is: whoever has never, then whoever did longest ago.
fn due_for(round: &Round<'_>, subject: &Subject<'_>) -> Option<PathToTest> {
    let Subject { name, host, levels, .. } = *subject;
    let newest = newest(host);
    let few = host.paths.iter().all(|path| Some(&path.executor) == newest.map(|newest| &newest.executor));
    let is_old = newest.is_none_or(|newest| round.age(newest.index) >= rest(round, name, host, newest));
    // What is local means another machine on each host that asks, so each finds out for itself; as many as are remembered.
    let is_local = levels.iter().any(FenceLevel::is_local) && host.paths.len() < PATHS_MAX;
    // Whoever asks at once after one that was not let in mostly has the same password.
    let at_once = (few || is_local) && newest.is_none_or(|newest| most(host, newest, |path| path.denials) == 0);
    // A host that is silent has its devices asked in earnest.
    if !(is_old || at_once)
        || !round.answers(name)
        || host.drill.is_some()
        || round.state.fence_under_way(name).is_some()
    {
        return None;
    }
    let able = round.state.hosts.keys().filter(|other| *other != name && round.answers(other));
    let last = |other: &HostName| host.paths.iter().filter(|path| path.executor == *other).map(|path| path.index).max();
    let executor = able.min_by_key(|other| last(other))?;
    // A second way is looked for at once, where somebody is there to know it.
    (is_old || last(executor).is_none()).then(|| PathToTest { host: name.clone(), executor: executor.clone() })
}

/// How long its devices rest after the newest try.
fn rest(round: &Round<'_>, name: &HostName, host: &Host, newest: &PathTest) -> Duration {
    match (most(host, newest, |path| path.denials), most(host, newest, |path| path.failures)) {
        (0, 0) => jittered(every(round), name),
        (0, failures) => doubled(AGAIN_AFTER, failures.saturating_sub(2)),
        (denials, _) => doubled(AGAIN_AFTER_DENIAL, denials.saturating_sub(1)),
    }
}

/// The most of something that was counted at any level in the newest try: one is of all levels.
fn most(host: &Host, newest: &PathTest, counted: fn(&PathTest) -> u32) -> u32 {
    let together = host.paths.iter().filter(|path| path.index == newest.index);
    together.map(counted).max().unwrap_or(0)
}

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(8)).min(longest)
}

fn every(round: &Round<'_>) -> Duration {
    round.state.policies.cluster.test_fencing_every.unwrap_or(TEST_EVERY).0
}

/// Up to an eighth later, by the host's name: hosts that joined together are not all asked together for ever.
fn jittered(every: Duration, name: &HostName) -> Duration {
    let sum = name.as_str().bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    every + every / 8 * (sum % 16) / 16
}

/// Tells of levels that nobody has reached of late, and of those of which it is not known that they would prove anything.
fn tell(round: &Round<'_>, decision: &mut Decision, subject: &Subject<'_>, is_shared: &dyn Fn(&str) -> bool) {
    let Subject { name, host, levels, .. } = *subject;
    let broken = by_level(levels, |level, _| trouble(round, host, level));
    let unsure = by_level(levels, |level, declared| {
        untried(round, subject, level, declared).or_else(|| unverified(round, subject, level, is_shared))
    });
    let what = match (broken.is_empty(), unsure.is_empty()) {
        (true, true) => return close(decision, ABOUT, subject),
        (true, false) => format!("it is not known that {name} can be proven off"),
        (false, _) => format!("{name} could not be switched off now"),
    };
    let human = if broken.is_empty() {
        format!(
            "`holdfast fence test {name}` has other hosts ask its devices now, and shows which of them say that they are its \
             own. Where none does, drain {name} and run `holdfast fence drill {name}`, or write `wiring_verified_by`. Until \
             then a failure of {name} may need a person."
        )
    } else {
        let denied = (0..levels.len()).any(|level| is_denied(host, level));
        let seldom = if denied { SELDOM } else { "" };
        format!(
            "Look after the power device, or its settings in `fencing:`; `holdfast fence test {name}` asks it again.{seldom} \
             Until then a failure of {name} may need a person."
        )
    };
    let summary = format!("{what}: {}", [broken, unsure].concat().join("; "));
    open(round, decision, format!("{ABOUT}/{name}"), Severity::Warning, summary, Some(human));
}

/// What is said where a device does not let anybody in.
const SELDOM: &str = " It does not take the user or the password that it is asked with. Each further try may lock that user out, so \
                      by itself it is tested only now and then, up to an hour apart: ask it when you have put them right.";

/// Whether a level would not work because its device does not let anybody in.
fn is_denied(host: &Host, level: usize) -> bool {
    host.fails(level).is_some() && host.newest_path(level).is_some_and(|path| path.denials > 0)
}

fn by_level(levels: &[FenceLevel], wrong: impl Fn(usize, &FenceLevel) -> Option<String>) -> Vec<String> {
    let found = levels.iter().enumerate();
    found.filter_map(|(level, declared)| Some(format!("level {}: {}", level + 1, wrong(level, declared)?))).collect()
}

/// Why a level would not work: no host that tried it last reached it, or nobody has for long.
fn trouble(round: &Round<'_>, host: &Host, level: usize) -> Option<String> {
    if host.fails(level).is_some() {
        // Always the same one of them: who was last is another one each time, and no news.
        let failed = host.paths.iter().filter(|path| path.level == level);
        let first = failed.min_by(|one, other| one.executor.cmp(&other.executor))?;
        return Some(format!("{} got no answer: {}", first.executor, first.error.as_deref().unwrap_or_default()));
    }
    let stale = round.state.fencing_stale_after();
    let proven = host.proven(level)?;
    let is_stale = round.age(proven.index) >= stale;
    is_stale.then(|| format!("it has not been tried for {}", Span(stale)))
}

/// That a level with devices has been there for an interval, and nobody has ever tried it: nobody else is up, or deciding is
/// suspended, or whoever is asked to try it cannot.
fn untried(round: &Round<'_>, subject: &Subject<'_>, level: usize, declared: &FenceLevel) -> Option<String> {
    let Subject { name, host, .. } = *subject;
    if !declared.has_device() || host.newest_path(level).is_some() {
        return None;
    }
    let every = every(round);
    let words = || format!("nobody has tried it, {} after it was declared or {name} joined", Span(every));
    for_long(round, subject, every, words)
}

/// That a level answers, and its word would be no proof: nothing shows whose its devices are. That is told where nothing else
/// would prove the host off either.
fn unverified(
    round: &Round<'_>,
    subject: &Subject<'_>,
    level: usize,
    is_shared: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let Subject { name, host, levels, .. } = *subject;
    if !host.facts.guests || host.proven(level).is_none() || host.fails(level).is_some() {
        return None;
    }
    // Another incident tells of a device that is not trusted.
    let trusted = |level: &usize| !host.distrusted.contains(level);
    let mut others = levels.iter().enumerate().filter(|(level, _)| trusted(level));
    let otherwise = || round.state.lease_ground(name).is_ok();
    if !trusted(&level) || others.any(|(level, declared)| host.is_wired(level, declared, is_shared)) || otherwise() {
        return None;
    }
    for_long(round, subject, VERIFIED_WITHIN, || format!("nobody has verified that it is wired to {name}"))
}

/// The words, once they have been true for that long, or were told before: a coordinator that has just started knows of
/// nothing how long ago it was.
fn for_long(round: &Round<'_>, subject: &Subject<'_>, limit: Duration, words: impl Fn() -> String) -> Option<String> {
    let host = subject.host;
    if host.life != Life::Up {
        return None;
    }
    if round.age(host.joined.max(host.fencing_since)) >= limit {
        return Some(words());
    }
    let open = subject.told.about(ABOUT)?;
    Some(words()).filter(|words| open.summary.contains(words))
}
