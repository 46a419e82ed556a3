//! What operators may say of a service beyond whether it answers: how slow is too slow, how unsteady is too unsteady, how
//! long it may take to come up, and which other service it cannot answer without.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{names::ServiceName, time::Span};

/// The finer settings of one service; the default says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Tuning {
    /// When it counts as slow. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// When it counts as flapping. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaps: Option<Flaps>,
    /// How long after the guest's start it may fail to answer without being counted. Default: the policy's `boot_grace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// Services of the same policy without which this one cannot answer: while one of them does not, neither a rung is
    /// taken nor anybody told for this one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub needs: BTreeSet<ServiceName>,
}

/// Slow: as large a share of the answers as `share`, over a sliding window, took longer than `above`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slow {
    /// An answer that takes longer is slow.
    pub above: Span,
    /// Share of slow answers from which the service is slow, in per cent. Raising it tolerates more slow answers.
    pub share: u8,
    /// Length of the window. Raising it forgives short spells, and lets a service stay slow for longer afterwards.
    pub over: Span,
}

/// Flapping: the service has begun or ceased to answer more often than `more_than` times within `over`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaps {
    /// Changes that are still taken one by one. Raising it means more incidents before they become one.
    pub more_than: u32,
    /// Length of the window. Raising it finds slower flapping.
    pub over: Span,
}

impl Flaps {
    /// How long a service must keep still to count as settled: the pace at which it would just be called flapping.
    #[must_use]
    pub(crate) fn settled_after(&self) -> std::time::Duration {
        self.over.0 / self.more_than.max(1)
    }
}

/// Fewest answers that slowness is judged by: with fewer, one slow answer would be a large share.
pub const ANSWERS_MIN: u32 = 5;
