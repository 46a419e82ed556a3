//! Processes in the guest, counted in its `/proc`, which needs no program but the shell.

use std::time::Duration;

use holdfast_policies::probe::{ProcessProbe, Processes};

use super::{look, word};
use crate::{
    channel::{Counted, GuestChannel, Named},
    finding::Finding,
    memory::Memory,
};

/// The dead that nobody has waited for do not count.
const BY_NAME: &str = r#"n=0
for d in /proc/[0-9]*; do
  read -r line 2> /dev/null < "$d/stat" || continue
  name=${line#*(}; name=${name%)*}; state=${line##*) }
  [ "$name" = "$1" ] || continue
  case $state in Z*|X*) ;; *) n=$((n+1));; esac
done
echo "$n""#;

/// Says the number, when its process began (field 22 of proc_pid_stat(5)) or `-`, and what tells this writing of the file from any
/// other; the last one only where there is a `stat`. Files may be alike after a reboot, so the boot belongs to it. Where there is a
/// `stat`, it also tells a file that is not there from one that cannot be looked at (S5).
const BY_PID_FILE: &str = r#"[ -e "$1" ] || {
  why=$(LC_ALL=C stat -L "$1" 2>&1)
  case $?:$why in 1:*": No such file or directory"*|127:*) echo 0; exit 0;; 0:*) ;; *) exit 4;; esac
}
read -r pid < "$1" || [ -n "$pid" ] || exit 4
case $pid in ''|*[!0-9]*) exit 4;; esac
written=$(stat -c %i.%Y "$1" 2> /dev/null) && read -r boot 2> /dev/null < /proc/sys/kernel/random/boot_id \
  && written=$boot.$written || written=
read -r line 2> /dev/null < "/proc/$pid/stat" || { echo "$pid - $written"; exit 0; }
set -- ${line##*) }
case $1 in Z*|X*) echo "$pid - $written";; *) echo "$pid ${20} $written";; esac"#;

/// Counts them.
pub(crate) async fn process(
    channel: &dyn GuestChannel,
    probe: &ProcessProbe,
    memory: &Memory,
    timeout: Duration,
) -> Finding {
    let counted = match channel.count(&probe.which).await {
        Some(counted) => Ok(counted),
        None => by_program(channel, &probe.which, timeout).await,
    };
    let shown = shown(&probe.which);
    match (counted, &probe.which) {
        (Ok(Counted::There(count)), Processes::Name(name)) => {
            of_count(count, &format!("{count} processes {name:?}"), probe)
        }
        (Ok(Counted::There(count)), Processes::PidFile(_)) => {
            of_count(count, &format!("{shown} is not there, nor its process"), probe)
        }
        (Ok(Counted::Named(named)), _) => of_named(&named, &shown, memory, probe),
        (Ok(Counted::NoNumber), _) => Finding::unknown(format!("{shown} holds no process number")),
        (Ok(Counted::Unseen), _) => Finding::unknown("the guest's processes cannot be looked at"),
        (Err(finding), _) => finding,
    }
}

async fn by_program(channel: &dyn GuestChannel, which: &Processes, timeout: Duration) -> Result<Counted, Finding> {
    let program = match which {
        Processes::Name(_) => BY_NAME,
        Processes::PidFile(_) => BY_PID_FILE,
    };
    let said = look(channel, program, &[&shown(which)], timeout).await?;
    match (said.code, counted(&said.text)) {
        (0, Some(counted)) => Ok(counted),
        (4, _) => Ok(Counted::NoNumber),
        _ => Err(said.odd()),
    }
}

/// A name or a path, as an argument and for people.
fn shown(which: &Processes) -> String {
    match which {
        Processes::Name(name) => name.clone(),
        Processes::PidFile(path) => word(path),
    }
}

/// `COUNT`, or `NUMBER BEGAN [WRITTEN]`.
fn counted(text: &str) -> Option<Counted> {
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let began = match words.next() {
        None => return Some(Counted::There(number)),
        Some("-") => None,
        Some(ticks) => Some(ticks.parse().ok()?),
    };
    Some(Counted::Named(Named { number, written: words.next().unwrap_or_default().to_owned(), began }))
}

fn of_named(named: &Named, file: &str, memory: &Memory, probe: &ProcessProbe) -> Finding {
    match (memory.is_still(file, named), named.began) {
        (true, _) => of_count(1, &format!("the process of {file} is there"), probe),
        (false, None) => of_count(0, &format!("the process of {file} is not there"), probe),
        (false, Some(_)) => {
            let what = format!("the process of {file} is not there: another one has got its number {}", named.number);
            of_count(0, &what, probe)
        }
    }
}

fn of_count(count: u32, what: &str, probe: &ProcessProbe) -> Finding {
    let most = probe.most.filter(|most| count > *most);
    if count < probe.least {
        Finding::fail(format!("{what}, wanted at least {}", probe.least))
    } else if let Some(most) = most {
        Finding::fail(format!("{what}, wanted at most {most}"))
    } else {
        Finding::pass(what)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use holdfast_policies::observe::Outcome;

    use super::*;
    use crate::channel::{ChannelError, ExecResult};

    /// A guest in which a file names whoever the test says.
    struct Guest(Mutex<Option<u64>>);

    #[async_trait]
    impl GuestChannel for Guest {
        async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
            Ok(())
        }

        async fn exec(&self, _: &[String], _: Duration) -> Result<ExecResult, ChannelError> {
            Err(ChannelError::Refused("nothing is to be run".to_owned()))
        }

        async fn count(&self, _: &Processes) -> Option<Counted> {
            let began = *self.0.lock().unwrap();
            Some(Counted::Named(Named { number: 7, written: "a".to_owned(), began }))
        }
    }

    #[tokio::test]
    async fn a_process_that_has_got_the_number_of_a_dead_one_does_not_stand_in_for_it() {
        let (guest, memory) = (Guest(Mutex::new(Some(100))), Memory::default());
        let probe = ProcessProbe { which: Processes::PidFile("/run/app.pid".into()), least: 1, most: None };
        for (began, outcome, said) in [
            (Some(100), Outcome::Pass, "is there"),
            (None, Outcome::Fail, "is not there, wanted"),
            (Some(900), Outcome::Fail, "another one has got its number 7"),
        ] {
            *guest.0.lock().unwrap() = began;
            let finding = process(&guest, &probe, &memory, Duration::from_secs(1)).await;
            assert_eq!(finding.outcome, outcome, "{}", finding.detail);
            assert!(finding.detail.contains(said), "{}", finding.detail);
        }
    }

    #[test]
    fn what_the_guests_shell_says_is_a_count_or_a_process() {
        let named = |written: &str, began| Counted::Named(Named { number: 7, written: written.to_owned(), began });
        for (said, expected) in [
            ("3\n", Some(Counted::There(3))),
            ("7 4711 b.12.34\n", Some(named("b.12.34", Some(4711)))),
            ("7 - b.12.34\n", Some(named("b.12.34", None))),
            ("7 4711 \n", Some(named("", Some(4711)))),
            ("", None),
            ("7 x", None),
            ("sh: not found", None),
        ] {
            assert_eq!(counted(said), expected, "{said}");
        }
    }
}
