//! Where a lab test begins: a cluster with one running guest, an outside client, and one promise that every test ends
//! with: no disk image was ever written by two guests at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    fcntl::Flock,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{Client, HostSpec, Lab, LabOptions, WatchdogEvent, alone, binary, clock::now_ms, guest::PORT, wait};

/// The guest of every scene.
pub const GUEST: &str = "web-1";
/// Its address.
pub const ADDRESS: &str = "10.77.0.100";
/// Longest time until something that takes seconds is over, on a machine that is busy with something else too, and that emulates
/// guests three times as slowly as most.
pub const LIMIT: Duration = Duration::from_secs(180);
/// Longest time from a page that ends a guest's answers until the client has none: it asks ten times a second.
const HEARD_LIMIT: Duration = Duration::from_secs(10);
/// Lines of each log that are shown when a test fails.
const LOG_LINES: usize = 40;
/// Journal entries that a test looks at; a test makes some dozens.
const JOURNAL_LINES: usize = 500;
/// How often a guest is moved to where a test needs it; the leader may change meanwhile.
const ARRANGE_TRIES: u32 = 10;
/// How often the client of a scene asks. Tests do not measure to the hundredth of a second, and what answers take of a processor
/// is missing to everything else.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A silence that no busy machine explains. Software emulation of guests has been seen to starve for three seconds while
/// something else was compiled, so this is no measure of speed; who runs and since when decides.
const STUCK_MS: f64 = 15_000.0;

/// A cluster with a guest that answers. Checks, when dropped, that no image was written by two guests at once.
pub struct Scene {
    /// The outside client, which asks the guest.
    pub client: Client,
    /// The lab.
    pub lab: Lab,
    /// When the last wait for calm was over, on [`now_ms`]'s clock.
    calm_ms: f64,
    /// Who the guest was then.
    calm_who: (String, u64),
    /// When it began, for the test that has it.
    begin_ms: f64,
    /// The log index of the newest journal entry then.
    begin_index: u64,
    /// How often the images had been looked at then.
    begin_looks: u64,
    _alone: Flock<fs::File>,
}

