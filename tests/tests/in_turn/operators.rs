//! Operators with certificates of their own give orders from any machine, in their own name; where those certificates are
//! required, hosts give none (R27).

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use holdfast_tests::lab::{
    Lent, Operator, Scene,
    command::Answer,
    left_out,
    scene::{GUEST, LIMIT},
    wait,
};

/// What a host is told that gives an order where it must not.
const HOST_REFUSED: &str = "takes orders only with an operator's certificate";

#[test]
fn operators_give_orders_from_any_machine_and_hosts_give_none_where_certificates_are_required() {
    if left_out("operators_give_orders_from_any_machine_and_hosts_give_none_where_certificates_are_required") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let (ann, bob) = (scene.lab.make_operator("ann").unwrap(), scene.lab.make_operator("bob").unwrap());
    let (host, leader) = scene.arranged(false).unwrap();
    let idle = scene.others(&[&host, &leader]).remove(0);
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());

    // Everybody in their own name alone.
    gives_orders(&scene, &ann, &idle);
    let forged = scene.lab.holdfast_as(&bob, &["host", "drain", &idle, "--operator", "ann"]).unwrap();
    refused(&forged, "is that of bob, and not of ann");

    // Certificates are required only by somebody who has one.
    let folder = policies(&scene, "cluster: { operators: required }\n");
    refused(&by_host(&scene, &leader, &["apply", &folder]), "is taken only with an operator's certificate");
    taken(&scene.lab.holdfast_as(&ann, &["apply", &folder]).unwrap());
    let drain = ["host", "drain", &idle];
    let orders = [&drain[..], &["guest", "stop", GUEST], &["apply", &folder], &["suspend"]];
    let questions =
        [&["status"][..], &["explain", GUEST], &["journal"], &["voter", "list"], &["apply", "--dry-run", &folder]];
    for from in scene.others(&[]) {
        orders.iter().for_each(|order| refused(&by_host(&scene, &from, order), HOST_REFUSED));
        questions.iter().for_each(|question| taken(&by_host(&scene, &from, question)));
    }
    assert_eq!(scene.shown(&format!("/hosts/{idle}/mode")).unwrap(), "active");
    gives_orders(&scene, &ann, &idle);

    // A name that is revoked neither orders nor asks, from then on and whoever leads. Nobody revokes themselves.
    let folder = policies(&scene, "cluster: { operators: required, revoked_operators: [bob] }\n");
    taken(&scene.lab.holdfast_as(&bob, &["status"]).unwrap());
    taken(&scene.lab.holdfast_as(&ann, &["apply", &folder]).unwrap());
    is_revoked(&scene, &bob);
    scene.lab.kill_supervisor(&leader).unwrap();
    wait::until("another leader", LIMIT, || {
        let next = scene.leader().map_err(|error| format!("{error:#}"))?;
        if next == leader { Err(next) } else { Ok(()) }
    })
    .unwrap();
    is_revoked(&scene, &bob);
    gives_orders(&scene, &ann, &idle);
    scene.lab.start_supervisor(&leader).unwrap();
    scene.calm().unwrap();
    let folder = policies(&scene, "cluster: { operators: required, revoked_operators: [ann] }\n");
    refused(&scene.lab.holdfast_as(&ann, &["apply", &folder]).unwrap(), "these policies would revoke");

    // A serial number revokes one certificate; the same person may have another.
    let again = scene.lab.make_operator("bob").unwrap();
    is_revoked(&scene, &again);
    let one = format!("cluster: {{ operators: required, revoked_operators: [\"serial:{}\"] }}\n", bob.serial);
    taken(&scene.lab.holdfast_as(&ann, &["apply", &policies(&scene, &one)]).unwrap());
    is_revoked(&scene, &bob);
    gives_orders(&scene, &again, &idle);

    // Whoever has required them may take that back.
    taken(&scene.lab.holdfast_as(&ann, &["apply", &policies(&scene, "")]).unwrap());
    taken(&by_host(&scene, &leader, &["host", "drain", &idle, "--operator", "ann"]));
    taken(&by_host(&scene, &leader, &["host", "resume", &idle, "--operator", "ann"]));
    let through = format!("{idle} is set to active by ann through {leader}");
    assert!(scene.journal().unwrap().contains(&through), "{:?}", scene.journal());
    scene.calm().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who), "no guest has noticed");
    assert_eq!(scene.presses(), 0);
}

/// Writes the scene's policies and these; returns their folder.
fn policies(scene: &Scene, more: &str) -> String {
    let mut files = scene.declaration().unwrap();
    if !more.is_empty() {
        files.push(("cluster.yaml", more.to_owned()));
    }
    scene.lab.write_policies(&files).unwrap()
}

/// What a host's own command line answers, once there is a coordinator that can answer.
fn by_host(scene: &Scene, host: &str, arguments: &[&str]) -> Answer {
    scene.lab.holdfast_answered(host, arguments).unwrap()
}

/// An operator's orders are carried out, and the journal has their name and no host's.
fn gives_orders(scene: &Scene, operator: &Operator, idle: &str) {
    for (order, mode) in [("drain", "draining"), ("resume", "active")] {
        taken(&scene.lab.holdfast_as(operator, &["host", order, idle]).unwrap());
        let told = format!("{idle} is set to {mode} by {}", operator.name);
        let last = scene.journal().unwrap().into_iter().rfind(|line| line.starts_with(&format!("{idle} is set to ")));
        assert_eq!(last, Some(told));
    }
}

fn is_revoked(scene: &Scene, operator: &Operator) {
    let why = format!("{} of {} is revoked", operator.serial, operator.name);
    for words in [&["status"][..], &["guest", "stop", GUEST]] {
        refused(&scene.lab.holdfast_as(operator, words).unwrap(), &why);
    }
}

fn taken(answer: &Answer) {
    assert!(answer.ok(), "{answer:?}");
}

fn refused(answer: &Answer, why: &str) {
    assert!(answer.code == Some(1) && answer.err.contains(why), "not {why:?}: {answer:?}");
}
