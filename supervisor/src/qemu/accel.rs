//! Whether KVM really works on this host.
//!
//! That `/dev/kvm` opens is not enough: on a virtual host it may be there without the processor's help, and then a
//! guest with an ordinary kernel is "started" and never gets anywhere. So both are asked for: the processor's flag, and
//! a QEMU that sets up a virtual machine and quits cleanly.

use std::{future::Future, path::Path, process::Stdio, time::Duration};

use holdfast_policies::{model::Accel, observe::clean};
use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell, time::timeout};

/// Longest time for the trial; it takes some 50 ms.
const TRIAL_DEADLINE: Duration = Duration::from_secs(5);

/// What a guest is run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor's own virtualisation.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// What this host found out about KVM: `Err` says why it does not work.
pub type KvmTrial = Result<(), String>;

/// Whether KVM works, as soon as that is known. That it works does not change before the next boot. That it does not may be of the
/// moment: a host that boots was too busy for the trial, or QEMU was just being upgraded. Who kept that would have every guest
/// that starts here later emulated in software, so it is found out again for each.
#[derive(Default)]
pub struct Kvm(OnceCell<()>);

impl Kvm {
    /// What is known, or what `trial` says.
    pub async fn find_out<F: Future<Output = KvmTrial>>(&self, trial: impl FnOnce() -> F) -> KvmTrial {
        self.0.get_or_try_init(trial).await.copied()
    }
}

/// What a guest that asks for `wanted` gets on a host with this trial.
///
/// # Errors
/// Why KVM, which the guest insists on, does not work.
pub fn choose(wanted: Accel, trial: &KvmTrial) -> Result<Accelerator, String> {
    match (wanted, trial) {
        (Accel::Tcg, _) | (Accel::Auto, Err(_)) => Ok(Accelerator::Tcg),
        (Accel::Auto | Accel::Kvm, Ok(())) => Ok(Accelerator::Kvm),
        (Accel::Kvm, Err(why)) => Err(why.clone()),
    }
}

/// Finds out whether KVM works.
pub async fn try_kvm(binary: &Path) -> KvmTrial {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    let processor = std::fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
    if cfg!(target_arch = "x86_64") && !has_virtualisation(&processor) {
        return Err("the processor offers neither vmx nor svm".to_owned());
    }
    trial(binary, &["-accel", "kvm"]).await
}

/// Whether this QEMU sets up a machine without a guest when it is given these options, and quits cleanly.
///
/// # Errors
/// What it says instead.
pub async fn trial(binary: &Path, options: &[&str]) -> Result<(), String> {
    match timeout(TRIAL_DEADLINE, run_trial(binary, options)).await {
        Ok(result) => result,
        Err(_) => Err(format!("a trial machine did not quit within {TRIAL_DEADLINE:?}")),
    }
}

async fn run_trial(binary: &Path, options: &[&str]) -> Result<(), String> {
    let mut child = Command::new(binary)
        .args(options)
        .args(["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"])
        .args(["-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A QEMU that has already given up closes the pipe; its exit status tells.
        _ = stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n").await;
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        drop(stdin);
        if output.status.success() {
            return Ok(());
        }
        let said = clean(String::from_utf8_lossy(&output.stderr).trim());
        // One that the kernel has ended says nothing.
        return Err(if said.is_empty() { format!("a trial machine ended with {}", output.status) } else { said });
    }
    Err("no pipe to the trial machine".to_owned())
}

fn has_virtualisation(processor: &str) -> bool {
    let flags = processor.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_insists_on_kvm_never_gets_less() {
        let broken = Err("no".to_owned());
        let table = [
            (Accel::Auto, Ok(()), Ok(Accelerator::Kvm)),
            (Accel::Auto, broken.clone(), Ok(Accelerator::Tcg)),
            (Accel::Tcg, Ok(()), Ok(Accelerator::Tcg)),
            (Accel::Tcg, broken.clone(), Ok(Accelerator::Tcg)),
            (Accel::Kvm, Ok(()), Ok(Accelerator::Kvm)),
            (Accel::Kvm, broken, Err("no".to_owned())),
        ];
        for (wanted, trial, expected) in table {
            assert_eq!(choose(wanted, &trial), expected, "{wanted:?} {trial:?}");
        }
    }

    #[tokio::test]
    async fn kvm_that_did_not_work_is_tried_again_and_that_it_works_is_known_for_good() {
        let kvm = Kvm::default();
        let late = || async { Err("a trial machine did not quit within 5s".to_owned()) };
        assert!(kvm.find_out(late).await.is_err());
        assert!(kvm.find_out(|| async { Ok(()) }).await.is_ok(), "what was said of a busy moment is kept");
        assert!(kvm.find_out(late).await.is_ok(), "it is tried for every guest");
    }

    /// The shell takes the options for its own: `-c` and what it is to do.
    #[tokio::test]
    async fn a_trial_machine_that_ends_without_a_word_is_told_of_by_how_it_ended() {
        let trial = async |does: &str| trial(Path::new("/bin/sh"), &["-c", does]).await;
        let ended = trial("kill -9 $$").await.unwrap_err();
        assert!(ended.contains("signal: 9"), "{ended}");
        assert_eq!(trial("echo no such option >&2; exit 1").await, Err("no such option".to_owned()));
        assert_eq!(trial("exit 0").await, Ok(()));
    }

    #[test]
    fn a_device_without_the_processors_help_does_not_count() {
        assert!(has_virtualisation("model : x\nflags\t\t: fpu vmx sse\n"));
        assert!(!has_virtualisation("flags\t\t: fpu hypervisor svmx\nvmx flags\t: vnmi\n"));
    }
}
