//! The status for a tired person: what is wrong comes first, then hosts, then guests.

use std::fmt;

use holdfast_policies::{
    decide::{HostVerdict, ServiceVerdict},
    feature_level::FeatureLevel,
    names::HostName,
    state::{Mode, Wanted},
};

use super::{
    status::{GuestStatus, HostLife, HostStatus, LevelStatus, Status},
    words::{Table, host_verdict, lasted},
};

/// More hosts or guests than these are listed one by one only where something is to be said of them, unless all are asked for: what is
/// wrong would be gone from the screen.
const ROWS_MAX: usize = 50;

/// Longest list of names in one cell of a table.
const NAMES_MAX: usize = 6;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

/// A status in which the many that are well are only counted.
#[derive(Debug, Clone, Copy)]
pub struct Short<'a>(pub &'a Status);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, false)
    }
}

impl Status {
    fn write(&self, f: &mut fmt::Formatter<'_>, all: bool) -> fmt::Result {
        let wrong = self.wrong();
        if wrong.is_empty() {
            writeln!(f, "All is well.")?;
        } else {
            writeln!(f, "WRONG")?;
        }
        for line in wrong {
            writeln!(f, "  {line}")?;
        }
        let leader = self.leader.as_ref().map_or("nobody leads".to_owned(), |leader| format!("{leader} leads"));
        let quorum = if self.quorum { "with a quorum" } else { "WITHOUT a quorum" };
        let (cluster, term, version) = (&self.cluster, self.term, self.policy_version);
        writeln!(
            f,
            "\nCluster {cluster} at {}: {leader} {quorum} (term {term}), policies version {version}.",
            self.at
        )?;
        if self.feature_level < FeatureLevel::HIGHEST || !self.behind.is_empty() {
            writeln!(f, "{}", self.level_line())?;
        }
        let hosts = self.hosts.len();
        let shown = |host: &HostStatus| all || hosts <= ROWS_MAX || !is_plain(host);
        let (table, left_out) = self.host_table(shown);
        write!(f, "\n{table}")?;
        counted(f, left_out, hosts, "host")?;
        for (name, revoked) in &self.revoked {
            let but = revoked.readmitted.as_ref().map(|serial| format!(", but for {serial}")).unwrap_or_default();
            writeln!(f, "The certificates of {name}{but} are revoked, by {}: {}.", revoked.by, revoked.why)?;
        }
        if self.guests.is_empty() {
            return writeln!(f, "\nNo guests are declared: `holdfast apply DIR`.");
        }
        let guests = self.guests.len();
        let (table, left_out) = self.guest_table(|guest| all || guests <= ROWS_MAX || !is_well(guest));
        write!(f, "\n{table}")?;
        counted(f, left_out, guests, "guest")
    }

    /// One line per trouble, the worst first.
    fn wrong(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.quorum {
            lines.push(
                "NO QUORUM: no majority of the voters is in touch, so nothing is decided. Guests that run go on, on a host with \
                 a `lease` level for as long as its lease lasts."
                    .to_owned(),
            );
        }
        lines.extend(
            self.storm_hold
                .iter()
                .map(|why| format!("STORM HOLD: {why}; nothing more is switched off until that ends.")),
        );
        lines.extend(self.suspended_by.iter().map(|by| {
            format!("SUSPENDED by {by}: nothing is decided until `holdfast resume`, except what was under way before.")
        }));
        for incident in self.incidents.iter().filter(|incident| incident.open) {
            let (severity, ago) = (incident.severity.word().to_uppercase(), lasted(incident.lasted_ms));
            lines.push(format!("{severity} {} for {ago}: {}", incident.key, incident.summary));
            lines.extend(incident.human.iter().map(|human| format!("    DO: {human}")));
        }
        lines.extend(self.wrong_with_hosts());
        lines.extend(self.wrong_with_guests());
        lines.extend(self.alert_troubles.iter().map(|trouble| format!("alerts: {trouble}")));
        lines
    }

