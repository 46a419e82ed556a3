//! `holdfast recover`: says what would be done, asks for the exact words, and does it (R25).

use std::{collections::BTreeMap, fmt::Write as _, os::unix::net::UnixStream};

use holdfast_policies::{hostfile::HostFile, state::Life, time::WallTime};
use serde_json::json;

use super::{
    super::{
        api::SOCKET_NAME,
        clock,
        consensus::{Heard, Standing},
        desk::rfc3339,
        recover::{Objection, Recovered, Survey, finish, is_cut_short, survey},
    },
    arguments::Recover,
    outcome::{Failure, Reply},
};

/// Shows what a recovery on this host would come to, or makes it.
pub(super) fn recover(file: &HostFile, order: &Recover) -> Result<Reply, Failure> {
    let fail = |error: anyhow::Error| Failure::Failed(format!("{error:#}"));
    if UnixStream::connect(file.run_dir.join(SOCKET_NAME)).is_ok() {
        let why = "the supervisor of this host runs, and its store is in use: stop it first. Guests run on meanwhile, on a \
                   host with a `lease` level for as long as its lease lasts";
        return Err(Failure::Failed(why.to_owned()));
    }
    if is_cut_short(file).map_err(fail)? {
        if !order.force {
            let why = format!(
                "a recovery was cut short here before its last step; `holdfast recover --force` takes it, and asks nobody. Where the \
                 cluster goes on elsewhere, start this host's supervisor instead, and run `holdfast voter add {}` there",
                file.host
            );
            return Err(Failure::Failed(why));
        }
        finish(file).map_err(fail)?;
        return Ok(Reply::text("The recovery that was cut short is done. Start the supervisor.\n".to_owned()));
    }
    let survey = survey(file).map_err(fail)?;
    let objection = survey.objection(&file.host);
    if !order.force {
        return Ok(shown(file, &survey, objection.as_ref()));
    }
    if let Some(objection) = objection {
        return Err(Failure::Failed(objection.to_string()));
    }
    let words = survey.words();
    let by = match (&order.i_understand, &order.operator) {
        (Some(said), Some(by)) if *said == words => by,
        _ => return Err(Failure::Failed(format!("nothing was changed; to go on, say: {}", command(&words)))),
    };
    let recovered = survey.carry_out(file, by).map_err(fail)?;
    Ok(done(&recovered))
}

fn command(words: &str) -> String {
    format!("holdfast recover --force --operator YOUR-NAME --i-understand \"{words}\"")
}

fn shown(file: &HostFile, survey: &Survey, objection: Option<&Objection>) -> Reply {
    let words = survey.words();
    let end = match objection {
        Some(objection) => format!("It is not done here: {objection}.\n"),
        None => {
            format!("{PLAN}\nMake sure that the lost voters are off and stay so, then run\n\n  {}\n", command(&words))
        }
    };
    let text = format!("{}\n{end}", found(file, survey));
    let voters: BTreeMap<String, String> = voters(file, survey).into_iter().collect();
    let hosts: Vec<_> = survey.state.hosts.keys().collect();
    let guests: Vec<_> = survey.state.guests.keys().collect();
    let revoked_since: Vec<_> = survey.revoked_since.keys().collect();
    let json = json!({
        "generation": survey.state.generation,
        "term": survey.remains.written,
        "index": survey.remains.index,
        "known": survey.known,
        "newest": survey.newest.map(rfc3339),
        "voters": voters,
        "hosts": hosts,
        "guests": guests,
        "revoked_since": revoked_since,
        "words": words,
        "objection": objection.map(ToString::to_string),
    });
    Reply { text, json, code: u8::from(objection.is_some()) }
}

/// What comes after it.
const NEXT: &str = "\
Start the supervisor here, then those of all other hosts. Recover the cluster on no other host: old voters join this one. Then:
  - look at `holdfast status`, whether every host is there that may run guests;
  - apply your policies again, and say again what you have said since the newest entry: what is to stop, maintenance, revocations;
  - run `holdfast host confirm-off HOST --operator YOUR-NAME` for each host that is off for good;
  - run `holdfast resume`;
  - run `holdfast voter add HOST`, and `holdfast voter promote HOST` once it has caught up, until there are three voters.
