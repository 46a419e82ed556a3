//! Chaos: a real cluster in the lab, real faults from a seed, and somebody who watches from outside.
//!
//! ```text
//!   seed ── setup (hosts, guests) ── ground (lab, clients) ─┐
//!     └─── plan (a burst of kinds) ── act ── mend ── rest ──┴─ witness, logs, daemons ── report
//!                                      └── operators ──┘            └ keep, when something went wrong
//! ```
//! A run is a number of *bursts*. Each is one to four faults that begin within four seconds and may meet: processes that die or stand
//! still, cables, power, power devices, operators. Then everything is mended, as a person would do it, and all has to be at rest again
//! within a limit: every host healthy, every guest running in one place and answering the client outside, for four seconds in a row.
//!
//! What is asserted is not taken from Holdfast. The lab's watcher sees every 20 ms who may write which disk
//! ([`Lab::double_runs`](crate::lab::Lab::double_runs)), and each guest writes a line to its disk at every boot: their numbers never go
//! back, and at the end of a run, with all power off, every disk is read. Also asserted: no daemon panics, and the checker beside the
//! planner refuses no plan. Only told: how long each burst took until all was well, outages, boots, starts that QEMU refused because
//! another one had the disk, for what a person was needed, and memory, descriptors and threads of every daemon at rest, so that growth
//! shows.
//!
//! The simulator (`crate::simulator`) draws far more, and repeats it exactly. This here is the same idea with nothing simulated but power
//! devices, watchdogs and cables: a seed repeats cluster and faults, and what comes of them depends on the machine too.
//!
//! Left out, because the lab cannot do them or they would show nothing: delays and lost packets other than by a cable with a bad contact
//! (the kernel of the lab has no netem), stalled disks (`tests/tests/disk.rs`), clocks, and a power device that lies while nothing of its
//! host is heard, which no rule can tell from the truth (docs/SAFETY.md, R9).

mod act;
mod daemons;
mod ground;
mod keep;
mod kinds;
mod logs;
mod mend;
mod operators;
mod plan;
mod report;
mod rest;
mod run;
mod setup;
mod story;
mod upgrade;
mod witness;

pub use self::{
    daemons::{Grown, Usage},
    kinds::Kind,
    report::{Burst, Report},
    run::{Length, Options, planned, run},
    setup::{GUESTS, GuestSpec, HOSTS, Setup},
};
