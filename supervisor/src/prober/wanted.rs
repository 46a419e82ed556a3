//! What this host has to ask, and how: by the newest view and by who lives.
//!
//! Which hosts look at a service is computed alike by everybody, from the view and from who gossips: rendezvous
//! hashing over the living hosts, so that observers spread, and move little when hosts come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{
    model::Service,
    names::{Epoch, GuestName, HostName, ServiceName, Vantage},
    sync::View,
};

/// One thing that this host asks: a service of a guest, from one vantage.
pub(super) type Subject = (GuestName, ServiceName, Vantage);

/// How a subject is asked. When any of it changes, what is asked is something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Under which assignment.
    pub epoch: Epoch,
    /// What is asked, and how often.
    pub service: Service,
    /// Where the guest is reached.
    pub address: Option<IpAddr>,
}

/// What this host has to ask, and what that follows from. Each host computes of every service of the cluster who looks at it, and
/// with hundreds of hosts that is much; so it is done again only when there is reason to.
#[derive(Default)]
pub(super) struct Wanted {
    of: Option<(BTreeSet<HostName>, Arc<View>)>,
    /// All of it.
    pub all: BTreeMap<Subject, Question>,
}

impl Wanted {
    /// Makes it what it is when these hosts live, and this is the newest view. Returns whether there was reason to.
    pub(super) fn renew(&mut self, me: &HostName, living: BTreeSet<HostName>, view: &Arc<View>) -> bool {
        if self.of.as_ref().is_some_and(|(lived, seen)| *lived == living && Arc::ptr_eq(seen, view)) {
            return false;
        }
        self.all = wanted(me, &living, view);
        self.of = Some((living, Arc::clone(view)));
        true
    }
}

/// What the host `me` has to ask, when these hosts live, itself among them.
fn wanted(me: &HostName, living: &BTreeSet<HostName>, view: &View) -> BTreeMap<Subject, Question> {
    let mut wanted = BTreeMap::new();
    for (guest, (home, epoch)) in &view.homes {
        let Some((_, policy)) = view.policies.policy_of(guest) else { continue };
        let address = view.policies.guests.get(guest).and_then(|declared| declared.address);
        for (name, service) in &policy.services {
            let mut add = |vantage| {
                let question = Question { epoch: *epoch, service: service.clone(), address };
                wanted.insert((guest.clone(), name.clone(), vantage), question);
            };
            if service.from.inside && home == me {
                add(Vantage::Inside);
            }
            let count = usize::try_from(service.from.hosts).unwrap_or(usize::MAX);
            if observers(living, guest, name, home, count).contains(me) {
                add(Vantage::Host(me.clone()));
            }
        }
    }
    wanted
}

/// The hosts that look at a service. The guest's own host comes last: it shares the guest's fate.
fn observers<'a>(
    living: &'a BTreeSet<HostName>,
    guest: &GuestName,
    service: &ServiceName,
    home: &HostName,
    count: usize,
) -> BTreeSet<&'a HostName> {
    let service = hashed(guest, service);
    let mut ranked: Vec<_> = living.iter().map(|host| (host == home, rank(service, host), host)).collect();
    if count < ranked.len() {
        // In which order the first of them stand does not matter.
        ranked.select_nth_unstable(count);
        ranked.truncate(count);
    }
    ranked.into_iter().map(|(_, _, host)| host).collect()
}

/// The services that are asked, from wherever: there are thousands, and each is looked up again and again.
pub(super) fn services(wanted: &BTreeMap<Subject, Question>) -> BTreeSet<(&str, &str)> {
    wanted.keys().map(|(guest, service, _)| (guest.as_str(), service.as_str())).collect()
}

/// After how long a service is asked for the first time: a part of the first quarter of its interval, by its name and by who asks.
pub(super) fn first_after(guest: &GuestName, service: &ServiceName, host: &HostName, every: Duration) -> Duration {
    let share = rank(hashed(guest, service), host) % 1_000;
    every.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 4_000.0)
}

/// After how long it is asked for the second time: a whole interval, or less by one, two or three quarters of it. Else all would be
/// asked in the same quarter for good, and a host would be four times as busy as it has to be.
pub(super) fn second_after(guest: &GuestName, service: &ServiceName, host: &HostName, every: Duration) -> Duration {
    let quarters = rank(hashed(guest, service), host) / 1_000 % 4;
    every - every / 4 * u32::try_from(quarters).unwrap_or(0)
}

