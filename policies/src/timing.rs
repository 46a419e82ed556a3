//! What hosts say of `timing` in their host files. It has to be the same on every host, because what one of them waits for others
//! count on.

use serde::{Deserialize, Serialize};

use crate::{
    hostfile::Timing,
    time::{Span, millis},
};

/// `timing` of a host file as it travels. A key that the sender's version does not have is `None`, and one that is not known here
/// is passed over: versions whose keys differ understand each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TimingTold {
    /// `gossip_interval`, in milliseconds.
    pub gossip_interval_ms: Option<u64>,
    /// `sync_every`, in milliseconds.
    pub sync_every_ms: Option<u64>,
    /// `wonder_after`, in milliseconds.
    pub wonder_after_ms: Option<u64>,
    /// `suspect_after`, in milliseconds.
    pub suspect_after_ms: Option<u64>,
    /// `lease`, in milliseconds.
    pub lease_ms: Option<u64>,
    /// `join_grace`, in milliseconds.
    pub join_grace_ms: Option<u64>,
}

impl TimingTold {
    /// What a host with this timing says.
    #[must_use]
    pub fn of(timing: &Timing) -> Self {
        let Timing { gossip_interval, sync_every, wonder_after, suspect_after, lease, join_grace } = *timing;
        let ms = |span: Span| Some(millis(span.0));
        Self {
            gossip_interval_ms: ms(gossip_interval),
            sync_every_ms: ms(sync_every),
            wonder_after_ms: ms(wonder_after),
            suspect_after_ms: ms(suspect_after),
            lease_ms: ms(lease),
            join_grace_ms: ms(join_grace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::SyncRequest;

    fn told(lease_secs: u64) -> TimingTold {
        TimingTold::of(&Timing { lease: Span::secs(lease_secs), ..Timing::default() })
    }

    #[test]
    fn a_sync_of_an_older_version_says_nothing_of_timing_and_one_of_a_newer_version_reads() {
        let older = r#"{"host":"d","facts":{"incarnation":"d.1","machine_id":"m","address":"10.0.0.1:7000","memory_mib":8192,
            "cores":8,"guests":true},"nonce":1,"seen":{"generation":1,"term":1,"index":0},"floors_known":true,"reports":[],
            "results":[],"sights":[],"unwell":null,"known_view":0}"#;
        let mut request: SyncRequest = serde_json::from_str(older).unwrap();
        assert_eq!(request.timing, None, "it is not taken for the default");
        request.timing = Some(told(5));
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<SyncRequest>(&text).unwrap(), request);
        let newer = text.replace("\"lease_ms\":5000", "\"of_tomorrow_ms\":7");
        assert_ne!(newer, text);
        let read = serde_json::from_str::<SyncRequest>(&newer).unwrap();
        assert_eq!(read.timing, Some(TimingTold { lease_ms: None, ..told(5) }));
    }
}
