//! Voters alone, and real ones: openraft with the product's configuration, entries and replicated state, on a runtime whose
//! clock and dice a seed rules (`openraft-rt-sim`). A seed is a cluster of three voters (odd seeds) or five (even ones) and
//! what befalls them, and repeats its run exactly. What the big simulator models of consensus is checked here against the
//! thing itself (docs/decisions/0013).
//!
//! ```text
//!   plan ──> troubles ──┐             ┌ log, disk   (fsync takes time; without power what waited is lost)
//!   clients, exchange ──┴─> cluster ──┼ machine     (the product's replica, with what was applied)
//!                                     ├ link, network (loss, delay, repetition, cuts)
//!                                     └ ledger      (what was said, and what must hold) ──> run, report
//! ```
//! A leader whose decisions do not get to the others has a run of its own (`narrow`).
//!
//! Not here, because it blocks, speaks to the kernel or has threads: redb, TLS, and the shell around openraft
//! (`supervisor/src/consensus`). That is tested beside its code, without a seed.

mod breaks;
mod clients;
mod cluster;
mod disk;
mod exchange;
mod ledger;
mod link;
mod log;
mod machine;
mod narrow;
mod network;
mod plan;
mod report;
mod run;
mod troubles;
mod types;

pub use breaks::Break;
pub use ledger::Seen;
pub use report::{Totals, find_break, run_many, words};
pub use run::{End, Options, Outcome, run, run_narrow};
