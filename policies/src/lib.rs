//! What operators declare and what it means: vocabulary, parsing, checking, and every decision as a pure function.
//!
//! Nothing here reads a clock, opens a file or a socket, spawns a task or rolls a die: whatever a decision depends on is
//! a parameter, so that any decision can be replayed from the journal or by the simulator.

pub mod agent;
mod apply;
pub mod change;
pub mod decide;
pub mod evidence;
#[cfg(test)]
mod fixture;
pub mod hostfile;
pub mod incident;
pub mod journal;
pub mod ladder;
pub mod model;
pub mod names;
pub mod observe;
pub mod order;
pub mod proof;
pub mod state;
pub mod sync;
pub mod time;
pub mod yaml;