impl Scene {
    /// Three voters; the guest runs on one of them.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn three() -> Result<Self> {
        Self::with(HostSpec::three(), "")
    }

    /// These hosts, with more policies beside the guest's and the fencing.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn with(hosts: Vec<HostSpec>, more: &str) -> Result<Self> {
        Self::prepared(hosts, more, |_| Ok(()))
    }

    /// Like [`Scene::with`]; `prepare` is called before the hosts are switched on.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn prepared(hosts: Vec<HostSpec>, more: &str, prepare: impl FnOnce(&Lab) -> Result<()>) -> Result<Self> {
        let alone = alone()?;
        let lab = Lab::new(LabOptions { hosts, binary: Some(binary()?) })?;
        lab.make_guest(GUEST, ADDRESS)?;
        prepare(&lab)?;
        let client = Client::start(&lab, &format!("{ADDRESS}:{PORT}"), ASK_EVERY)?;
        let (calm_ms, calm_who) = (now_ms(), (String::new(), 0));
        let (begin_ms, begin_index, begin_looks) = (calm_ms, 0, 0);
        let mut scene = Self { client, lab, calm_ms, calm_who, begin_ms, begin_index, begin_looks, _alone: alone };
        scene.begin(more).inspect_err(|_| scene.show_logs())?;
        Ok(scene)
    }

    fn begin(&mut self, more: &str) -> Result<()> {
        self.lab.power_on_all()?;
        self.lab.wait_hosts_healthy(LIMIT)?;
        self.apply(more)?;
        self.calm().map(drop)
    }

    /// Makes it what it was in the beginning, for another test: every host is on, the scene's own policies are in force, and nothing is
    /// known of what was before. Links are plugged in, and power devices are well.
    ///
    /// # Errors
    /// When it does not come back to that.
    pub(super) fn begin_again(&mut self) -> Result<()> {
        self.begin("")?;
        for spec in self.lab.hosts() {
            self.lab.bmc(&spec.name).forget_asked()?;
        }
        let newest = self.lab.ask_soon(&json!({ "journal": { "last": 1 } }))?;
        self.begin_index = newest.pointer("/0/index").and_then(Value::as_u64).context("an empty journal")?;
        (self.begin_ms, self.begin_looks) = (now_ms(), self.lab.looks());
        Ok(())
    }

    pub(super) fn show_logs(&self) {
        for spec in self.lab.hosts() {
            for log in ["console", "guard", "supervisor"] {
                eprintln!("--- {} {log}.log\n{}", spec.name, self.lab.log_tail(&spec.name, log, LOG_LINES));
            }
        }
    }

    /// Applies the scene's guest, its policy and fencing, and `more`, which may be empty.
    ///
    /// # Errors
    /// When it is refused.
    pub fn apply(&self, more: &str) -> Result<()> {
        let from = self.lab.wait_status("a coordinator", LIMIT, |status| Some(status.from.clone()))?;
        let mut files = self.declaration()?;
        if !more.is_empty() {
            files.push(("more.yaml", more.to_owned()));
        }
        self.lab.apply_texts(&from, &files)
    }

    /// Applies the scene's guest with another fencing: what `levels` makes for each host, one level after the other.
    ///
    /// # Errors
    /// When `levels` fails, or what it makes is refused.
    pub fn fence_by(&self, levels: impl Fn(&Lab, &str) -> Result<Vec<String>>) -> Result<()> {
        let mut text = "fencing:\n".to_owned();
        for spec in self.lab.hosts() {
            text += &format!("  {}:\n", spec.name);
            levels(&self.lab, &spec.name)?.iter().for_each(|level| text += &format!("    - {level}\n"));
        }
        let mut files = self.declaration()?;
        files.retain(|(name, _)| *name != "fencing.yaml");
        files.push(("fencing.yaml", text));
        let from = self.lab.wait_status("a coordinator", LIMIT, |status| Some(status.from.clone()))?;
        self.lab.apply_texts(&from, &files)
    }

    /// The scene's policy files, by name and text.
    ///
    /// # Errors
    /// When the quickstart's policies cannot be read.
    pub fn declaration(&self) -> Result<Vec<(&'static str, String)>> {
        let web = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart/policies/web.yaml");
        let web = fs::read_to_string(web).with_context(|| format!("cannot read {web}"))?;
        // A test breaks things again before the policy has forgotten the last time.
        let web = web.replace("reset_guest: { tries: 1,", "reset_guest: { tries: 20,");
        // An emulated guest that shares two processors with the rest of a test answers later than one in use would.
        let web = web.replace("timeout: 500ms", "timeout: 1s");
        Ok(vec![("web.yaml", web), ("fencing.yaml", self.lab.fencing_yaml()?)])
    }

    /// Waits until every host that is on and the guest are healthy, all hosts hear each other and the client gets answers; forgets
    /// earlier outages. Returns the guest's host.
    ///
    /// # Errors
    /// After [`LIMIT`].
    pub fn calm(&mut self) -> Result<String> {
        self.lab.wait_hosts_healthy(LIMIT)?;
        // What a test breaks next is noticed in its usual time only by hosts that have heard each other before.
        self.lab.wait_all_hear_all(LIMIT)?;
        let host = self.lab.wait_guest_healthy(GUEST, LIMIT)?;
        self.qemu_alone()?;
        self.client.wait_up(LIMIT)?;
        self.calm_who = self.who()?;
        self.client.forget();
        self.calm_ms = now_ms();
        Ok(host)
    }

    /// Where the guest is and who leads, after moving it to the leader's host (`on_leader`) or to another one.
    ///
    /// # Errors
    /// When it does not get there.
    pub fn arranged(&mut self, on_leader: bool) -> Result<(String, String)> {
        for _ in 0..ARRANGE_TRIES {
            let host = self.calm()?;
            let leader = self.leader()?;
            if (host == leader) == on_leader {
                return Ok((host, leader));
            }
            let suits = |name: &&HostSpec| (name.name == leader) == on_leader && !name.witness;
            let target = self.lab.hosts().iter().find(suits).context("no host to move to")?.name.clone();
            self.migrate(&target)?;
        }
        anyhow::bail!("{GUEST} does not get to where the test needs it")
    }

    /// Moves the guest and waits until it runs there.
    ///
    /// # Errors
    /// When it does not arrive.
    pub fn migrate(&self, target: &str) -> Result<()> {
        let from = self.lab.status_soon()?.from;
        let answer = self.lab.holdfast_answered(&from, &["guest", "migrate", GUEST, "--to", target])?;
        // Where the first answer was lost with the lead, the order may have been taken, and is refused the second time.
        let under_way = || self.shown(&format!("/guests/{GUEST}/state")).is_ok_and(|state| state == "migrating");
        ensure!(answer.ok() || under_way(), "no move to {target}: {} {}", answer.err.trim(), answer.out.trim());
        // Under software emulation a guest sometimes hangs after a move; its ladder then resets it. Outages are the client's to tell.
        self.lab.wait_status(&format!("{GUEST} on {target}"), LIMIT * 2, |status| {
            (status.guest_host(GUEST) == Some(target) && status.guest_healthy(GUEST)).then_some(())
        })
    }

    /// The host that leads.
    ///
    /// # Errors
    /// When nobody does.
    pub fn leader(&self) -> Result<String> {
        self.lab.wait_status("a leader", LIMIT, |status| status.leader().map(str::to_owned))
    }

    /// All hosts but these.
    #[must_use]
    pub fn others(&self, but: &[&str]) -> Vec<String> {
        let names = self.lab.hosts().iter().map(|spec| spec.name.clone());
        names.filter(|name| !but.contains(&name.as_str())).collect()
    }

    /// What a path of the status shows (JSON pointer); `Null` when there is none.
    ///
    /// # Errors
    /// When no host answers.
    pub fn shown(&self, pointer: &str) -> Result<Value> {
        Ok(self.lab.status_soon()?.value.pointer(pointer).cloned().unwrap_or(Value::Null))
    }

    /// The guest's incidents as `explain` tells them, newest first.
    ///
    /// # Errors
    /// When no host answers.
    pub fn incidents(&self) -> Result<Vec<Value>> {
        let story = self.lab.ask_soon(&json!({ "explain": { "guest": GUEST } }))?;
        Ok(story.get("incidents").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// The first incident of the guest itself for which something was done since `before` ([`Scene::incidents`]), once it is over.
    /// Others may come around it for which nothing was: a guest on a busy machine answers late for a moment.
    ///
    /// # Errors
    /// After twice [`LIMIT`], with all that are known.
    pub fn mended(&self, before: &[Value]) -> Result<Value> {
        let key = format!("guest/{GUEST}");
        let is_over = |one: &Value| one.get("open") == Some(&Value::Bool(false));
        let is_acted_on = |one: &Value| one.get("rung").is_some_and(Value::is_string);
        // One that was open, and for which nothing had been done, may become that of what has happened since.
        let known = before.iter().filter(|one| is_over(one) || is_acted_on(one));
        let known: Vec<Option<&Value>> = known.map(|one| one.get("id")).collect();
        let is_its = |one: &&Value| {
            let own = one.get("key").and_then(Value::as_str) == Some(key.as_str());
            own && !known.contains(&one.get("id")) && is_acted_on(one)
        };
        wait::until("an incident for which something was done, and that is over", LIMIT * 2, || {
            let all = self.incidents().map_err(|error| format!("{error:#}"))?;
            // The newest comes first.
            match all.iter().rfind(is_its) {
                Some(its) if is_over(its) => Ok(its.clone()),
                _ => Err(format!("{all:?}")),
            }
        })
    }

    /// The sentences of the journal since the test has begun, oldest first.
    ///
    /// # Errors
    /// When no host answers.
    pub fn journal(&self) -> Result<Vec<String>> {
        let lines = self.lab.ask_soon(&json!({ "journal": { "last": JOURNAL_LINES } }))?;
        let lines = lines.as_array().context("a journal is a list")?;
        let is_new = |line: &&Value| line.get("index").and_then(Value::as_u64) > Some(self.begin_index);
        Ok(lines.iter().filter(is_new).filter_map(|line| line.get("what")?.as_str().map(str::to_owned)).collect())
    }

    /// How often the power buttons of all hosts were pressed since the test has begun, whoever did it.
    #[must_use]
    pub fn presses(&self) -> usize {
        self.lab.presses()
    }

    /// Waits until one QEMU alone has the guest's disk open: after a move, its source has it for a moment too. Returns that one.
    ///
    /// # Errors
    /// After [`LIMIT`].
    pub fn qemu_alone(&self) -> Result<(String, i32)> {
        wait::until(&format!("one QEMU with the disk of {GUEST}"), LIMIT, || {
            self.qemu().map_err(|error| format!("{error:#}"))
        })
    }

    /// The one QEMU that has the guest's disk open.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn qemu(&self) -> Result<(String, i32)> {
        let mut pids = self.lab.guest_qemu_pids(GUEST);
        ensure!(pids.len() == 1, "the disk of {GUEST} is open in {pids:?}");
        pids.pop().context("no QEMU")
    }

    /// `kill -9` of the guest's QEMU.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_qemu(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.qemu()?.1), Signal::SIGKILL)?)
    }

    /// Asks the guest for a page that ends its answers, until the client has missed one. They may be back by then: a guest may have been
    /// reset before whoever asked has given up.
    ///
    /// # Errors
    /// When it goes on answering.
    pub fn end_answers(&self, path: &str) -> Result<()> {
        let begin = now_ms();
        let ended = || match self.client.longest_since(begin) {
            Some(_) => Ok(()),
            None => Err("it has answered all the time".to_owned()),
        };
        wait::until(&format!("an end of all answers by {path}"), LIMIT, || {
            // Whoever would answer ends with it. What a late guest has not heard, it is asked once more.
            let _ = self.lab.client_get(&format!("{ADDRESS}:{PORT}"), path);
            wait::until("an answer that the client misses", HEARD_LIMIT, ended).map_err(|error| format!("{error:#}"))
        })
    }

    /// Who the guest says that it is: its boot id, and how often its disk was booted from.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn who(&self) -> Result<(String, u64)> {
        let text = wait::until("the guest's word", LIMIT, || {
            self.lab.client_get(&format!("{ADDRESS}:{PORT}"), "/cgi-bin/who").map_err(|error| format!("{error:#}"))
        })?;
        let who: Value = serde_json::from_str(&text).with_context(|| format!("the guest said {text}"))?;
        let boot = who.get("boot_id").and_then(Value::as_str).context("no boot id")?.to_owned();
        Ok((boot, who.get("boots").and_then(Value::as_u64).context("no count of boots")?))
    }

    /// The longest outage since [`Scene::calm`], in milliseconds.
    #[must_use]
    pub fn outage_ms(&self) -> f64 {
        self.client.longest_since(self.calm_ms).map_or(0.0, |outage| outage.length_ms())
    }

    /// That the guest is the one that it was at the last [`Scene::calm`], neither booted again nor stuck, and answers.
    /// It may have moved. How long the client had no answers is printed: it says more about the machine than a test may
    /// depend on.
    ///
    /// # Errors
    /// When it was booted again, or had no answers for so long that something must have stood in the way.
    pub fn answered_throughout(&self) -> Result<()> {
        let silence = self.outage_ms();
        eprintln!("longest silence: {silence:.0} ms");
        ensure!(silence < STUCK_MS, "the client had no answers for {silence:.0} ms");
        ensure!(self.who()? == self.calm_who, "{GUEST} was booted again");
        Ok(())
    }

    /// Waits until a QEMU has the guest's disk open on another host than `old`, which must be off by then; then until the
    /// guest is healthy there. Returns the new host.
    ///
    /// # Errors
    /// When that does not happen, or `old` was not off.
    pub fn moved_after_proof(&self, old: &str, limit: Duration) -> Result<String> {
        wait::until(&format!("{GUEST} anywhere but on {old}"), limit, || {
            let open = self.lab.guest_qemu_pids(GUEST);
            if open.iter().any(|(host, _)| host != old) { Ok(()) } else { Err(format!("open in {open:?}")) }
        })?;
        ensure!(!self.lab.is_on(old), "{GUEST} was started elsewhere while {old} was on");
        let host = self.lab.wait_guest_healthy(GUEST, LIMIT)?;
        ensure!(host != old, "{GUEST} is said to be on {old}, which is off");
        self.client.wait_up(LIMIT)?;
        Ok(host)
    }

    /// Looks again and again for this long, and fails when `look` finds something.
    ///
    /// # Errors
    /// What `look` found.
    pub fn never(&self, time: Duration, mut look: impl FnMut(&Self) -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            look(self)?;
            wait::pause(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// That no watchdog has fired since the test has begun.
    ///
    /// # Errors
    /// When one has.
    pub fn no_watchdog_fired(&self) -> Result<()> {
        for spec in self.lab.hosts().iter().filter(|spec| spec.watchdog_seconds.is_some()) {
            let events = self.lab.watchdog_events(&spec.name)?;
            let fired = |event: &WatchdogEvent| event.what == "fired" && event.at_ms >= self.begin_ms;
            ensure!(!events.iter().any(fired), "the watchdog of {}: {events:?}", spec.name);
        }
        Ok(())
    }

    /// Fails the test unless somebody has watched the images since it has begun, and none was ever written by two guests at once.
    pub(super) fn no_image_had_two_writers(&self) {
        assert!(self.lab.looks() > self.begin_looks, "nobody has watched the images");
        assert_eq!(self.lab.double_runs(), [], "an image was written by two guests at once");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
            return;
        }
        self.no_image_had_two_writers();
    }
}
