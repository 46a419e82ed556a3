//! nginx.

use std::{fs, process::Command};

use holdfast_policies::{
    model::{HttpProbe, Probe},
    observe::Outcome,
    probe::HttpVersion,
};

use super::{asked, folder, left_out, ready, started};
use crate::contract::scene::free_port;

#[tokio::test]
async fn nginx_is_asked_over_both_versions_of_http() {
    if left_out("probes against a real nginx") {
        return;
    }
    let (folder, one, two) = (folder(), free_port().await, free_port().await);
    let config = folder.path().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}}\nhttp {{ access_log off; client_body_temp_path {0}/b; \
         proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\nserver {{ listen \
         127.0.0.1:{one}; listen 127.0.0.1:{two} http2; location / {{ return 200 '{{\"up\": true}}'; }} location /old \
         {{ return 301 /; }} location /no {{ return 503; }} }} }}\n",
        folder.path().display(),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-e").arg(folder.path().join("error.log"));
    let _program = started(&mut command, folder, "nginx-light");
    for (port, version) in [(one, HttpVersion::One), (two, HttpVersion::Two)] {
        let get = |path: &str| HttpProbe { version, ..HttpProbe::get(format!("http://{{address}}:{port}{path}")) };
        let mut right = get("/");
        right.json.insert("/up".to_owned(), true.into());
        ready(&Probe::Http(Box::new(right))).await;
        assert_eq!(asked(&Probe::Http(Box::new(get("/no")))).await.outcome, Outcome::Fail);
        assert_eq!(asked(&Probe::Http(Box::new(get("/old")))).await.outcome, Outcome::Fail);
        let followed = HttpProbe { redirects: 1, ..get("/old") };
        let seen = asked(&Probe::Http(Box::new(followed))).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{version:?} {seen:?}");
    }
}
