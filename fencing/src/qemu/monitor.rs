//! QEMU's monitor: messages of JSON, one a line, over a Unix socket. One connection for one call.

use std::io;

use holdfast_policies::observe::clean;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// Longest line that is read, in bytes; the answers asked for here take some hundred, and events some thousand.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Why the monitor gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum MonitorError {
    #[error("cannot talk to its monitor")]
    Socket(#[from] io::Error),
    #[error("its monitor has closed the connection")]
    Closed,
    #[error("its monitor sends a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("what listens at its socket is no monitor of QEMU (QMP)")]
    Stranger,
    #[error("its monitor refuses {command}: {said}")]
    Refused { command: &'static str, said: String },
}

/// A monitor that takes commands.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Waits to be greeted and agrees on capabilities: none.
    pub(super) async fn begin(stream: UnixStream) -> Result<Self, MonitorError> {
        let mut monitor = Self { stream: BufReader::new(stream) };
        if monitor.message().await?.get("QMP").is_none() {
            return Err(MonitorError::Stranger);
        }
        monitor.ask("qmp_capabilities").await?;
        Ok(monitor)
    }

    /// Gives one command and waits for its answer. Events in between are passed over.
    pub(super) async fn ask(&mut self, command: &'static str) -> Result<Value, MonitorError> {
        let line = format!("{}\n", json!({ "execute": command, "id": command }));
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        loop {
            let mut message = self.message().await?;
            if message.get("id").and_then(Value::as_str) != Some(command) {
                continue;
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            let said = message.pointer("/error/desc").and_then(Value::as_str).unwrap_or("it does not say why");
            return Err(MonitorError::Refused { command, said: clean(said) });
        }
    }

    async fn message(&mut self) -> Result<Value, MonitorError> {
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") {
            return serde_json::from_slice(&line).map_err(|_| MonitorError::Stranger);
        }
        Err(if line.len() < LINE_BYTES_MAX { MonitorError::Closed } else { MonitorError::TooLong })
    }
}
