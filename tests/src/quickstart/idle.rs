//! What supervisors cost when nothing happens: memory and processor time of each, while every host probes ten times a
//! second.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use super::{ADDRESS, FIRST_START_LIMIT, FORM_LIMIT, GUEST, show::Progress};
use crate::lab::{Daemon, Lab, LabOptions, usage::memory_kib, wait};

/// What came with the start is over by then: elections, the guest's boot, the first syncs.
const SETTLE: Duration = Duration::from_secs(20);
/// More memory than this, in KiB, or more of a core than [`CORE_PERCENT_MAX`], fails the run. Both are generous, since
/// machines differ; the figures themselves are what counts.
const RESIDENT_KIB_MAX: u64 = 64 * 1024;
/// See [`RESIDENT_KIB_MAX`].
const CORE_PERCENT_MAX: f64 = 10.0;

/// Stretches of memory that are told of each supervisor.
const STRETCHES_MAX: usize = 6;
/// Where the C library lays out a heap of its own for a thread, it begins at a multiple of this.
const ARENA_BYTES: u64 = 64 * 1024 * 1024;

/// One host's supervisor; its JSON form is an interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cost {
    /// Whether it led all the time.
    leads: bool,
    /// `VmRSS` at the end.
    resident_kib: u64,
    /// Of that, pages of files: the program itself.
    file_kib: u64,
    /// Of that, the rest: heap and stacks.
    anonymous_kib: u64,
    /// User and system time, in percent of one core.
    core_percent: f64,
    /// `VmRSS` of the guard beside it.
    guard_resident_kib: u64,
    /// Where most of what is anonymous lies, most first.
    largest: Vec<Stretch>,
}

/// One stretch of a process's address space, as `/proc/PID/smaps` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Stretch {
    /// `[heap]`, `[stack]` or a file, as the kernel calls it; else `arena` for a heap of some threads, or `memory`.
    what: String,
    /// Reserved.
    size_kib: u64,
    /// Really there, and of no file.
    anonymous_kib: u64,
}

/// Brings up the quickstart's hosts and guest, lets `time` go by, and prints what that cost as one JSON object or a table.
pub(super) fn run(json: bool, time: Duration) -> Result<()> {
    let progress = Progress::new(json);
    progress.step("laying out three hosts and one guest, probed ten times a second from each host");
    let lab = Lab::new(LabOptions::three()?)?;
    lab.make_guest(GUEST, ADDRESS)?;
    lab.power_on_all()?;
    lab.wait_hosts_healthy(FORM_LIMIT)?;
    let leader = lab.wait_status("a leader", FORM_LIMIT, |status| status.leader().map(str::to_owned))?;
    lab.apply_texts(&leader, &declaration(&lab)?)?;
    lab.wait_guest_healthy(GUEST, FIRST_START_LIMIT)?;
    wait::pause(SETTLE)?;
    progress.step(&format!("measuring for {} s", time.as_secs()));
    let costs = measure(&lab, time)?;
    if json {
        println!("{}", serde_json::to_string(&costs)?);
    } else {
        print!("{}", table(&costs));
    }
    judge(&costs)
}

