//! Make one host be off, with proof.

pub mod agent;
pub mod command;
pub mod device;
pub mod fake;
pub mod ipmi;
pub mod kept;
pub mod libvirt;
pub mod machine_id;
pub mod open;
pub mod power_off;
pub mod power_on;
pub mod qemu;
pub mod redfish;
pub mod refusals;
pub mod report;
pub mod webhook;

mod aside;
mod causes;
mod newest_off;
mod password;
mod program;
mod resolver;
mod tls;
mod together;

#[cfg(test)]
mod benches;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod https_server;
#[cfg(test)]
mod program_folder;
#[cfg(test)]
mod simulator;

pub use device::{Answer, Power, PowerDevice};
pub use kept::Kept;
pub use open::devices as open_devices;
pub use power_off::power_off_and_confirm;
pub use power_on::power_on_and_confirm;
pub use refusals::Refusals;
pub use report::{Asked, Attempt, Outcome, PowerOffReport, Reading};
