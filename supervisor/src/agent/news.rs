//! Makes the view of what the coordinator tells that has changed of it. With thousands of guests that takes a while, and so it is
//! done beside the agent's task.

use holdfast_policies::{
    news::News,
    sync::{SyncReply, View},
};
use tokio::task::spawn_blocking;

use crate::{node::Node, packed::unpack};

/// The reply with the view that its news make. Where they make none it has no view, and the next sync is told anew.
pub(super) async fn taken_in(node: &Node, mut reply: SyncReply) -> SyncReply {
    let Some(news) = reply.news.take() else { return reply };
    let known = node.view.borrow().clone();
    let made = spawn_blocking(move || onto(news, &known)).await;
    match made.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(view) => reply.view = Some(view),
        Err(error) => tracing::warn!(error, "what has changed of the view was not taken in"),
    }
    reply
}

fn onto(mut news: News, known: &View) -> Result<View, String> {
    let declared = match news.declared.take() {
        Some(text) => {
            let json = unpack(text.as_bytes()).map_err(|error| error.to_string())?;
            Some(serde_json::from_slice(&json).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    news.onto(known, declared).ok_or_else(|| "it does not fit to what is known here".to_owned())
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{feature_level::FeatureLevel, model::Policies, news::ViewMark};

    use super::*;
    use crate::packed::{PACKED_FROM, pack};

    fn news(declared: Option<String>) -> News {
        let to = ViewMark { generation: 1, index: 7, policies: 3 };
        News { to, after: None, declared, homes: [].into(), hosts: [].into(), revoked: Some([].into()) }
    }

    #[test]
    fn what_is_declared_is_read_whether_it_was_packed_or_not() {
        let policies = Policies::default();
        let plain = serde_json::to_string(&policies).unwrap();
        let padded = format!("{plain}{}", " ".repeat(PACKED_FROM));
        let packed = String::from_utf8(pack(padded.into_bytes(), FeatureLevel::PACKED).unwrap()).unwrap();
        assert!(packed.len() < plain.len() + PACKED_FROM / 8);
        for declared in [plain, packed] {
            let view = onto(news(Some(declared)), &View::default()).unwrap();
            assert_eq!((view.index, &view.policies), (7, &policies));
        }
    }

    #[test]
    fn news_that_cannot_be_read_change_nothing() {
        for declared in [None, Some("{".to_owned()), Some("zstd:AAAA".to_owned())] {
            assert!(onto(news(declared), &View::default()).is_err());
        }
    }
}
