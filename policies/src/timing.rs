//! What hosts say of `timing` in their host files, and in which of its keys one differs from the others. It has to be the same on
//! every host, because what one of them waits for others count on. A difference is told to people; nothing is decided by it.
//!
//! The cluster's value of a key is the one that most voters have; of several that as many have, that of the voter whose name comes
//! first. It is known once no voter that has said nothing could change it. So whoever coordinates finds the same value or none,
//! however few it has heard, and does not accuse one host after another.

use std::{cmp::Reverse, collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    evidence::Evidence,
    hostfile::Timing,
    time::{Span, millis},
};

/// `timing` of a host file as it travels. A key that the sender's version does not have is `None`, and one that is not known here
/// is passed over: versions whose keys differ understand each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TimingTold {
    /// `gossip_interval`, in milliseconds.
    pub gossip_interval_ms: Option<u64>,
    /// `sync_every`, in milliseconds.
    pub sync_every_ms: Option<u64>,
    /// `wonder_after`, in milliseconds.
    pub wonder_after_ms: Option<u64>,
    /// `suspect_after`, in milliseconds.
    pub suspect_after_ms: Option<u64>,
    /// `lease`, in milliseconds.
    pub lease_ms: Option<u64>,
    /// `join_grace`, in milliseconds.
    pub join_grace_ms: Option<u64>,
}

impl TimingTold {
    /// What a host with this timing says.
    #[must_use]
    pub fn of(timing: &Timing) -> Self {
        let Timing { gossip_interval, sync_every, wonder_after, suspect_after, lease, join_grace } = *timing;
        let ms = |span: Span| Some(millis(span.0));
        Self {
            gossip_interval_ms: ms(gossip_interval),
            sync_every_ms: ms(sync_every),
            wonder_after_ms: ms(wonder_after),
            suspect_after_ms: ms(suspect_after),
            lease_ms: ms(lease),
            join_grace_ms: ms(join_grace),
        }
    }

    /// Each key as it stands in host files, with what is said of it.
    fn by_key(&self) -> [(&'static str, Option<u64>); 6] {
        let Self { gossip_interval_ms, sync_every_ms, wonder_after_ms, suspect_after_ms, lease_ms, join_grace_ms } =
            *self;
        [
            ("gossip_interval", gossip_interval_ms),
            ("sync_every", sync_every_ms),
            ("wonder_after", wonder_after_ms),
            ("suspect_after", suspect_after_ms),
            ("lease", lease_ms),
            ("join_grace", join_grace_ms),
        ]
    }
}

/// Whether all hosts that have said anything of their timing have said the same.
#[must_use]
pub fn is_same_everywhere(evidence: &Evidence) -> bool {
    let mut told = evidence.hosts.values().filter_map(|seen| seen.timing.as_ref());
    let first = told.next();
    told.all(|other| Some(other) == first)
}

/// The cluster's timing, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// By key; none of which no voter has said anything.
    values: BTreeMap<&'static str, Value>,
}

/// The cluster's value of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// In milliseconds.
    Known(u64),
    /// Voters that have said nothing could still change it.
    Open,
    /// No voter's version has this key.
    Nobodys,
}

/// In which keys a host differs from the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// All that are known.
    pub differences: Vec<Difference>,
    /// Whether the cluster's value of every key is known that the host has.
    pub is_complete: bool,
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which, as it stands in host files.
    pub key: &'static str,
    /// The host's own value, in milliseconds.
    pub own_ms: u64,
    /// The cluster's, in milliseconds.
    pub common_ms: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} and not {}", self.key, Span::ms(self.own_ms), Span::ms(self.common_ms))
    }
}

