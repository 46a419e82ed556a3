//! Makes the view of what the coordinator tells that has changed of it. With thousands of guests that takes a while, and so it is
//! done beside the agent's task: the lease and the orders of the same reply do not wait for it.

use std::sync::Arc;

use holdfast_policies::{model::Policies, news::News, sync::View};
use tokio::task::spawn_blocking;

use super::{End, Work};
use crate::packed::unpack;

/// Whether a view is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Learning {
    /// None is.
    #[default]
    Nothing,
    /// One is.
    News,
    /// One is, and something was told meanwhile, which may be the same once more.
    NewsAndMore,
}

impl Work {
    /// Has a view made of news. What is told meanwhile is asked for again.
    pub(super) fn learn(&mut self, news: News) {
        if self.learning != Learning::Nothing {
            self.learning = Learning::NewsAndMore;
            return;
        }
        self.learning = Learning::News;
        let (known, ends) = (self.parts.node.view.borrow().clone(), self.ends.clone());
        tokio::spawn(async move {
            let made = spawn_blocking(move || onto(news, &known)).await;
            let made = made.unwrap_or_else(|error| Err(error.to_string()));
            // The receiver lives as long as the supervisor.
            let _ = ends.send(End::Viewed(made.map(Box::new))).await;
        });
    }

    /// Takes the view. Where the news made none, the next sync is told anew.
    pub(super) async fn learned(&mut self, made: Result<Box<View>, String>) {
        self.again |= std::mem::take(&mut self.learning) == Learning::NewsAndMore;
        match made {
            Ok(view) => {
                let look = self.parts.agent.on_view(*view);
                self.act(look.into_iter().collect()).await;
            }
            Err(error) => tracing::warn!(error, "what has changed of the view was not taken in"),
        }
    }
}

fn onto(mut news: News, known: &View) -> Result<View, String> {
    let declared = match news.declared.take() {
        Some(text) => {
            let json = unpack(text.as_bytes()).map_err(|error| error.to_string())?;
            let declared: Policies = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
            Some(Arc::new(declared))
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
            assert_eq!((view.index, &*view.policies), (7, &policies));
        }
    }

    #[test]
    fn news_that_cannot_be_read_change_nothing() {
        for declared in [None, Some("{".to_owned()), Some("zstd:AAAA".to_owned())] {
            assert!(onto(news(declared), &View::default()).is_err());
        }
    }
}
