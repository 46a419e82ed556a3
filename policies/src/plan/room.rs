//! What is taken where: the running sum of guests on hosts, against which fits and scores are measured.

use super::{
    problem::Problem,
    reason::{Fullest, Reason},
    rules::Group,
    table::{GroupAt, GuestAt, HostAt, Table},
};
use crate::names::HostName;

/// Parts in which shares are compared: millionths, for a weight of 100. They tell hosts of a terabyte apart by single MiB,
/// and sums up to 2^40 do not overflow under the largest weight.
const PARTS: u64 = 10_000;

/// How much of one thing would be taken on a host.
struct Share<'r> {
    weighted: u64,
    dimension: &'r str,
    taken: u64,
    size: u64,
}

/// What is taken on every host.
#[derive(Debug, Clone)]
pub struct Room {
    /// By dimension, as in the problem.
    used: Vec<Table<HostAt, u64>>,
    guests: Table<HostAt, u32>,
    pub(super) starts: Table<HostAt, u32>,
    /// By rule: members in each domain; a domain's number is that of a host in it.
    members: Table<GroupAt, Vec<u32>>,
    /// Hosts that are supposed to be lost.
    pub(super) lost: Table<HostAt, bool>,
}

impl Room {
    /// What is taken by the guests where they are; one that moves counts on both hosts.
    #[must_use]
    pub fn of(problem: &Problem<'_>) -> Self {
        let hosts = problem.hosts.len();
        let mut room = Self {
            used: problem.dimensions.iter().map(|_| Table::filled(hosts, 0)).collect(),
            guests: Table::filled(hosts, 0),
            starts: problem.starts.clone(),
            members: Table::filled(problem.groups.len(), vec![0; hosts]),
            lost: Table::filled(hosts, false),
        };
        for at in problem.guests.keys() {
            room.enter(problem, at);
        }
        room
    }

    /// Counts a guest wherever it may run.
    pub(super) fn enter(&mut self, problem: &Problem<'_>, guest: GuestAt) {
        self.count_here(problem, guest, 1);
    }

    /// Forgets a guest wherever it may run.
    pub(super) fn leave(&mut self, problem: &Problem<'_>, guest: GuestAt) {
        self.count_here(problem, guest, -1);
    }

    fn count_here(&mut self, problem: &Problem<'_>, guest: GuestAt, sign: i32) {
        let known = &problem.guests[guest];
        for host in known.hosts() {
            self.count_host(problem, guest, host, sign);
        }
        for group in &known.groups {
            let [one, other] = known.here.map(|host| host.map(|host| problem.groups[*group].domain[host]));
            // In a domain that has both of its halves it counts once.
            for domain in one.into_iter().chain(other.filter(|_| other != one)) {
                self.count_domain(*group, domain, sign);
            }
        }
    }

    /// Counts a guest that is not there yet also on the host that it goes to, if there is room for it. Its start comes later, and takes
    /// no turn from others.
    pub(super) fn promise(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) -> bool {
        let is_open = problem.hosts[host].out.is_none() && problem.guests[guest].hosts().all(|here| here != host);
        if !is_open || problem.liking(guest, host).is_err() {
            return false;
        }
        // It is not in its own way.
        self.leave(problem, guest);
        let fits = self.fits(problem, guest, host).is_ok();
        self.enter(problem, guest);
        if fits {
            self.count_promised(problem, guest, host, 1);
        }
        fits
    }

    /// Counts a guest where it is promised a place, or takes it off again; in a domain that it is in already it counts once.
    pub(super) fn count_promised(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt, sign: i32) {
        self.count_host(problem, guest, host, sign);
        for group in &problem.guests[guest].groups {
            let domain = &problem.groups[*group].domain;
            if problem.guests[guest].hosts().all(|here| domain[here] != domain[host]) {
                self.count_domain(*group, domain[host], sign);
            }
        }
    }

    /// Puts a guest on a host.
    pub(super) fn take(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) {
        self.count(problem, guest, host, 1);
        self.starts[host] += 1;
    }

    /// Takes a guest that was put there off again.
    pub(super) fn give(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) {
        self.count(problem, guest, host, -1);
        self.starts[host] = self.starts[host].saturating_sub(1);
    }

    fn count(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt, sign: i32) {
        self.count_host(problem, guest, host, sign);
        for group in &problem.guests[guest].groups {
            self.count_domain(*group, problem.groups[*group].domain[host], sign);
        }
    }

