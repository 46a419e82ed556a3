//! Holdfast on the lab's hosts: keys and host files by `holdfast init`, and what its command line answers.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    HostSpec, Lab,
    command::{Answer, run_ok},
    guest, machine_id, wait,
};

/// Longest time for one command line call, and until a coordinator takes it. A call waits for a commit at most, which takes well
/// under a second; the command line itself gives up after 12 s.
pub const CALL_LIMIT: Duration = Duration::from_secs(90);
/// How soon the status is looked at again at the earliest: whoever decides answers, and decides nothing meanwhile.
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// The port of the read-only HTTP API.
pub const API_PORT: u16 = 7480;
/// Where the lab writes the policies that it applies.
const POLICIES: &str = "policies";

impl Lab {
    /// Makes keys, certificates and host files for all hosts.
    pub(super) fn init(&self) -> Result<()> {
        let out = self.place.dir.join("etc");
        let mut argv =
            vec![self.binary().to_owned(), "init".into(), "--out".into(), out.to_string_lossy().into_owned()];
        for spec in self.hosts() {
            argv.extend(["--host".into(), format!("{}={}", spec.name, self.address(&spec.name)?)]);
        }
        let voters: Vec<&str> = self.hosts().iter().filter(|spec| spec.voter).map(|spec| spec.name.as_str()).collect();
        argv.extend(["--voters".into(), voters.join(",")]);
        for spec in self.hosts().iter().filter(|spec| spec.witness) {
            argv.extend(["--witness".into(), spec.name.clone()]);
        }
        run_ok(&argv, CALL_LIMIT).context("holdfast init")?;
        self.hosts().iter().try_for_each(|spec| self.adapt_host_file(spec))
    }