impl Common {
    /// What the voters' words amount to.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let said = evidence.voters.iter().map(|voter| evidence.hosts.get(voter).and_then(|seen| seen.timing));
        let said: Vec<Option<TimingTold>> = said.collect();
        let silent = said.iter().filter(|told| told.is_none()).count();
        let mut by_key: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
        for (key, value) in said.iter().flatten().flat_map(TimingTold::by_key) {
            by_key.entry(key).or_default().extend(value);
        }
        Self { values: by_key.into_iter().map(|(key, values)| (key, value_of(&values, silent))).collect() }
    }

    /// In which keys a host differs that has said this.
    #[must_use]
    pub fn compare(&self, told: &TimingTold) -> Compared {
        let mut compared = Compared { differences: Vec::new(), is_complete: true };
        for (key, own) in told.by_key() {
            let Some(own_ms) = own else { continue };
            match self.values.get(key) {
                Some(Value::Known(common)) if *common == own_ms => {}
                Some(Value::Known(common)) => {
                    compared.differences.push(Difference { key, own_ms, common_ms: *common });
                }
                Some(Value::Nobodys) => {}
                Some(Value::Open) | None => compared.is_complete = false,
            }
        }
        compared
    }
}

/// The cluster's value of a key: from what voters have said of it, in the order of their names, and how many have said nothing.
fn value_of(said: &[u64], silent: usize) -> Value {
    let mut counts: Vec<(u64, usize)> = Vec::new();
    for value in said {
        match counts.iter_mut().find(|(known, _)| known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((*value, 1)),
        }
    }
    // It keeps the order of those that as many have.
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let mut ranked = counts.into_iter();
    match (ranked.next(), ranked.next().map_or(0, |(_, count)| count)) {
        (Some((value, count)), next) if silent == 0 || count > next + silent => Value::Known(value),
        (None, _) if silent == 0 => Value::Nobodys,
        (Some(_) | None, _) => Value::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evidence::HostEvidence, fixture::host, sync::SyncRequest};

    fn told(lease_secs: u64) -> TimingTold {
        TimingTold::of(&Timing { lease: Span::secs(lease_secs), ..Timing::default() })
    }

    /// Voters, each with a lease of so many seconds; `None`: it has said nothing.
    fn voters(said: &[(&str, Option<u64>)]) -> Evidence {
        let seen = |(of, lease): &(&str, Option<u64>)| {
            (host(of), HostEvidence { timing: lease.map(told), ..HostEvidence::default() })
        };
        let voters = said.iter().map(|(of, _)| host(of)).collect();
        Evidence { voters, hosts: said.iter().map(seen).collect(), ..Evidence::default() }
    }

    fn lease(said: &[(&str, Option<u64>)]) -> Option<Value> {
        Common::of(&voters(said)).values.get("lease").copied()
    }

    #[test]
    fn the_value_that_most_voters_have_counts_and_of_as_many_that_of_the_first_by_name() {
        assert_eq!(lease(&[("a", Some(5)), ("b", Some(4)), ("c", Some(4))]), Some(Value::Known(4_000)));
        assert_eq!(lease(&[("a", Some(5)), ("b", Some(4))]), Some(Value::Known(5_000)));
        assert_eq!(lease(&[("a", Some(6)), ("b", Some(4)), ("c", Some(5))]), Some(Value::Known(6_000)));
        assert_eq!(lease(&[("a", Some(4))]), Some(Value::Known(4_000)));
        assert_eq!(lease(&[]), None);
    }

    #[test]
    fn no_value_is_known_that_a_voter_which_has_said_nothing_could_change() {
        assert_eq!(lease(&[("a", Some(4)), ("b", Some(4)), ("c", None)]), Some(Value::Known(4_000)));
        assert_eq!(lease(&[("a", Some(4)), ("b", Some(5)), ("c", None)]), Some(Value::Open));
        assert_eq!(lease(&[("a", Some(4)), ("b", None), ("c", None)]), Some(Value::Open));
        assert_eq!(lease(&[("a", None), ("b", None), ("c", None)]), None);
    }

    #[test]
    fn whoever_has_heard_fewer_voters_finds_the_same_value_or_none() {
        let names = ["a", "b", "c", "d", "e"];
        for world in 0..3_u64.pow(5) {
            let has = |voter: u32| 4 + world / 3_u64.pow(voter) % 3;
            let found = |heard: u32| {
                let voters = names.into_iter().zip(0_u32..);
                let said = voters.map(|(of, voter)| (of, ((heard >> voter) & 1 == 1).then(|| has(voter))));
                lease(&said.collect::<Vec<_>>())
            };
            let by_all = found(31);
            assert!(matches!(by_all, Some(Value::Known(_))), "{by_all:?}");
            for heard in 0..31 {
                let by_few = found(heard);
                let agrees = matches!(by_few, None | Some(Value::Open)) || by_few == by_all;
                assert!(agrees, "world {world}, heard {heard:05b}: {by_few:?} and not {by_all:?}");
            }
        }
    }

    #[test]
    fn what_differs_is_told_with_both_values() {
        let common = Common::of(&voters(&[("a", Some(4)), ("b", Some(4)), ("c", Some(4))]));
        assert_eq!(common.compare(&told(4)), Compared { differences: Vec::new(), is_complete: true });
        let mistaken = Timing { lease: Span::secs(40), suspect_after: Span::ms(2_500), ..Timing::default() };
        let compared = common.compare(&TimingTold::of(&mistaken));
        let words: Vec<String> = compared.differences.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["suspect_after is 2500ms and not 1500ms", "lease is 40s and not 4s"]);
        assert!(compared.is_complete);
    }

    #[test]
    fn what_is_not_known_is_no_difference_and_no_agreement() {
        let compared = Common::of(&voters(&[("a", Some(4)), ("b", Some(5)), ("c", None)])).compare(&told(5));
        assert_eq!(compared, Compared { differences: Vec::new(), is_complete: false });
        let nothing_heard = Common::of(&voters(&[("a", None)])).compare(&told(5));
        assert_eq!(nothing_heard, Compared { differences: Vec::new(), is_complete: false });
    }

    #[test]
    fn a_key_that_a_version_does_not_have_differs_from_nothing() {
        let same = Compared { differences: Vec::new(), is_complete: true };
        let without = TimingTold { lease_ms: None, ..told(4) };
        let mut evidence = voters(&[("a", Some(4)), ("b", Some(4)), ("c", Some(4))]);
        assert_eq!(Common::of(&evidence).compare(&without), same);
        evidence.hosts.get_mut(&host("a")).unwrap().timing = Some(without);
        assert_eq!(Common::of(&evidence).compare(&told(4)), same, "two of two have it");
        for seen in evidence.hosts.values_mut() {
            seen.timing = Some(without);
        }
        assert_eq!(Common::of(&evidence).compare(&told(40)), same, "nobody has it");
    }

    #[test]
    fn a_sync_of_an_older_version_says_nothing_of_timing_and_one_of_a_newer_version_reads() {
        let older = r#"{"host":"d","facts":{"incarnation":"d.1","machine_id":"m","address":"10.0.0.1:7000","memory_mib":8192,
            "cores":8,"guests":true},"nonce":1,"seen":{"generation":1,"term":1,"index":0},"floors_known":true,"reports":[],
            "results":[],"sights":[],"unwell":null,"known_view":0}"#;
        let mut request: SyncRequest = serde_json::from_str(older).unwrap();
        assert_eq!(request.timing, None, "it is not taken for the default");
        request.timing = Some(told(5));
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<SyncRequest>(&text).unwrap(), request);
        let newer = text.replace("\"lease_ms\":5000", "\"of_tomorrow_ms\":7");
        assert_ne!(newer, text);
        let read = serde_json::from_str::<SyncRequest>(&newer).unwrap();
        assert_eq!(read.timing, Some(TimingTold { lease_ms: None, ..told(5) }));
    }
}