See \"Majority lost for good\" in docs/OPERATING.md.
";

/// What is done, for people who have never done it.
const PLAN: &str = "\
A recovery makes a new generation of the cluster from this store, with this host as its only voter:
  - What was decided after the newest entry is lost: policies, guests that were moved, words of operators. Hosts that were revoked
    since, as far as this host was told, stay revoked.
  - Entries that the old majority may not have confirmed are kept, because it may have.
  - Every guest may run on every host until that is known better: it is adopted where one host alone reports it, and starts only
    when every host that could run it has said that it is not there, or is proven off, or you have confirmed it off.
  - Open orders, fences, drills and moves end. No agent that has learned of the new generation begins what the old one ordered.
  - Deciding is suspended, until you have looked and run `holdfast resume`.
  - The old voters, also those that have survived, never vote again with their stores. They come back with `holdfast voter add`.
  - The old store is kept beside the new one.
";

fn found(file: &HostFile, survey: &Survey) -> String {
    let mut text = format!("Nothing has been changed. The raft store of {} was read:\n\n", file.host);
    // Writing to a string cannot fail.
    let mut line = |what: &str, said: String| {
        let _ = writeln!(text, "  {what:<11} {said}");
    };
    line("generation", survey.state.generation.to_string());
    if survey.known > survey.state.generation {
        let known = survey.known;
        line(
            "beware",
            format!("generation {known} is known to this host or another: the cluster has gone on without this store"),
        );
    }
    line("newest", newest(survey.standing(), survey.newest, clock::wall()));
    for (host, said) in voters(file, survey) {
        line("voter", format!("{host}: {said}"));
    }
    for (name, host) in &survey.state.hosts {
        let was = match &host.life {
            Life::Up => "",
            Life::Fencing(_) => ", which was being fenced",
            Life::Gone { .. } => ", which was proven gone; that counts no more",
        };
        let does = if host.facts.guests { "may run any guest" } else { "says that it runs no guests" };
        line("host", format!("{name} {does}{was}"));
    }
    for (name, revocation) in &survey.revoked_since {
        line("revoked", format!("{name}, by {}, after the newest entry: it stays so", revocation.by));
    }
    line("guests", format!("{}; each may run on any of these hosts", survey.state.guests.len()));
    text
}

fn newest(last: Standing, at: Option<WallTime>, now: WallTime) -> String {
    match at {
        None => last.to_string(),
        Some(at) => {
            let minutes = now.0.saturating_sub(at.0) / 60_000;
            format!("{last}; the newest decision is of {}, {} h {} min ago", rfc3339(at), minutes / 60, minutes % 60)
        }
    }
}

fn voters(file: &HostFile, survey: &Survey) -> Vec<(String, String)> {
    let own = (file.host.to_string(), format!("this host, node {}", survey.remains.node_id));
    let others = survey.others.iter().map(|(node_id, (place, heard))| {
        let said = match heard {
            Heard::Votes(standing) => format!("answers, and has entries up to {standing}"),
            Heard::Unclear(why) => format!("is there, and counts as able to vote: {why}"),
            Heard::NoVote { .. } => "answers, and has no store to vote with".to_owned(),
            Heard::Nothing(why) => format!("is not heard: {why}"),
        };
        (place.host.to_string(), format!("node {node_id} {said}"))
    });
    [own].into_iter().chain(others).collect()
}

fn done(recovered: &Recovered) -> Reply {
    let Recovered { generation, node_id, kept } = recovered;
    let text = format!(
        "Generation {generation} of the cluster begins, with this host as its only voter (raft node {node_id}).\n\
         The old store is kept in {}.\n\n{NEXT}",
        kept.display()
    );
    let json = json!({ "generation": generation, "node_id": node_id, "kept": kept.display().to_string() });
    Reply { text, json, code: 0 }
}
