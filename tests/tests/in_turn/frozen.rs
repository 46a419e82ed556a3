//! A guest whose file systems a tool for backups freezes, through QEMU's agent.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use holdfast_tests::lab::{
    Lent, Scene, left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use serde_json::{Value, json};

/// How long a tool waits for an answer before it hangs up and comes again: while another program speaks with the agent, there is none.
const ANSWER: Duration = Duration::from_secs(5);
/// Longer than the failed service and the restart that follows it take to be seen, and than the next rung would wait.
const BACKUP: Duration = Duration::from_secs(25);

#[test]
fn a_guest_that_is_frozen_for_a_backup_is_left_alone_and_helped_once_that_is_over() {
    if left_out("a_guest_that_is_frozen_for_a_backup_is_left_alone_and_helped_once_that_is_over") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    declare(&scene, |text| text).unwrap();
    let host = scene.calm().unwrap();
    let (who, qemu) = (scene.who().unwrap(), scene.qemu().unwrap());
    is_backed_up_while_it_fails(&scene, &host, &qemu).unwrap();
    scene.calm().unwrap();
    let journal = scene.journal().unwrap();
    assert_eq!(
        (scene.who().unwrap(), scene.qemu().unwrap()),
        (who, qemu),
        "more than its service was restarted: {journal:?}"
    );
    assert!(journal.iter().any(|line| line.contains("restart_service")), "{journal:?}");
}

#[test]
fn a_guest_whose_ladder_begins_with_a_reset_is_left_alone_too_while_it_is_frozen_for_a_backup() {
    if left_out("a_guest_whose_ladder_begins_with_a_reset_is_left_alone_too_while_it_is_frozen_for_a_backup") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    // Asked less often, a service leaves a busy machine more time to find out before it has failed.
    let restart = "      - restart_service: { run: [\"/bin/restart-app\"], tries: 2, wait: 10s }\n";
    declare(&scene, |text| text.replace(restart, "").replace("every: 1s", "every: 2s")).unwrap();
    let host = scene.calm().unwrap();
    let qemu = scene.qemu().unwrap();
    is_backed_up_while_it_fails(&scene, &host, &qemu).unwrap();
    scene.calm().unwrap();
    assert_ne!(scene.qemu().unwrap(), qemu, "it is reset once the backup is over");
    let journal = scene.journal().unwrap();
    assert!(!journal.iter().any(|line| line.contains("restart_service")), "{journal:?}");
}

/// Freezes the guest and ends its service, and thaws it after a while in which nothing may be done for that, and it is said why.
fn is_backed_up_while_it_fails(scene: &Scene, host: &str, qemu: &(String, i32)) -> Result<()> {
    // Until now it was asked from inside: the connection for that is closed after a minute.
    // Told once more, because the answer came too late, a frozen one refuses.
    let is_frozen = |answer: &Value| answer["return"] == 1 || answer.to_string().contains("frozen");
    tell(scene, host, "guest-fsfreeze-freeze", is_frozen)?;
    scene.end_answers("/cgi-bin/crash")?;
    wait::until("that it is said why nothing is done", LIMIT, || {
        let doing = scene.shown(&format!("/guests/{GUEST}/doing")).map_err(|error| format!("{error:#}"))?;
        if doing.as_str().is_some_and(|doing| doing.contains("file systems are frozen")) {
            Ok(())
        } else {
            Err(doing.to_string())
        }
    })?;
    scene.never(BACKUP, |scene| {
        ensure!(scene.qemu()? == *qemu, "its QEMU was replaced");
        Ok(())
    })?;
    tell(scene, host, "guest-fsfreeze-thaw", |answer| answer["return"].is_u64())
}

/// Has QEMU's agent in the guest do something as a tool for backups does: connects, asks, hangs up; until `done` says that it is done.
fn tell(scene: &Scene, host: &str, what: &str, done: impl Fn(&Value) -> bool) -> Result<()> {
    let socket = scene.lab.agent_socket(host, GUEST)?;
    let once = || -> Result<Value> {
        let mut agent = UnixStream::connect(&socket)?;
        agent.set_read_timeout(Some(ANSWER))?;
        // Nothing that somebody else was told before is taken for the answer.
        agent.write_all(b"{\"execute\":\"guest-sync\",\"arguments\":{\"id\":4711}}\n")?;
        let mut lines = BufReader::new(agent.try_clone()?).lines();
        loop {
            let line = lines.next().context("hung up")??;
            if serde_json::from_str::<Value>(&line).is_ok_and(|answer| answer == json!({ "return": 4711 })) {
                break;
            }
        }
        agent.write_all(json!({ "execute": what }).to_string().as_bytes())?;
        agent.write_all(b"\n")?;
        Ok(serde_json::from_str(&lines.next().context("hung up")??)?)
    };
    wait::until(&format!("the agent's answer to {what}"), LIMIT, || {
        let answer = once().map_err(|error| format!("{error:#}"))?;
        if done(&answer) { Ok(()) } else { Err(answer.to_string()) }
    })
}

/// The scene's declaration, in which nobody asks inside: who does so all the time lets no other program speak with QEMU's agent. `changed`
/// is made of each file.
fn declare(scene: &Scene, changed: impl Fn(String) -> String) -> Result<()> {
    let mut files = scene.declaration()?;
    for (_, text) in &mut files {
        let asked =
            text.replace("from: { inside: true, hosts: 2, agree: 2 }", "from: { inside: false, hosts: 2, agree: 2 }");
        *text = changed(asked);
    }
    ensure!(files.iter().any(|(_, text)| text.contains("inside: false")), "nothing was changed in {files:?}");
    let from = scene.lab.status_soon()?.from;
    scene.lab.apply_texts(&from, &files)
}