    fn adapt_host_file(&self, spec: &HostSpec) -> Result<()> {
        let path = self.host_file(&spec.name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let state = self.host_dir(&spec.name).join("state");
        fs::create_dir_all(&state)?;
        let mut own = vec![
            ("state_dir", state.display().to_string()),
            ("run_dir", "/run/holdfast".to_owned()),
            ("api", format!("{}:{API_PORT}", self.address(&spec.name)?)),
            ("machine_id", machine_id(self.number(&spec.name)?)?),
            ("qemu", "{ cgroup: /sys/fs/cgroup/guests }".to_owned()),
        ];
        if let Some(memory) = spec.memory_mib {
            own.push(("memory_mib", memory.to_string()));
        }
        if let Some(watchdog) = self.watchdog_yaml(spec) {
            own.push(("watchdog", watchdog));
        }
        Ok(fs::write(&path, format!("{}{}", replaced(&text, &own), spec.extra))?)
    }

    /// A host's host file.
    #[must_use]
    pub fn host_file(&self, host: &str) -> PathBuf {
        self.place.dir.join("etc").join(host).join("holdfast.yaml")
    }

    /// Runs `holdfast --config FILE ARGUMENTS…` on a host.
    ///
    /// # Errors
    /// When the host is off, or after [`CALL_LIMIT`].
    pub fn holdfast(&self, host: &str, arguments: &[&str]) -> Result<Answer> {
        let config = self.host_file(host).to_string_lossy().into_owned();
        let program = self.program(host);
        let mut argv = vec![program.as_str(), "--config", &config];
        argv.extend(arguments);
        self.exec(host, &argv, CALL_LIMIT)
    }

    /// Like [`Lab::holdfast`], but does what its exit code 3 says, for some seconds: tries again, as the coordinator may just be
    /// changing.
    ///
    /// # Errors
    /// As [`Lab::holdfast`], and when it still says so.
    pub fn holdfast_answered(&self, host: &str, arguments: &[&str]) -> Result<Answer> {
        wait::until("a coordinator that takes the command", CALL_LIMIT, || {
            let answer = self.holdfast(host, arguments).map_err(|error| format!("{error:#}"))?;
            if answer.code == Some(3) { Err(answer.err) } else { Ok(answer) }
        })
    }

    /// Like [`Lab::holdfast_answered`], for calls that must succeed; returns what was printed.
    ///
    /// # Errors
    /// As [`Lab::holdfast_answered`], and when the exit code is not 0.
    pub fn holdfast_soon(&self, host: &str, arguments: &[&str]) -> Result<String> {
        let answered = self.holdfast_answered(host, arguments)?;
        if !answered.ok() {
            bail!(
                "on {host}, holdfast {} ended with {:?}: {} {}",
                arguments.join(" "),
                answered.code,
                answered.err.trim(),
                answered.out.trim()
            );
        }
        Ok(answered.out)
    }

    /// Like [`Lab::holdfast_soon`] with `--json`.
    ///
    /// # Errors
    /// As [`Lab::holdfast_soon`], and when the answer is not JSON.
    pub fn holdfast_json(&self, host: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.push("--json");
        parsed(&self.holdfast_soon(host, &all)?)
    }

    /// How everything is, as the first host says that is on, not frozen, and knows a leader. The host that answered last is asked
    /// first: one that is cut off takes seconds to say that it knows nothing.
    ///
    /// # Errors
    /// When no host answers so, with what the last one said.
    pub fn status(&self) -> Result<Status> {
        let mut last = anyhow::anyhow!("no host is on");
        let before = self.answered().clone();
        let mut usable: Vec<&HostSpec> =
            self.hosts().iter().filter(|spec| self.is_on(&spec.name) && !self.is_frozen(&spec.name)).collect();
        usable.sort_by_key(|spec| before.as_deref() != Some(spec.name.as_str()));
        for spec in usable {
            match self.ask(&spec.name, &json!("status")) {
                Ok(value) => {
                    let status = Status { from: spec.name.clone(), value };
                    if status.leader().is_some() && status.quorum() {
                        *self.answered() = Some(status.from.clone());
                        return Ok(status);
                    }
                    last = anyhow::anyhow!("{} knows no leader or has no quorum: {}", spec.name, status.value);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Like [`Lab::status`], but waits for a coordinator: which one leads may just be changing.
    ///
    /// # Errors
    /// When there is none for [`CALL_LIMIT`].
    pub fn status_soon(&self) -> Result<Status> {
        self.wait_status("a coordinator", CALL_LIMIT, |status| Some(status.clone()))
    }

    /// Waits until `look` accepts the status.
    ///
    /// # Errors
    /// After `limit`, with the last status.
    pub fn wait_status<T>(&self, what: &str, limit: Duration, mut look: impl FnMut(&Status) -> Option<T>) -> Result<T> {
        wait::until_every(STATUS_EVERY, what, limit, || {
            let status = self.status().map_err(|error| format!("{error:#}"))?;
            look(&status).ok_or_else(|| status.value.to_string())
        })
    }

    /// What a coordinator answers to a question ([`Lab::ask`]), by way of the host that [`Lab::status`] names.
    ///
    /// # Errors
    /// When there is no answer but no for [`CALL_LIMIT`].
    pub fn ask_soon(&self, question: &Value) -> Result<Value> {
        wait::until_every(STATUS_EVERY, &format!("an answer to {question}"), CALL_LIMIT, || {
            let asked = self.status().and_then(|status| self.ask(&status.from, question));
            asked.map_err(|error| format!("{error:#}"))
        })
    }

    /// Waits until every host that is on is healthy.
    ///
    /// # Errors
    /// After `limit`, with the last status.
    pub fn wait_hosts_healthy(&self, limit: Duration) -> Result<()> {
        self.wait_status("all hosts healthy", limit, |status| {
            // Counted anew in every look: a host may be switched on or off meanwhile.
            let mut on = self.hosts().iter().map(|spec| spec.name.as_str()).filter(|host| self.is_on(host));
            on.all(|host| status.host_verdict(host) == Some("healthy")).then_some(())
        })
    }

    /// Waits until a host that was switched on hears all others that are on. Before that its word about them counts for nothing
    /// (R17), and a host of three that fails in the same moment is taken for failed only after the time to join (R19).
    ///
    /// # Errors
    /// After `limit`, with how many it hears.
    pub fn wait_hears_all(&self, host: &str, limit: Duration) -> Result<()> {
        let address = format!("{}:{API_PORT}", self.address(host)?);
        wait::until(&format!("{host} hearing all hosts"), limit, || {
            // Counted anew in every look: a host may be switched on or off meanwhile.
            let on = self.hosts().iter().filter(|spec| self.is_on(&spec.name)).count().to_string();
            let page = self.client_get(&address, "/metrics").map_err(|error| format!("{error:#}"))?;
            let heard = page.lines().find_map(|line| line.strip_prefix("holdfast_gossip_live_members "));
            if heard == Some(on.as_str()) { Ok(()) } else { Err(format!("{heard:?} of {on}")) }
        })
    }

    /// What a host shows at `/metrics`; it is asked again while it does not answer.
    ///
    /// # Errors
    /// When it does not for [`CALL_LIMIT`].
    pub fn metrics(&self, host: &str) -> Result<String> {
        let address = format!("{}:{API_PORT}", self.address(host)?);
        wait::until(&format!("the metrics of {host}"), CALL_LIMIT, || {
            self.client_get(&address, "/metrics").map_err(|error| format!("{error:#}"))
        })
    }

    /// Waits until every host that is on hears all others ([`Lab::wait_hears_all`]).
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_all_hear_all(&self, limit: Duration) -> Result<()> {
        let on = self.hosts().iter().filter(|spec| self.is_on(&spec.name));
        on.into_iter().try_for_each(|spec| self.wait_hears_all(&spec.name, limit))
    }

    /// Waits until a guest runs and all its services are healthy; returns its host.
    ///
    /// # Errors
    /// After `limit`, with the last status.
    pub fn wait_guest_healthy(&self, guest: &str, limit: Duration) -> Result<String> {
        self.wait_status(&format!("{guest} healthy"), limit, |status| {
            let host = status.guest_host(guest).filter(|_| status.guest_healthy(guest));
            host.map(str::to_owned)
        })
    }

    /// Fills in a folder of policies and applies it through the given host. In the files, `{{accel}}` stands for the
    /// acceleration that lab guests use and `{{tsc_khz}}` for the machine's clock.
    ///
    /// # Errors
    /// When a file cannot be read, or `holdfast apply` refuses.
    pub fn apply(&self, host: &str, folder: &std::path::Path) -> Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                files.push((name, fs::read_to_string(&path)?));
            }
        }
        self.apply_texts(host, &files)
    }

    /// Like [`Lab::apply`], with files given as name and text.
    ///
    /// # Errors
    /// As [`Lab::apply`].
    pub fn apply_texts<N: AsRef<str>, T: AsRef<str>>(&self, host: &str, files: &[(N, T)]) -> Result<()> {
        let folder = self.write_policies(files)?;
        self.holdfast_soon(host, &["apply", &folder]).map(drop)
    }

    /// Fills in files, given as name and text, and writes them to a folder, which it returns. It has the same path on every host
    /// and on the client's machine, and holds whatever was written last.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write_policies<N: AsRef<str>, T: AsRef<str>>(&self, files: &[(N, T)]) -> Result<String> {
        let folder = self.shared().join(POLICIES);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        for (name, text) in files {
            fs::write(folder.join(name.as_ref()), filled_in(text.as_ref()))?;
        }
        Ok(folder.to_string_lossy().into_owned())
    }

    /// Fencing of all hosts, as policy YAML: by the lease alone where there is a watchdog, which is virtual as the lab's hosts
    /// are, and by IPMI elsewhere. A BMC of the lab answers at once or never, so attempts are short.
    ///
    /// # Errors
    /// When there are more hosts than the lab can number.
    pub fn fencing_yaml(&self) -> Result<String> {
        let mut text = "fencing:\n".to_owned();
        for spec in self.hosts() {
            if spec.watchdog_seconds.is_some() {
                text += &format!("  {}:\n    - lease: {{ watchdog_trusted_by: the lab }}\n", spec.name);
                continue;
            }
            text += &format!("  {}:\n    - {}\n", spec.name, self.bmc(&spec.name).yaml("4s")?);
        }
        Ok(text)
    }

    /// A guest with one HTTP service, as policy YAML; for tests that need more guests than the quickstart has.
    #[must_use]
    pub fn guest_yaml(&self, name: &str, address: &str) -> String {
        format!(
            "guests:\n  {name}:\n    labels: {{ app: web }}\n    address: {address}\n    qemu:\n      memory: 128MiB\n      cpus: 1\n      \
             kernel: /srv/holdfast/guest/vmlinux\n      initrd: /srv/holdfast/guest/initrd\n      append: \"{}\"\n      \
             disks: [{{ path: /srv/holdfast/{name}.raw, format: raw }}]\n      nics: [{{ bridge: br0, mac: \"{}\" }}]\n      agent: true\n      accel: {}\n",
            guest::append(name, address),
            guest::mac(address),
            accel()
        )
    }
}

/// The status of a cluster, as `holdfast status --json` shows it, and where it was asked for.
#[derive(Debug, Clone)]
pub struct Status {
    /// The host that was asked.
    pub from: String,
    /// All of it.
    pub value: Value,
}

impl Status {
    /// The host that leads.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.value.get("leader")?.as_str()
    }

