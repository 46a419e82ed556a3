//! An operator's word that fencing goes on in the present storm (R21).

use super::Context;
use crate::{
    change::Refused,
    journal::Event,
    state::{ClusterState, StormRelease},
};

impl ClusterState {
    /// The incident key of a storm.
    pub(crate) const STORM_KEY: &'static str = "storm";

    /// Lets fencing go on. There has to be a storm: a word given in advance would disarm the hold when it is needed.
    pub(super) fn storm_hold_released(&mut self, context: &Context, by: String) -> Result<(), Refused> {
        if self.storm_release.is_some() {
            return Err(Refused::Already { why: "the storm hold is released".to_owned() });
        }
        if self.open_incident(Self::STORM_KEY).is_none() {
            return Err(Refused::Already { why: "no storm holds fencing".to_owned() });
        }
        self.storm_release = Some(StormRelease { by: by.clone(), since: context.index });
        self.note(context, Event::StormHoldReleased { by });
        Ok(())
    }

    pub(super) fn storm_ended(&mut self, context: &Context) -> Result<(), Refused> {
        if self.storm_release.take().is_none() {
            return Err(Refused::Already { why: "no storm hold is released".to_owned() });
        }
        self.note(context, Event::StormEnded);
        Ok(())
    }
}