    fn count_host(&mut self, problem: &Problem<'_>, guest: GuestAt, host: HostAt, sign: i32) {
        for (dimension, used) in problem.dimensions.iter().zip(&mut self.used) {
            let demand = dimension.demand[guest];
            used[host] = if sign > 0 { used[host].saturating_add(demand) } else { used[host].saturating_sub(demand) };
        }
        self.guests[host] = self.guests[host].saturating_add_signed(sign);
    }

    fn count_domain(&mut self, group: GroupAt, domain: u32, sign: i32) {
        let row = usize::try_from(domain).unwrap_or(usize::MAX);
        if let Some(count) = self.members[group].get_mut(row) {
            *count = count.saturating_add_signed(sign);
        }
    }

    /// Members of a group in the domain of a host.
    pub(super) fn near(&self, problem: &Problem<'_>, group: GroupAt, host: HostAt) -> u32 {
        let row = usize::try_from(problem.groups[group].domain[host]).unwrap_or(usize::MAX);
        self.members[group].get(row).copied().unwrap_or(0)
    }

    /// Whether a guest that is not counted there may be put on a host, as far as room and distance to others go.
    pub(super) fn fits(&self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) -> Result<(), Reason> {
        for (dimension, used) in problem.dimensions.iter().zip(&self.used) {
            let needed = dimension.demand[guest];
            let Some(capacity) = dimension.capacity[host].filter(|_| needed > 0) else { continue };
            let left = capacity.saturating_sub(used[host]);
            if left < needed {
                return Err(Reason::Full { dimension: dimension.name.to_owned(), left, needed });
            }
        }
        for at in &problem.guests[guest].groups {
            let group = &problem.groups[*at];
            if group.required && !group.together && self.near(problem, *at, host) > 0 {
                return Err(Reason::Near { rule: group.name.clone(), by: group.by.map(str::to_owned) });
            }
        }
        Ok(())
    }

    /// Tells of a guest whether any host would take it as things are. Where there is room for it nowhere, the most that any host has left
    /// says so at once: of thousands of guests nobody asks hundreds of hosts.
    pub(crate) fn has_for(&self, problem: &Problem<'_>) -> impl Fn(GuestAt) -> bool {
        let open = problem.hosts.iter().filter(|(host, known)| known.out.is_none() && !self.lost[*host]);
        let open: Vec<HostAt> = open.map(|(host, _)| host).collect();
        let most = problem.dimensions.iter().zip(&self.used).map(|(dimension, used)| {
            let left = |host: &HostAt| {
                dimension.capacity[*host].map_or(u64::MAX, |capacity| capacity.saturating_sub(used[*host]))
            };
            open.iter().map(left).max().unwrap_or_default()
        });
        let most: Vec<u64> = most.collect();
        move |guest| {
            let mut needed = problem.dimensions.iter().map(|dimension| dimension.demand[guest]).zip(&most);
            let takes =
                |host: &HostAt| problem.liking(guest, *host).is_ok() && self.fits(problem, guest, *host).is_ok();
            needed.all(|(needed, most)| needed <= *most) && open.iter().any(takes)
        }
    }

