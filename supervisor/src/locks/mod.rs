//! Whether hosts see each other's locks on disk images, tried when policies are applied (R28).
//!
//! ```text
//! coordinator ── hold these ──► first host that has them: a shared lock of one byte, for some seconds
//!             └─ look at them ─► every other host on which the guest may run: is the byte locked?
//! ```
//! A host that does not see the lock has another file under that path, or storage whose locks end at each host. A host that
//! could not be asked, or lacks the image, says nothing (S5): the driver tries again before it starts or receives a guest.

mod serve;
mod survey;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use serve::Keeper;
pub use survey::survey;

/// Most images in one question: their answers fit a frame, and trying them takes far less than a second.
pub const IMAGES_MAX: usize = 256;

/// Longest time that a host keeps what it was asked to hold: as long as a survey takes, with room to spare.
pub const HOLD_MAX: Duration = Duration::from_secs(5);

/// What a coordinator asks a host about disk images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Lock them for [`HOLD_MAX`].
    Hold {
        /// The images.
        images: Vec<PathBuf>,
    },
    /// Is the lock of another host seen?
    Look {
        /// The images.
        images: Vec<PathBuf>,
    },
}

/// What a host found, image by image in the order of the question.
pub type Answers = Vec<Found>;

/// What a host found of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is locked: by this host from here on, or by another as this host sees it.
    Locked,
    /// Nobody's lock is seen.
    NotLocked,
    /// Nothing can be said of it from here: there is no such file, or it is a block device, whose locks are always local.
    Silent,
    /// The storage refuses locks.
    Refused {
        /// How.
        detail: String,
    },
}