    /// One line per trouble of a voter or a host.
    fn wrong_with_hosts(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let missing = self.voters.iter().filter(|voter| !self.hosts.contains_key(*voter));
        lines.extend(missing.map(|voter| format!("voter {voter} has not joined yet")));
        // Of a host that is not well more is told below.
        let is_heard = |name: &HostName| self.hosts.get(name).is_some_and(|host| host.verdict == HostVerdict::Healthy);
        lines.extend(self.mute_voters.iter().filter(|name| is_heard(name)).map(|name| {
            format!(
                "host {name} does not answer as a voter, though its supervisor does: `holdfast voter list` shows where it is asked"
            )
        }));
        for (name, host) in self.hosts.iter().filter(|(_, host)| host.verdict != HostVerdict::Healthy) {
            let evidence =
                if host.evidence.is_empty() { String::new() } else { format!(": {}", host.evidence.join("; ")) };
            lines.push(format!("host {name} is {}{evidence}", host_verdict(host.verdict)));
            lines.extend(host.last_words.iter().map(|words| format!("    its last words: {words}")));
        }
        lines.extend(
            self.hosts
                .iter()
                .filter_map(|(name, host)| Some(format!("host {name} doubts itself: {}", host.unwell.as_ref()?))),
        );
        for (name, host) in &self.hosts {
            let quarantine =
                host.quarantine.iter().map(|why| format!("host {name} is quarantined and gets no guests: {why}"));
            let distrusted = host
                .distrusted
                .iter()
                .map(|level| format!("host {name}: the power device of level {level} is not trusted, and not used"));
            lines.extend(quarantine.chain(distrusted));
            lines.extend(
                host.drilled_by.iter().map(|by| format!("host {name} is switched off and on for a drill of {by}")),
            );
            let unverified = host.fencing.iter().filter(|(_, fencing)| fencing.wiring.is_none());
            lines.extend(unverified.map(|(level, _)| {
                format!("host {name}: nothing has verified that the power device of level {level} is its own")
            }));
        }
        lines
    }

    /// One line per trouble of a guest.
    fn wrong_with_guests(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, guest) in &self.guests {
            let given_up = guest.given_up.iter().map(|why| {
                format!("guest {name} is not started any more: {why}; look at it, then `holdfast guest cleanup {name}`")
            });
            let strays = guest
                .strays
                .iter()
                .map(|host| format!("guest {name} is to be stopped on {host}, which may not run it"));
            lines.extend(given_up.chain(strays));
        }
        let troubled = self.guests.iter().filter(|(_, guest)| !is_well(guest));
        lines.extend(troubled.map(|(name, guest)| format!("guest {name} is {}: {}", guest.state, doing(guest))));
        lines
    }

    /// What the cluster has agreed on, and who keeps it from more.
    fn level_line(&self) -> String {
        let (is, could) = (self.feature_level, FeatureLevel::HIGHEST);
        if self.behind.is_empty() {
            return format!("Feature level {is}; all hosts can do {could}.");
        }
        let behind = self.behind.iter().map(|(name, level)| match level {
            Some(level) => format!("{name} can do {level}"),
            None => format!("{name} has not said what it can do"),
        });
        let behind = behind.collect::<Vec<_>>().join(", ");
        if is >= could {
            return format!("Feature level {is}; what is older is to be upgraded: {behind}.");
        }
        format!("Feature level {is}; {could} comes when all hosts can do it: {behind}.")
    }

    /// The hosts to be shown, and how many are not.
    fn host_table(&self, shown: impl Fn(&HostStatus) -> bool) -> (Table, usize) {
        let mut table = Table::new(&["HOST", "VERDICT", "MODE", "VOTE", "MEMORY", "GUESTS", "FENCING", "LIFE"]);
        let mut left_out = 0;
        for (name, host) in &self.hosts {
            if !shown(host) {
                left_out += 1;
                continue;
            }
            let mode = mode(host);
            let guests = match host.guests.len() {
                0 => "-".to_owned(),
                many if many > NAMES_MAX => format!("{many} guests"),
                _ => host.guests.iter().map(|guest| guest.as_str()).collect::<Vec<&str>>().join(","),
            };
            let vote = if host.voter { "yes" } else { "-" };
            let verdict = host_verdict(host.verdict);
            let memory = format!("{} MiB", host.memory_mib);
            let fencing = fencing(host);
            let cells = [name.as_str(), verdict, &mode, vote, &memory, &guests, &fencing, &life(host)];
            table.row(cells.map(str::to_owned).into());
        }
        (table, left_out)
    }

    /// The guests to be shown, and how many are not.
    fn guest_table(&self, shown: impl Fn(&GuestStatus) -> bool) -> (Table, usize) {
        let mut table = Table::new(&["GUEST", "STATE", "HOST", "EPOCH", "SERVICES", "DOING"]);
        let mut left_out = 0;
        for (name, guest) in &self.guests {
            if !shown(guest) {
                left_out += 1;
                continue;
            }
            let host = guest.host.as_ref().map_or("-", |host| host.as_str());
            let epoch = guest.epoch.as_deref().unwrap_or("-");
            table.row(
                [name.as_str(), &guest.state, host, epoch, &services(guest), &doing(guest)].map(str::to_owned).into(),
            );
        }
        (table, left_out)
    }
}