fn declaration(lab: &Lab) -> Result<[(&'static str, String); 3]> {
    Ok([
        ("guest.yaml", lab.guest_yaml(GUEST, ADDRESS)),
        ("policy.yaml", probed_ten_times_a_second()),
        ("fencing.yaml", lab.fencing_yaml()?),
    ])
}

/// Five services, each asked twice a second from each of the three hosts. A guest that is slow for a moment is not what is
/// measured, so that it takes long until one counts as failed.
fn probed_ten_times_a_second() -> String {
    let mut text = "policies:\n  web:\n    match: { app: web }\n    services:\n".to_owned();
    for number in 1..=5 {
        text += &format!(
            "      http-{number}: {{ probe: {{ http: {{ url: \"http://{{address}}:8080/healthz\", status: 200, body: ok }} }}, \
             every: 500ms, timeout: 500ms, fails_after: 20, from: {{ inside: false, hosts: 3, agree: 2 }} }}\n"
        );
    }
    text + "    ladder: [page: { severity: critical }]\n"
}

fn measure(lab: &Lab, time: Duration) -> Result<BTreeMap<String, Cost>> {
    let pids = |daemon| -> Result<Vec<(String, i32)>> {
        lab.hosts().iter().map(|spec| Ok((spec.name.clone(), lab.daemon_pid(&spec.name, daemon)?))).collect()
    };
    let (supervisors, guards) = (pids(Daemon::Supervisor)?, pids(Daemon::Guard)?);
    let leader = lab.wait_status("a leader", FORM_LIMIT, |status| status.leader().map(str::to_owned))?;
    let began = Instant::now();
    let before = supervisors.iter().map(|(_, pid)| processor_time(*pid)).collect::<Result<Vec<_>>>()?;
    wait::pause(time)?;
    let mut costs = BTreeMap::new();
    for (((host, pid), (_, guard)), before) in supervisors.iter().zip(&guards).zip(before) {
        let used = processor_time(*pid)?.saturating_sub(before);
        let cost = Cost {
            leads: *host == leader,
            resident_kib: memory_kib(*pid, "VmRSS")?,
            file_kib: memory_kib(*pid, "RssFile")?,
            anonymous_kib: memory_kib(*pid, "RssAnon")?,
            core_percent: (1e4 * used.as_secs_f64() / began.elapsed().as_secs_f64()).round() / 1e2,
            guard_resident_kib: memory_kib(*guard, "VmRSS")?,
            largest: stretches(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps"))?),
        };
        costs.insert(host.clone(), cost);
    }
    let leads = lab.wait_status("a leader", FORM_LIMIT, |status| status.leader().map(str::to_owned))?;
    ensure!(leads == leader, "{leads} took the lead from {leader} while nothing happened");
    Ok(costs)
}

/// The stretches with most anonymous memory.
fn stretches(smaps: &str) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    for line in smaps.lines() {
        if let Some(what) = named(line) {
            found.push(Stretch { what, size_kib: 0, anonymous_kib: 0 });
        } else if let Some(newest) = found.last_mut() {
            newest.size_kib = kib(line, "Size:").unwrap_or(newest.size_kib);
            newest.anonymous_kib = kib(line, "Anonymous:").unwrap_or(newest.anonymous_kib);
        }
    }
    found.sort_by_key(|stretch| std::cmp::Reverse(stretch.anonymous_kib));
    found.truncate(STRETCHES_MAX);
    found
}

/// What a stretch is, if this line begins one.
fn named(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let (from, _) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    let unnamed = if from.is_multiple_of(ARENA_BYTES) { "arena" } else { "memory" };
    // After the addresses come rights, offset, device and inode.
    Some(words.nth(4).unwrap_or(unnamed).to_owned())
}

fn kib(line: &str, key: &str) -> Option<u64> {
    line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok()
}

/// User and system time of all threads, since the start.
fn processor_time(pid: i32) -> Result<Duration> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    let ticks = ticks(&text).with_context(|| format!("/proc/{pid}/stat says {text}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Fields 14 and 15. The second one, the name, may hold spaces, and ends with the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn table(costs: &BTreeMap<String, Cost>) -> String {
    let mut table = format!(
        "\n{:<6} {:<12} {:>9} {:>9} {:>10} {:>7} {:>9}\n",
        "host", "", "resident", "of files", "anonymous", "core", "guard"
    );
    for (host, cost) in costs {
        let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        let (resident, file, anonymous) = (mib(cost.resident_kib), mib(cost.file_kib), mib(cost.anonymous_kib));
        let (role, core, guard) =
            (if cost.leads { "coordinator" } else { "" }, cost.core_percent, mib(cost.guard_resident_kib));
        // Writing to a string does not fail.
        let _ =
            writeln!(table, "{host:<6} {role:<12} {resident:>9} {file:>9} {anonymous:>10} {core:>5.2} % {guard:>9}");
        for Stretch { what, size_kib, anonymous_kib } in &cost.largest {
            let _ = writeln!(table, "       {} of {} in {what}", mib(*anonymous_kib), mib(*size_kib));
        }
    }
    table
}

fn judge(costs: &BTreeMap<String, Cost>) -> Result<()> {
    for (host, cost) in costs {
        ensure!(cost.resident_kib <= RESIDENT_KIB_MAX, "the supervisor of {host} takes over {RESIDENT_KIB_MAX} KiB");
        ensure!(
            cost.core_percent <= CORE_PERCENT_MAX,
            "the supervisor of {host} takes over {CORE_PERCENT_MAX} % of a core"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{
        model::Service,
        yaml::{Source, parse},
    };

    use super::*;

    #[test]
    fn every_host_probes_ten_times_a_second() {
        let text = probed_ten_times_a_second();
        let parsed =
            parse(&[Source { name: "policy.yaml", text: &text }]).unwrap_or_else(|findings| panic!("{findings:?}"));
        let services = parsed.policies.values().flat_map(|policy| policy.services.values());
        let per_second = |service: &Service| {
            assert_eq!((service.from.inside, service.from.hosts), (false, 3));
            1.0 / service.every.0.as_secs_f64()
        };
        assert_eq!(services.map(per_second).sum::<f64>(), 10.0);
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        assert_eq!(ticks("7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 31 11 0 0 20"), Some(42));
    }

    #[test]
    fn memory_is_told_by_stretch_most_first() {
        let smaps = "\
55f5a2837000-55f5a2a7f000 r--p 03576000 fe:00 1003    /usr/bin/holdfast
Size:               2336 kB
Anonymous:             8 kB
VmFlags: rd mr mw me ac
7f04c4000000-7f04c407a000 rw-p 00000000 00:00 0
Size:                488 kB
Anonymous:           484 kB
7f04ca79a000-7f04ca8c5000 rw-p 00000000 00:00 0
Size:               1196 kB
Anonymous:            48 kB
";
        let told: Vec<(String, u64, u64)> =
            stretches(smaps).into_iter().map(|found| (found.what, found.size_kib, found.anonymous_kib)).collect();
        let expected = [("arena", 488, 484), ("memory", 1_196, 48), ("/usr/bin/holdfast", 2_336, 8)];
        assert_eq!(told, expected.map(|(what, size, anonymous)| (what.to_owned(), size, anonymous)));
    }

    #[test]
    fn a_supervisor_that_takes_too_much_fails_the_run() {
        let cost = |resident_kib, core_percent| Cost {
            leads: true,
            resident_kib,
            file_kib: 1,
            anonymous_kib: 1,
            core_percent,
            guard_resident_kib: 1,
            largest: Vec::new(),
        };
        let judged = |cost| judge(&BTreeMap::from([("h1".to_owned(), cost)])).is_ok();
        assert!(judged(cost(RESIDENT_KIB_MAX, CORE_PERCENT_MAX)));
        assert!(!judged(cost(RESIDENT_KIB_MAX + 1, 1.0)) && !judged(cost(1, CORE_PERCENT_MAX + 0.1)));
    }
}
