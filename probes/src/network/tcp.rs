//! TCP over the network: whether something accepts a connection, and perhaps says what it should.

use holdfast_policies::probe::TcpProbe;
use regex::bytes::Regex;
use tokio::io::AsyncWriteExt;

use crate::{
    finding::{Finding, contains, first_line},
    network::{
        asker::Asker,
        stream::{Stream, broken, read_some},
    },
};

/// Most of what a service says that is looked at, in bytes: a banner has one line, a greeting of mail servers a few.
const TALK_BYTES_MAX: usize = 8 * 1024;

/// Connects, talks if it shall, and hangs up; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &TcpProbe) -> Finding {
    match talk(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn talk(asker: &Asker<'_>, probe: &TcpProbe) -> Result<Finding, Finding> {
    let pattern = probe.expect_matches.as_deref().map(|text| asker.pattern(text)).transpose()?;
    if probe.send.is_none() && probe.expect.is_none() && pattern.is_none() {
        return asker.reach(probe.port).await.map(|_| Finding::pass("connected"));
    }
    let mut stream = Stream::Plain(asker.connect(probe.port).await?);
    if let Some(text) = &probe.send {
        stream.write_all(text.as_bytes()).await.map_err(|error| broken(&error))?;
    }
    if probe.expect.is_none() && pattern.is_none() {
        return Ok(Finding::pass("connected, and said what is to be said"));
    }
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = match read_some(&mut stream, &mut buffer).await {
            Ok(count) => count,
            Err(finding) => return Err(Finding { detail: format!("{}; {}", finding.detail, heard(&said)), ..finding }),
        };
        said.extend(buffer.iter().take(count));
        if is_right(&said, probe, pattern.as_deref()) {
            return Ok(Finding::pass(heard(&said)));
        }
        if said.len() >= TALK_BYTES_MAX {
            return Err(Finding::fail(format!(
                "the first {TALK_BYTES_MAX} bytes are not what is wanted; {}",
                heard(&said)
            )));
        }
    }
}

fn is_right(said: &[u8], probe: &TcpProbe, pattern: Option<&Regex>) -> bool {
    probe.expect.as_ref().is_none_or(|text| contains(said, text.as_bytes()))
        && pattern.is_none_or(|pattern| pattern.is_match(said))
}

fn heard(said: &[u8]) -> String {
    first_line(said).map_or_else(|| "it says nothing".to_owned(), |line| format!("it says: {line}"))
}
