//! Operators of a lab, who speak for themselves: from the client's machine, which is none of the cluster's.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Lab,
    cluster::CALL_LIMIT,
    command::{self, Answer, run_ok},
    wait,
};

/// Where they keep their certificates.
const FOLDER: &str = "operators";

/// Somebody with a certificate of their own.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The name in it.
    pub name: String,
    /// Its serial number.
    pub serial: String,
    identity: String,
}

impl Lab {
    /// Has the cluster's authority make a certificate for an operator; another one each time.
    ///
    /// # Errors
    /// When `holdfast operator add` refuses.
    pub fn make_operator(&self, name: &str) -> Result<Operator> {
        let (etc, all) = (self.place.dir.join("etc"), self.place.dir.join(FOLDER));
        fs::create_dir_all(&all)?;
        let own = all.join(format!("{name}-{}", fs::read_dir(&all)?.count()));
        let any = self.hosts().first().context("no host")?;
        let paths = [self.host_file(&any.name), etc.join("authority"), own.clone()];
        let [config, authority, out] = paths.map(|path| path.to_string_lossy().into_owned());
        let argv =
            [self.binary(), "--config", &config, "operator", "add", name, "--ca", &authority, "--out", &out, "--json"];
        let said = run_ok(&argv, CALL_LIMIT).context("holdfast operator add")?;
        let said: Value = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))?;
        let serial = said.get("serial").and_then(Value::as_str).context("no serial number")?.to_owned();
        let identity = own.join("identity.yaml").to_string_lossy().into_owned();
        Ok(Operator { name: name.to_owned(), serial, identity })
    }

    /// Runs `holdfast --identity FILE ARGUMENTS…` on the client's machine; tries again, for some seconds, while its exit code
    /// is the one that says so.
    ///
    /// # Errors
    /// When it cannot be run, or still says so.
    pub fn holdfast_as(&self, operator: &Operator, arguments: &[&str]) -> Result<Answer> {
        let net = format!("--net=/run/netns/{}", self.place.space("cl"));
        let mut argv = vec!["nsenter", &net, self.binary(), "--identity", &operator.identity];
        argv.extend(arguments);
        wait::until(&format!("an answer to {}", operator.name), CALL_LIMIT, || {
            let answer = command::run(&argv, CALL_LIMIT).map_err(|error| format!("{error:#}"))?;
            if answer.code == Some(3) { Err(answer.err) } else { Ok(answer) }
        })
    }
}
