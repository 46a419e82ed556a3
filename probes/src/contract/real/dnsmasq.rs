//! dnsmasq.

use std::process::Command;

use holdfast_policies::{
    model::Probe,
    observe::Outcome,
    probe::{DnsProbe, RecordKind},
};

use super::{asked, folder, left_out, ready, started};
use crate::contract::scene::free_port;

#[tokio::test]
async fn dnsmasq_is_asked_for_records_of_many_kinds() {
    if left_out("probes against a real dnsmasq") {
        return;
    }
    let (folder, port) = (folder(), free_port().await);
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--listen-address=127.0.0.1", &format!("--port={port}"), "--pid-file="]);
    command.args(["--address=/www.example/10.0.0.5", "--address=/www.example/fd00::5", "--txt-record=t.example,a b"]);
    command.args([
        "--mx-host=example,mail.example,10",
        "--srv-host=_x._tcp.example,www.example,80",
        "--local=/example/",
    ]);
    let _program = started(&mut command, folder, "dnsmasq-base");
    let dns = |name: &str, kind, expect: &[&str]| {
        let expect = expect.iter().map(|word| (*word).to_owned()).collect();
        Probe::Dns(DnsProbe { name: name.to_owned(), kind, server: None, port, expect })
    };
    ready(&dns("www.example", RecordKind::A, &["10.0.0.5"])).await;
    for (name, kind, expect, wanted) in [
        ("WWW.EXAMPLE.", RecordKind::Aaaa, ["fd00:0::5"], Outcome::Pass),
        ("t.example", RecordKind::Txt, ["a b"], Outcome::Pass),
        ("example", RecordKind::Mx, ["10 mail.example"], Outcome::Pass),
        ("_x._tcp.example", RecordKind::Srv, ["0 0 80 www.example."], Outcome::Pass),
        ("example", RecordKind::Mx, ["20 mail.example"], Outcome::Fail),
        ("absent.example", RecordKind::A, ["10.0.0.5"], Outcome::Fail),
    ] {
        let seen = asked(&dns(name, kind, &expect)).await;
        assert_eq!(seen.outcome, wanted, "{name}: {seen:?}");
    }
}
