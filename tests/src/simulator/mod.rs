//! The simulator: a whole cluster in one thread. The deciding core (`decide`, `ClusterState::apply`, `Agent`) is the
//! product's; hosts, guests, clocks, disks, power devices, the network and consensus are simulated, and a seed repeats a run
//! exactly.
//!
//! ```text
//!   setup ─┐                      ┌ host   (power, clock, guard, disk)     ┌ agent        (the agent's shell)
//!   faults ┴─> world ── queue ────┼ guest  (virtual machines, orders)      ├ coordinator  (the brain's shell)
//!              network, device ───┴ consensus (a log for each voter) ──────┴ checks ──> story, shrink, report
//! ```
//! How to drive it (all times are milliseconds of simulated time, hosts are meant by their index in the setup):
//!
//! 1. [`Setup::plain`] with hosts and policies, or [`Setup::random`] from a seed; fields may be changed.
//! 2. [`World::new`] with a [`Plan`], that is what [`Happening`]s come when; [`World::at_rest`] without one.
//! 3. [`World::run_until`], and [`World::happen`] for what is decided on the way. A world at rest skips to the next
//!    planned happening. `world.story.told = true` beforehand keeps the story.
//! 4. [`World::state`] is what is committed (phases, orders, incidents, journal); `world.hosts[i].machines` is what really
//!    runs; [`World::is_at_rest`], [`World::violation`] and [`World::unhealed`] say how it went.
//!
//! [`faults::Happening::Heal`] stops all faults and has operators do what pages ask for; the run is unhealed when it is
//! not at rest within the limit of that world ([`heal_bound`]). What one failure alone may cost is measured in [`quiet`] worlds,
//! against the bound that operators are shown before.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "hosts are numbers below the number of hosts; a simulator that is wrong has to stop"
)]

pub mod agent;
pub mod authority_checks;
pub mod beacons;
pub mod boots;
pub mod breaks;
pub mod budgets;
pub mod bursts;
pub mod checks;
pub mod chores;
pub mod consensus;
pub mod coordinator;
pub mod device;
pub mod disks;
pub mod doubt;
pub mod elections;
pub mod faults;
pub mod fence_checks;
pub mod found;
pub mod grounds;
pub mod guard;
pub mod guest;
pub mod happen;
pub mod heal_bound;
pub mod healing;
pub mod held_checks;
#[cfg(test)]
mod held_guests;
pub mod host;
pub mod join_checks;
pub mod lies;
pub mod losses;
#[cfg(test)]
mod must_hold;
pub mod network;
pub mod nudges;
pub mod oddities;
pub mod proof_checks;
pub mod questions;
pub mod queue;
pub mod quiet;
pub mod random;
pub mod recoveries;
pub mod report;
pub mod rest;
pub mod revoked;
pub mod rules;
pub mod scarcity;
pub mod seen;
pub mod service_storms;
pub mod setup;
pub mod shrink;
pub mod slow_watchdogs;
pub mod snapshot;
pub mod start_checks;
pub mod story;
pub mod syncs;
pub mod versions;
pub mod views;
pub mod voter;
pub mod waits;
pub mod world;

/// Simulated milliseconds.
pub type Ms = u64;

pub use faults::{Happening, Plan};
pub use setup::Setup;
pub use world::World;