    /// Puts guests on a host together, or none of them.
    pub(super) fn take_all(&mut self, problem: &Problem<'_>, guests: &[GuestAt], host: HostAt) -> Result<(), Reason> {
        for (count, guest) in guests.iter().enumerate() {
            match self.fits(problem, *guest, host) {
                Ok(()) => self.take(problem, *guest, host),
                Err(reason) => {
                    self.give_all(problem, guests.get(..count).unwrap_or_default(), host);
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    pub(super) fn give_all(&mut self, problem: &Problem<'_>, guests: &[GuestAt], host: HostAt) {
        for guest in guests {
            self.give(problem, *guest, host);
        }
    }

    /// What preferences make of a guest on a host, apart from rules that require or forbid.
    pub(super) fn score(&self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) -> i64 {
        self.score_by(problem, guest, host, |_| true)
    }

    /// The same without rules in which another guest is the one that gives way: they are no reason for this one to move.
    pub(super) fn own_score(&self, problem: &Problem<'_>, guest: GuestAt, host: HostAt) -> i64 {
        let others =
            |group: &Group<'_>| group.yields.is_some_and(|yields| yields != guest && group.members.contains(&yields));
        self.score_by(problem, guest, host, |group| !others(group))
    }

    fn score_by(
        &self,
        problem: &Problem<'_>,
        guest: GuestAt,
        host: HostAt,
        counts: impl Fn(&Group<'_>) -> bool,
    ) -> i64 {
        let mut score = problem.liking(guest, host).unwrap_or(i64::MIN);
        for at in &problem.guests[guest].groups {
            let group = &problem.groups[*at];
            if !group.required && counts(group) {
                let weight = group.weight.saturating_mul(i64::from(self.near(problem, *at, host)));
                let weight = if group.together { weight } else { weight.saturating_neg() };
                score = score.saturating_add(weight);
            }
        }
        score
    }

    /// Memory left on a host in MiB; `None` when it is not limited.
    pub(super) fn free(&self, problem: &Problem<'_>, host: HostAt) -> Option<u64> {
        let (dimension, used) = problem.dimensions.iter().zip(&self.used).next()?;
        dimension.capacity[host].map(|capacity| capacity.saturating_sub(used[host]))
    }

    /// How full a host would be with guests that are not counted there: the largest weighted share that would be taken of
    /// anything which they take. What they take nothing of does not count, so that a host whose GPUs are all in use is as good
    /// as any other for guests that need none.
    pub(super) fn fullness(&self, problem: &Problem<'_>, guests: &[GuestAt], host: HostAt) -> u64 {
        self.shares(problem, guests, host).map(|share| share.weighted).max().unwrap_or(0)
    }

    /// What makes a host that full; `None` when nothing is weighed. Of equal shares the first.
    pub(super) fn fullest(&self, problem: &Problem<'_>, guests: &[GuestAt], host: HostAt) -> Option<Fullest> {
        let shares = self.shares(problem, guests, host);
        let most = shares.reduce(|most, share| if share.weighted > most.weighted { share } else { most })?;
        Some(Fullest { dimension: most.dimension.to_owned(), taken: most.taken, size: most.size })
    }

    fn shares<'r>(
        &'r self,
        problem: &'r Problem<'r>,
        guests: &'r [GuestAt],
        host: HostAt,
    ) -> impl Iterator<Item = Share<'r>> {
        problem.dimensions.iter().zip(&self.used).filter_map(move |(dimension, used)| {
            let size = dimension.size[host]?;
            let more = guests.iter().map(|guest| dimension.demand[*guest]).fold(0, u64::saturating_add);
            if more == 0 {
                return None;
            }
            let taken = used[host].saturating_add(more);
            let weighted = taken.saturating_mul(PARTS).saturating_mul(dimension.weight);
            // Of what is not there at all, whatever is taken is too much.
            let weighted = weighted.checked_div(size).unwrap_or(u64::MAX);
            Some(Share { weighted, dimension: dimension.name, taken, size })
        })
    }

    /// By how many hundredths of its cores a host's guests would ask for more than it has, with so many more. Nothing where
    /// settings say how processors count: then they are weighed by their share, as everything else.
    pub(super) fn strain(&self, problem: &Problem<'_>, host: HostAt, more: u64) -> u64 {
        if !problem.cores_strain {
            return 0;
        }
        let cores = problem.hosts[host].cores.max(1);
        let asked = self.used.get(1).map_or(0, |used| used[host]).saturating_add(more);
        asked.saturating_sub(cores).saturating_mul(100) / cores
    }

    /// Hosts on which more is taken than there is, once each: of what, how much is taken, and how much there is.
    pub(crate) fn overfull<'a>(&self, problem: &Problem<'a>) -> Vec<(&'a HostName, &'a str, u64, u64)> {
        let over = |host: HostAt| {
            problem.dimensions.iter().zip(&self.used).find_map(|(dimension, used)| {
                let capacity = dimension.capacity[host]?;
                (used[host] > capacity).then(|| (problem.hosts[host].name, dimension.name, used[host], capacity))
            })
        };
        problem.hosts.keys().filter(|host| !problem.hosts[*host].gone).filter_map(over).collect()
    }

    /// Memory taken on a host, in MiB.
    pub(super) fn used_memory(&self, host: HostAt) -> u64 {
        self.used.first().map_or(0, |used| used[host])
    }

    pub(super) fn guests(&self, host: HostAt) -> u32 {
        self.guests[host]
    }
}
