//! Questions to a host's supervisor over its own local socket, where its command line asks them too. A test asks hundreds of them,
//! and a program that is started for each takes a processor from whatever the test waits for.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Lab;

/// Longest time for an answer: as long as the command line waits.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// Most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

impl Lab {
    /// What the supervisor of a host answers to a question, such as `"status"` or `{"journal":{"last":9}}`: the JSON that `holdfast`
    /// prints for it.
    ///
    /// # Errors
    /// When the host is off, when its supervisor does not answer in time, and when the answer is no.
    pub fn ask(&self, host: &str, question: &Value) -> Result<Value> {
        let socket = self.run_dir(host)?.join("holdfast/holdfast.sock");
        let mut stream =
            UnixStream::connect(&socket).with_context(|| format!("the supervisor of {host} does not listen"))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let body = question.to_string();
        let head = format!(
            "POST /v1/ask HTTP/1.0\r\nhost: holdfast\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).with_context(|| format!("cannot ask {host} {body}"))?;
        let mut said = String::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut said)
            .with_context(|| format!("no answer of {host} to {body}"))?;
        content(&said).with_context(|| format!("{host}, asked {body}"))
    }
}

/// What an HTTP answer holds, without the word that says what it is an answer to.
fn content(said: &str) -> Result<Value> {
    let (head, body) = said.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("answered {}: {body}", head.lines().next().unwrap_or_default());
    }
    let answer: Value = serde_json::from_str(body).with_context(|| format!("answered no JSON: {body}"))?;
    match answer {
        Value::Object(words) if words.len() == 1 => words.into_iter().next().map(|(_, said)| said).context("no word"),
        other => bail!("answered {other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_what_stands_behind_its_word_and_a_no_is_told() {
        let yes = "HTTP/1.0 200 OK\r\ncontent-length: 29\r\n\r\n{\"status\":{\"leader\":\"h1\"}}";
        assert_eq!(content(yes).unwrap(), json!({ "leader": "h1" }));
        let no = content("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"no_leader\":\"nobody leads\"}").unwrap_err();
        assert!(no.to_string().contains("503") && no.to_string().contains("nobody leads"), "{no}");
    }
}