    /// Whether the asked host sees a quorum; yes when it does not say.
    #[must_use]
    pub fn quorum(&self) -> bool {
        self.value.get("quorum").and_then(Value::as_bool).unwrap_or(true)
    }

    /// What is held of a host.
    #[must_use]
    pub fn host_verdict(&self, host: &str) -> Option<&str> {
        self.value.get("hosts")?.get(host)?.get("verdict")?.as_str()
    }

    /// Where a guest is assigned.
    #[must_use]
    pub fn guest_host(&self, guest: &str) -> Option<&str> {
        self.value.get("guests")?.get(guest)?.get("host")?.as_str()
    }

    /// A guest's state.
    #[must_use]
    pub fn guest_state(&self, guest: &str) -> Option<&str> {
        self.value.get("guests")?.get(guest)?.get("state")?.as_str()
    }

    /// Whether a guest runs, and all of its services are healthy.
    #[must_use]
    pub fn guest_healthy(&self, guest: &str) -> bool {
        let Some(found) = self.value.get("guests").and_then(|guests| guests.get(guest)) else { return false };
        let services = found.get("services").and_then(Value::as_object);
        let healthy = |service: &Value| service.get("verdict").and_then(Value::as_str) == Some("healthy");
        self.guest_state(guest) == Some("running") && services.is_none_or(|services| services.values().all(healthy))
    }
}

