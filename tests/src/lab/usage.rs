//! What a process takes of the machine, as the kernel counts it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

/// A line of `/proc/PID/status` with a size, such as `VmRSS`, in KiB.
///
/// # Errors
/// When the process is gone, or has no such line.
pub fn memory_kib(pid: i32, name: &str) -> Result<u64> {
    let line = status_line(pid, name)?;
    let number = line.strip_suffix(" kB").with_context(|| format!("{name} of pid {pid} is no size: {line}"))?;
    number.trim().parse().context("not a number")
}

/// How many threads it has.
///
/// # Errors
/// When the process is gone.
pub fn threads(pid: i32) -> Result<usize> {
    status_line(pid, "Threads")?.parse().context("not a number")
}

/// How many descriptors it has open.
///
/// # Errors
/// When the process is gone.
pub fn descriptors(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(folder(pid).join("fd"))?.count())
}

fn status_line(pid: i32, name: &str) -> Result<String> {
    let text = fs::read_to_string(folder(pid).join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|line| line.trim().to_owned()).with_context(|| format!("no {name} of pid {pid}"))
}

fn folder(pid: i32) -> PathBuf {
    PathBuf::from("/proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(memory_kib(own, "VmRSS").unwrap() > 100);
        assert!(threads(own).unwrap() >= 1 && descriptors(own).unwrap() >= 1);
        assert!(memory_kib(own, "Threads").is_err(), "that is no size");
    }
}
