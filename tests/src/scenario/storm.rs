//! What people do whom Holdfast calls because it fences nobody: they look, and let it go on.
//!
//! Many hosts that fall silent at once look like one lost switch, so that Holdfast holds every fence that is not proven needless (S9).
//! Of a story the scenario says that these hosts are cut off, and nothing of a switch. So whoever is called finds them as silent as
//! they were, and says so.

use holdfast_policies::change::Change;

use super::world::World;

/// How many milliseconds it takes to be called, to look, and to say so. What is heard again by then is fenced by nobody.
const LOOKED_AFTER: u64 = 60_000;

/// The key of what people are called for.
const ABOUT: &str = "storm";

/// Has fencing go on when it has been held for so long.
pub fn release(world: &mut World) {
    let decides = world.leader.is_some() && world.state.suspended.is_none();
    if !decides || world.state.storm_release.is_some() {
        return;
    }
    let called = world.state.open_incident(ABOUT).map(|incident| incident.opened.0);
    if called.is_some_and(|called| world.now.saturating_sub(called) >= LOOKED_AFTER) {
        world.commit(Change::StormHoldReleased { by: "whoever is called".to_owned() });
    }
}