fn parsed(out: &str) -> Result<Value> {
    serde_json::from_str(out).with_context(|| format!("holdfast answered no JSON: {out}"))
}

fn filled_in(text: &str) -> String {
    text.replace("{{tsc_khz}}", &guest::tsc_khz().to_string()).replace("{{accel}}", &accel())
}

/// Software emulation, so that figures of different machines can be compared.
pub(super) fn accel() -> String {
    std::env::var("HOLDFAST_LAB_ACCEL").unwrap_or_else(|_| "tcg".to_owned())
}

/// The text with these top-level keys (and what is indented below them) replaced or added.
fn replaced(text: &str, own: &[(&str, String)]) -> String {
    let mut out = String::new();
    let mut dropping = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#', '-']) && !line.is_empty() {
            let key = line.split(':').next().unwrap_or_default();
            dropping = own.iter().any(|(name, _)| *name == key);
        }
        if !dropping {
            out += line;
            out.push('\n');
        }
    }
    own.iter().for_each(|(key, value)| out += &format!("{key}: {value}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_host_file_are_replaced_with_what_is_below_them() {
        let text = "host: h1\nqemu:\n  binary: x\nstate_dir: /var/lib/holdfast\n# why\ntls:\n  ca: ca.pem\n";
        let own = [("state_dir", "/s".to_owned()), ("qemu", "{ cgroup: /g }".to_owned())];
        assert_eq!(replaced(text, &own), "host: h1\ntls:\n  ca: ca.pem\nstate_dir: /s\nqemu: { cgroup: /g }\n");
    }
}