/// `GUEST/SERVICE/HOST`, hashed and mixed: small, and alike on every host and in every version. Names of hosts mostly differ
/// at their end alone, which FNV hardly carries into the high bits, so that the same few of them would come first for most services.
fn rank(service: u64, host: &HostName) -> u64 {
    mixed(hashed_on(service, host.as_str()))
}

/// As far as all hosts have it alike.
fn hashed(guest: &GuestName, service: &ServiceName) -> u64 {
    [guest.as_str(), "/", service.as_str(), "/"].into_iter().fold(0xcbf2_9ce4_8422_2325, hashed_on)
}

/// FNV-1a (64 bit, Fowler, Noll and Vo).
fn hashed_on(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Every bit bears on every other one: the end of MurmurHash3 (64 bit, Appleby).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use holdfast_policies::yaml::{self, Source};

    use super::*;
    use crate::prober::tests::WEB;

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    #[test]
    fn the_guests_own_host_looks_only_when_there_are_not_enough_others() {
        let (guest, service) = (GuestName::new("web-1").unwrap(), ServiceName::new("http").unwrap());
        let living: BTreeSet<HostName> = ["a", "b", "c"].map(host).into();
        let chosen = observers(&living, &guest, &service, &host("b"), 2);
        assert!(!chosen.contains(&host("b")) && chosen.len() == 2);
        let living: BTreeSet<HostName> = ["a", "b"].map(host).into();
        assert_eq!(observers(&living, &guest, &service, &host("b"), 2).len(), 2);
    }

    /// Hosts of different versions must choose alike.
    #[test]
    fn who_looks_at_a_service_is_the_same_in_every_version() {
        let (guest, service) = (GuestName::new("web-1").unwrap(), ServiceName::new("http").unwrap());
        let hash = |text: &str| {
            let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            mixed(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
        };
        for name in ["a", "hv-07", "a-much-longer-name"] {
            assert_eq!(rank(hashed(&guest, &service), &host(name)), hash(&format!("web-1/http/{name}")));
        }
        let living: BTreeSet<HostName> = (1..=9).map(|number| host(&format!("hv-{number}"))).collect();
        let mut ranked: Vec<&HostName> = living.iter().filter(|name| **name != host("hv-3")).collect();
        ranked.sort_by_key(|name| hash(&format!("web-1/http/{name}")));
        for count in 0..=8 {
            let wanted: BTreeSet<&HostName> = ranked.iter().copied().take(count).collect();
            assert_eq!(observers(&living, &guest, &service, &host("hv-3"), count), wanted, "{count}");
        }
        assert_eq!(observers(&living, &guest, &service, &host("hv-3"), 100).len(), 9);
    }

    #[test]
    fn what_is_wanted_is_computed_anew_only_for_another_view_or_other_hosts() {
        let policies = yaml::parse(&[Source { name: "web.yaml", text: WEB }]).unwrap();
        let homes = BTreeMap::from([(GuestName::new("web-1").unwrap(), (host("b"), Epoch::default()))]);
        let view = Arc::new(View { policies: policies.into(), homes, ..View::default() });
        let (all, alone) = (BTreeSet::from(["a", "b", "c"].map(host)), BTreeSet::from([host("b")]));
        let mut wanted = Wanted::default();
        // It looks from inside, and alone from itself too.
        assert!(wanted.renew(&host("b"), all.clone(), &view) && wanted.all.len() == 1);
        assert!(!wanted.renew(&host("b"), all.clone(), &view));
        assert!(wanted.renew(&host("b"), alone.clone(), &view) && wanted.all.len() == 2);
        assert!(!wanted.renew(&host("b"), alone.clone(), &view) && wanted.all.len() == 2);
        let empty = Arc::new(View::default());
        assert!(wanted.renew(&host("b"), alone, &empty) && wanted.all.is_empty());
    }

    #[test]
    fn what_is_to_be_asked_is_spread_over_the_hosts_however_they_are_called() {
        let service = ServiceName::new("http").unwrap();
        let names: [fn(usize) -> String; 2] = [|number| format!("h{number}"), |number| format!("hv-{number:02}")];
        for name in names {
            let living: BTreeSet<HostName> = (1..=40).map(|number| host(&name(number))).collect();
            let mut asks: BTreeMap<&HostName, usize> = living.iter().map(|host| (host, 0)).collect();
            for (number, home) in living.iter().cycle().take(2_000).enumerate() {
                let guest = GuestName::new(format!("guest-{number:04}")).unwrap();
                for observer in observers(&living, &guest, &service, home, 2) {
                    *asks.entry(observer).or_default() += 1;
                }
            }
            // A hundred each, if all were alike.
            assert!(asks.values().all(|count| (50..=150).contains(count)), "{asks:?}");
        }
    }

    #[test]
    fn a_start_brings_no_herd_of_questions() {
        let (service, every) = (ServiceName::new("http").unwrap(), Duration::from_secs(10));
        let mut asked = [0_u32; 25];
        for number in 0..2_500 {
            let guest = GuestName::new(format!("guest-{number:04}")).unwrap();
            let first = first_after(&guest, &service, &host("hv-01"), every);
            asked[usize::try_from(first.as_millis()).unwrap() / 100] += 1;
        }
        // A hundred in each tenth of a second, if all were alike.
        assert!(asked.iter().all(|count| (50..=150).contains(count)), "{asked:?}");
    }

    #[test]
    fn from_the_second_question_on_a_host_is_as_busy_in_each_part_of_the_interval_as_in_any_other() {
        let (service, every) = (ServiceName::new("http").unwrap(), Duration::from_secs(10));
        let mut asked = [0_u32; 20];
        for number in 0..2_000 {
            let (guest, host) = (GuestName::new(format!("guest-{number:04}")).unwrap(), host("hv-01"));
            let second = second_after(&guest, &service, &host, every);
            assert!((every / 4..=every).contains(&second), "{second:?}");
            let at = (first_after(&guest, &service, &host, every) + second).as_millis() % every.as_millis();
            asked[usize::try_from(at).unwrap() / 500] += 1;
        }
        // A hundred in each twentieth, if all were alike.
        assert!(asked.iter().all(|count| (50..=150).contains(count)), "{asked:?}");
    }

    #[test]
    fn observers_stay_when_another_host_goes() {
        let (guest, service) = (GuestName::new("web-1").unwrap(), ServiceName::new("http").unwrap());
        let all: BTreeSet<HostName> = ["a", "b", "c", "d", "e"].map(host).into();
        let before = observers(&all, &guest, &service, &host("a"), 2);
        let bystander = all.iter().find(|name| !before.contains(name) && name.as_str() != "a").unwrap();
        let fewer: BTreeSet<HostName> = all.iter().filter(|name| *name != bystander).cloned().collect();
        let after: BTreeSet<HostName> =
            observers(&fewer, &guest, &service, &host("a"), 2).into_iter().cloned().collect();
        assert_eq!(before.into_iter().cloned().collect::<BTreeSet<_>>(), after);
    }

    #[test]
    fn a_service_that_is_asked_from_two_vantages_is_one_service() {
        let (guest, service) = (GuestName::new("web-1").unwrap(), ServiceName::new("http").unwrap());
        let policies = yaml::parse(&[Source { name: "web.yaml", text: WEB }]).unwrap();
        let (_, policy) = policies.policy_of(&guest).unwrap();
        let asked = policy.services.get(&service).unwrap().clone();
        let question = Question { epoch: Epoch::default(), service: asked, address: None };
        let from = |vantage| ((guest.clone(), service.clone(), vantage), question.clone());
        let wanted = BTreeMap::from([from(Vantage::Inside), from(Vantage::Host(host("a")))]);
        assert_eq!(services(&wanted), BTreeSet::from([("web-1", "http")]));
    }

    #[test]
    fn a_guest_that_has_got_another_address_is_asked_something_else() {
        let asked_at = |address: &str| {
            let text = WEB.replace("10.0.0.5", address);
            let policies = yaml::parse(&[Source { name: "web.yaml", text: &text }]).unwrap();
            let homes = BTreeMap::from([(GuestName::new("web-1").unwrap(), (host("b"), Epoch::default()))]);
            let view = View { policies: policies.into(), homes, ..View::default() };
            wanted(&host("a"), &BTreeSet::from(["a", "b"].map(host)), &view)
        };
        let (before, after) = (asked_at("10.0.0.5"), asked_at("10.0.0.6"));
        assert_eq!(before.len(), 1);
        assert!(before.keys().eq(after.keys()), "the same service from the same vantage");
        assert_ne!(before, after);
        assert_eq!(before, asked_at("10.0.0.5"));
    }
}
