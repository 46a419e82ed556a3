//! Holdfast's own agent in the guest, and what it says over its port.
//!
//! ```text
//!   host: supervisor ──unix socket── QEMU ──virtio-serial── /dev/virtio-ports/holdfast.0 ── holdfast-guest
//!            hello, ask ───────────────────────────────────────────────►  only what its config allows
//!            ◄──────────────────────────── here, found, ended, refused      watch: pid files, units
//!            ◄──────────────────────────── died  (at once, unasked)
//!                                               127.0.0.1:7412 ◄── applications that report in
//! ```
//! One JSON object in each line, in both directions; no network between host and guest. vsock may stand in for the port. The
//! agent runs the same probes as everybody, with itself as the way in. It holds no state that matters: after a restart of either
//! side a `hello` brings both up to date.

pub mod arguments;
pub mod config;
mod local;
mod look;
mod loopback;
pub mod protocol;
mod reports;
mod seldom;
pub mod serve;
pub mod vsock;
mod watch;

#[cfg(test)]
mod tests;

pub use self::{
    config::GuestConfig,
    protocol::{FromGuest, ToGuest, What},
    seldom::Seldom,
    serve::Agent,
};
