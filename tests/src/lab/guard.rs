//! A host's guard, as the lab asks it: over its own socket, past the supervisor.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Daemon, Lab, wait};

/// Longest time for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Longest time for a take-over.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(90);

impl Lab {
    /// What the guard of a host says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn guard_status(&self, host: &str) -> Result<Value> {
        let socket = self.run_dir(host)?.join("holdfast/guard.sock");
        let mut stream = UnixStream::connect(&socket).with_context(|| format!("the guard of {host} is not there"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"{\"request\":\"query\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the guard of {host} said {line:?}"))
    }

    /// Waits until `look` accepts what the guard of a host says.
    ///
    /// # Errors
    /// After `limit`, with what it said last.
    pub fn wait_guard<T>(
        &self,
        host: &str,
        what: &str,
        limit: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        wait::until(&format!("the guard of {host}: {what}"), limit, || {
            let status = self.guard_status(host).map_err(|error| format!("{error:#}"))?;
            look(&status).ok_or_else(|| status.to_string())
        })
    }

    /// Waits until every host that is on and has a watchdog has armed it.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_armed(&self, limit: Duration) -> Result<()> {
        let watched = self.hosts().iter().filter(|spec| spec.watchdog_seconds.is_some() && self.is_on(&spec.name));
        watched.into_iter().try_for_each(|spec| {
            self.wait_guard(&spec.name, "an armed watchdog", limit, |status| {
                let armed = status.get("armed").filter(|armed| armed["stops"] == true)?;
                armed.pointer("/watchdog/timeout_ms")?.as_u64().map(drop)
            })
        })
    }

    /// Starts a second guard on a host, which takes over from the one that runs. Returns the pid of the new one, as this
    /// process sees it. No service manager starts it again.
    ///
    /// # Errors
    /// When it does not take over.
    pub fn take_over_guard(&self, host: &str) -> Result<i32> {
        let old = self.guard_status(host)?;
        let old = old.get("pid").and_then(Value::as_i64).context("a status without pid")?;
        self.want(host, Daemon::Guard, false)?;
        let line = "echo $$ > /sys/fs/cgroup/sys/cgroup.procs && exec setsid \"$0\" guard --take-over --config \"$1\" < /dev/null >> \"$2\" 2>&1";
        let (file, log) = (self.host_file(host), self.host_dir(host).join("guard.log"));
        let argv = ["sh", "-c", line, &self.program(host), &file.to_string_lossy(), &log.to_string_lossy()];
        self.adopt(self.on(host, &argv)?.spawn().context("cannot start a second guard")?);
        let new = self.wait_guard(host, "another one", TAKE_OVER_LIMIT, |status| {
            status.get("pid")?.as_i64().filter(|pid| *pid != old)
        })?;
        // It ends once it has handed over, and its host is a moment late to note that.
        wait::until(&format!("the end of the old guard of {host}"), TAKE_OVER_LIMIT, || {
            match self.daemon_pid(host, Daemon::Guard) {
                Ok(pid) => Err(format!("pid {pid} goes on")),
                Err(_) => Ok(()),
            }
        })?;
        self.outer_pid(host, i32::try_from(new)?)
    }
}