/// How many of all are left out of a table.
fn counted(f: &mut fmt::Formatter<'_>, left_out: usize, of: usize, what: &str) -> fmt::Result {
    if left_out == 0 {
        return Ok(());
    }
    writeln!(f, "{left_out} of {of} {what}s are well and not shown: `holdfast status --all`")
}

/// Whether there is nothing to be said of a host but that it is there.
fn is_plain(host: &HostStatus) -> bool {
    let is_up = host.verdict == HostVerdict::Healthy && host.life == HostLife::Up && host.mode == Mode::Active;
    is_up && host.waits.is_none() && host.kept.is_empty() && host.quarantine.is_none() && host.unwell.is_none()
}

fn mode(host: &HostStatus) -> String {
    match host.mode_on_return {
        _ if !host.runs_guests => "witness".to_owned(),
        Some(then) => format!("{}, then {}", host.mode.word(), then.word()),
        None => host.mode.word().to_owned(),
    }
}

/// How long ago the power devices of each level last answered.
fn fencing(host: &HostStatus) -> String {
    let ago =
        |level: &LevelStatus| level.proven_ago_ms.map_or("untried".to_owned(), |ms| format!("{} ago", lasted(ms)));
    if host.fencing.is_empty() { "-".to_owned() } else { host.fencing.values().map(ago).collect::<Vec<_>>().join(", ") }
}

fn is_well(guest: &GuestStatus) -> bool {
    match guest.wanted {
        Wanted::Running => {}
        Wanted::Stopped => return matches!(guest.state.as_str(), "stopped" | "unplaced"),
        Wanted::Unmanaged => return true,
    }
    let healthy = guest.services.values().all(|service| service.verdict == ServiceVerdict::Healthy);
    guest.state == "running" && guest.verified && healthy
}

fn life(host: &HostStatus) -> String {
    let word = match host.life {
        HostLife::Up => "up",
        HostLife::Fencing => "FENCING",
        HostLife::Gone => "GONE",
    };
    let proof = host.proof.as_ref().map(|proof| format!(": {proof}")).unwrap_or_default();
    let waits = host.waits.as_ref().map(|waits| format!(", waits for {waits}")).unwrap_or_default();
    let kept: Vec<&str> = host.kept.iter().map(|guest| guest.as_str()).collect();
    let kept = if kept.is_empty() { String::new() } else { format!(", kept for it: {}", kept.join(",")) };
    format!("{word}{proof}{waits}{kept}")
}

fn doing(guest: &GuestStatus) -> String {
    match &guest.waits {
        Some(waits) => format!("{} (waits for {waits})", guest.doing),
        None => guest.doing.clone(),
    }
}

/// The services that are not healthy by name; the others as a number.
fn services(guest: &GuestStatus) -> String {
    let all = guest.services.len();
    let ill: Vec<String> = guest
        .services
        .iter()
        .filter(|(_, service)| service.verdict != ServiceVerdict::Healthy)
        .map(|(name, service)| format!("{name} {}", service.word()))
        .collect();
    match (all, ill.len()) {
        (0, _) => "-".to_owned(),
        (_, 0) => format!("{all} healthy"),
        (all, wrong) if wrong < all => format!("{}, {} healthy", ill.join(", "), all - wrong),
        _ => ill.join(", "),
    }
}
