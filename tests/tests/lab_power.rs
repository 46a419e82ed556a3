//! Power in the lab: devices, watchdogs and leases, and the hosts that they switch off.

mod devices;
mod fencing;
mod hosts;
mod reset;
mod watchdog;
