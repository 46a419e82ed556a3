//! The cluster of a run, as its seed has it: how many hosts of which kind, and how many guests.

use crate::{lab::HostSpec, simulator::random::Random};

/// Fewest and most hosts: each has two daemons, and all of them share the processors of one machine with emulated guests.
pub const HOSTS: std::ops::RangeInclusive<usize> = 3..=5;
/// Fewest and most guests.
pub const GUESTS: std::ops::RangeInclusive<usize> = 1..=4;

/// The stream of chance that clusters are drawn from.
const STREAM: u64 = 0xC1A5;
/// The time-out of watchdogs, in seconds.
const WATCHDOG_SECONDS: u32 = 4;
/// One host in so many relies on its lease and a watchdog alone; the others have a power device.
const WATCHED_ODDS: u64 = 4;
/// One cluster of three in so many has a witness.
const WITNESS_ODDS: u64 = 5;

/// A guest of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSpec {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
}

/// What a run is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The hosts.
    pub hosts: Vec<HostSpec>,
    /// The guests.
    pub guests: Vec<GuestSpec>,
    /// Whether Holdfast switches a fenced host on again; otherwise the run does, as a person would.
    pub power_on_after_fence: bool,
}

impl Setup {
    /// The cluster of a seed; with so many hosts or guests, where that is said.
    #[must_use]
    pub fn draw(seed: u64, hosts: Option<usize>, guests: Option<usize>) -> Self {
        let mut random = Random::new(seed, STREAM);
        // Drawn also when it is said, so that everything else stays what it is.
        let (drawn_hosts, drawn_guests) = (3 + random.index(3), 2 + random.index(3));
        let (hosts, guests) = (hosts.unwrap_or(drawn_hosts), guests.unwrap_or(drawn_guests));
        let witness = random.one_in(WITNESS_ODDS) && hosts == 3;
        let power_on_after_fence = random.one_in(2);
        let spec = |number: usize, random: &mut Random| {
            let name = format!("h{number}");
            let watched = random.one_in(WATCHED_ODDS);
            match number {
                3 if witness => HostSpec::witness(&name),
                // An even number of voters tolerates no more than the odd one below it.
                4 if hosts == 4 => HostSpec::member(&name),
                _ if watched => HostSpec::watched(&name, WATCHDOG_SECONDS),
                _ => HostSpec::voter(&name),
            }
        };
        Self {
            hosts: (1..=hosts).map(|number| spec(number, &mut random)).collect(),
            guests: (1..=guests).map(guest).collect(),
            power_on_after_fence,
        }
    }

    /// Hosts that run guests, by name.
    #[must_use]
    pub fn runners(&self) -> Vec<&str> {
        self.hosts.iter().filter(|spec| !spec.witness).map(|spec| spec.name.as_str()).collect()
    }
}

fn guest(number: usize) -> GuestSpec {
    GuestSpec { name: format!("web-{number}"), address: format!("10.77.0.{}", 99 + number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_cluster_again_and_seeds_draw_every_kind() {
        let all: Vec<Setup> = (0..200).map(|seed| Setup::draw(seed, None, None)).collect();
        assert_eq!(all, (0..200).map(|seed| Setup::draw(seed, None, None)).collect::<Vec<_>>());
        for setup in &all {
            assert!(HOSTS.contains(&setup.hosts.len()) && GUESTS.contains(&setup.guests.len()), "{setup:?}");
            assert!(setup.hosts.iter().filter(|spec| spec.voter).count() % 2 == 1, "{setup:?}");
            assert!(setup.runners().len() >= 2, "{setup:?}");
        }
        let any = |found: fn(&HostSpec) -> bool| all.iter().any(|setup| setup.hosts.iter().any(found));
        assert!(any(|spec| spec.witness) && any(|spec| !spec.voter) && any(|spec| spec.watchdog_seconds.is_some()));
    }

    #[test]
    fn what_is_said_of_a_cluster_counts() {
        let setup = Setup::draw(7, Some(4), Some(1));
        assert_eq!((setup.hosts.len(), setup.guests.len()), (4, 1));
        assert_eq!(setup.guests.first().unwrap().address, "10.77.0.100");
    }
}
