//! Guests in the lab: what they run, how they fail, and how they move.

mod hypervisor;
mod inside;
mod kits;
mod migrate;
mod unwell;
