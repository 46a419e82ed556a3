//! The supervisor: connects policies, probes and fencing to gossip, consensus, hypervisors and people.
//!
//! ```text
//!  datagram -> gossip, heard ----+
//!  prober ----> sights           |        +--> policies::decide (pure)
//!  qemu ------> events, reports  v        |
//!  agent  <==== sync (rpc) ====> coordinator ----> consensus --> replica (policies::apply, pure)
//!    |                            |   \
//!    +-> qemu, fencing            |    +--> alerts, metrics
//!  guard (own process): lease, beacon     api, cli --> desk
//! ```

pub mod agent;
pub mod alerts;
pub mod api;
pub mod bootstrap;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod consensus;
pub mod coordinator;
pub mod datagram;
pub mod desk;
pub mod durable;
pub mod duties;
pub mod facts;
pub mod gossip;
pub mod guard;
pub mod handler;
pub mod health;
pub mod identity;
pub mod locks;
pub mod metrics;
pub mod node;
pub mod packed;
pub mod pki;
pub mod prober;
pub mod qemu;
pub mod recover;
pub mod replica;
pub mod revocations;
pub mod rpc;
pub mod run;
pub mod runtime;
pub mod vote;
