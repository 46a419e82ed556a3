//! Processes in the guest, counted in its `/proc`, which needs no program but the shell.

use std::time::Duration;

use holdfast_policies::probe::{ProcessProbe, Processes};

use super::{look, word};
use crate::{
    channel::{Counted, GuestChannel},
    finding::Finding,
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

const BY_PID_FILE: &str = r#"[ -e "$1" ] || { echo 0; exit 0; }
read -r pid < "$1" || [ -n "$pid" ] || exit 4
case $pid in ''|*[!0-9]*) exit 4;; esac
read -r line 2> /dev/null < "/proc/$pid/stat" || { echo 0; exit 0; }
case ${line##*) } in Z*|X*) echo 0;; *) echo 1;; esac"#;

/// Counts them.
pub(crate) async fn process(channel: &dyn GuestChannel, probe: &ProcessProbe, timeout: Duration) -> Finding {
    let (program, argument) = match &probe.which {
        Processes::Name(name) => (BY_NAME, name.clone()),
        Processes::PidFile(path) => (BY_PID_FILE, word(path)),
    };
    let counted = match channel.count(&probe.which).await {
        Some(counted) => Ok(counted),
        None => by_program(channel, program, &argument, timeout).await,
    };
    match counted {
        Ok(Counted::There(count)) => of_count(count, probe),
        Ok(Counted::NoNumber) => Finding::unknown(format!("{argument} holds no process number")),
        Ok(Counted::Unseen) => Finding::unknown("the guest's processes cannot be looked at"),
        Err(finding) => finding,
    }
}

async fn by_program(
    channel: &dyn GuestChannel,
    program: &str,
    argument: &str,
    timeout: Duration,
) -> Result<Counted, Finding> {
    let said = look(channel, program, &[argument], timeout).await?;
    match (said.code, said.text.trim().parse::<u32>()) {
        (0, Ok(count)) => Ok(Counted::There(count)),
        (4, _) => Ok(Counted::NoNumber),
        _ => Err(said.odd()),
    }
}

fn of_count(count: u32, probe: &ProcessProbe) -> Finding {
    let what = match &probe.which {
        Processes::Name(name) => format!("{count} processes {name:?}"),
        Processes::PidFile(path) if count == 0 => format!("the process of {} is not there", path.display()),
        Processes::PidFile(path) => format!("the process of {} is there", path.display()),
    };
    let most = probe.most.filter(|most| count > *most);
    if count < probe.least {
        Finding::fail(format!("{what}, wanted at least {}", probe.least))
    } else if let Some(most) = most {
        Finding::fail(format!("{what}, wanted at most {most}"))
    } else {
        Finding::pass(what)
    }
}
