//! How many connections each operator's certificate may have open, so that a stolen or a revoked one takes the connections
//! that there are from no host and from no other operator: it is verified as any other until it expires.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_policies::operators::Serial;

/// The seats that are taken, by certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats {
    taken: Arc<Mutex<BTreeMap<Serial, usize>>>,
}

/// One of a certificate's connections. It is given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    serial: Serial,
}

impl Seats {
    /// One more connection of this certificate, unless it has as many as it may.
    pub(super) fn take(&self, serial: &Serial, most: usize) -> Option<Seat> {
        let mut taken = self.lock();
        let count = taken.get(serial).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        taken.insert(serial.clone(), count + 1);
        Some(Seat { seats: self.clone(), serial: serial.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Serial, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        // Nothing is remembered of a certificate that has no connection.
        match taken.get(&self.serial).copied() {
            Some(count) if count > 1 => {
                taken.insert(self.serial.clone(), count - 1);
            }
            Some(_) | None => {
                taken.remove(&self.serial);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_has_so_many_seats_and_others_have_their_own() {
        let (seats, ann, bob) = (Seats::default(), Serial::from_bytes(&[1]), Serial::from_bytes(&[2]));
        let (first, second) = (seats.take(&ann, 2), seats.take(&ann, 2));
        assert!(first.is_some() && second.is_some() && seats.take(&ann, 2).is_none());
        assert!(seats.take(&bob, 2).is_some(), "another's");
        drop(first);
        let again = seats.take(&ann, 2);
        assert!(again.is_some() && seats.take(&ann, 2).is_none());
        drop((second, again));
        assert!(seats.lock().is_empty(), "nothing is kept of those that are gone");
    }
}
