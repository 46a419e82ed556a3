//! What operators declare and what it means: vocabulary, parsing, checking, and every decision as a pure function.
//!
//! Nothing here reads a clock, opens a file or a socket, spawns a task or rolls a die: whatever a decision depends on is
//! a parameter, so that any decision can be replayed from the journal or by the simulator.

pub mod agent;
mod applied;
mod apply;
pub mod armed;
pub mod bound;
mod budget;
pub mod change;
pub mod check;
pub mod decide;
pub mod departure;
pub mod evidence;
pub mod feature_level;
pub mod fence_agent;
mod fence_level;
pub mod fence_path;
pub mod fit;
#[cfg(test)]
mod fixture;
pub mod giving_way;
pub mod go_ahead;
pub mod hands_off;
pub mod happened;
pub mod hostfile;
pub mod incident;
pub mod journal;
pub mod ladder;
pub mod lease;
pub mod lock_holders;
mod machine;
mod migration;
pub mod model;
pub mod names;
pub mod news;
pub mod observe;
#[cfg(test)]
mod older;
pub mod operators;
pub mod order;
pub mod plan;
mod power_device;
pub mod probe;
pub mod proof;
mod receiver;
pub mod recovery;
pub mod reply;
pub mod revocation;
pub mod rules;
pub mod same_machine;
pub mod secret;
pub mod sight;
pub mod some_of;
mod started_anew;
pub mod state;
pub mod sync;
pub mod time;
pub mod timing;
pub mod tuning;
mod unmet;
mod window;
pub mod yaml;
