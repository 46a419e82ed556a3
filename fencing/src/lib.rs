//! Make one host be off, with proof.

pub mod device;
pub mod fake;
pub mod ipmi;
pub mod machine_id;
pub mod open;
pub mod power_off;
pub mod report;

mod command;
mod password;
mod together;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod simulator;

pub use device::{Answer, Power, PowerDevice};
pub use open::device as open_device;
pub use power_off::power_off_and_confirm;
pub use report::{Asked, Attempt, Outcome, PowerOffReport, Reading};
