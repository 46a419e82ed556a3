//! How many places each of those who are counted may have, so that what one of them does takes the places that there are from no
//! other: the connections of a certificate that was stolen or revoked, which is verified as any other until it expires, or of a
//! host that is not itself any more; and what waits of each host to be looked at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The seats that are taken, by who has them.
#[derive(Debug, Clone)]
pub struct Seats<K> {
    taken: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// One of somebody's places. It is given back when dropped.
#[derive(Debug)]
pub struct Seat<K: Ord + Clone> {
    seats: Seats<K>,
    whose: K,
}

impl<K> Default for Seats<K> {
    fn default() -> Self {
        Self { taken: Arc::new(Mutex::new(BTreeMap::new())) }
    }
}

impl<K: Ord + Clone> Seats<K> {
    /// One more place for somebody, unless they have as many as they may.
    #[must_use]
    pub fn take(&self, whose: &K, most: usize) -> Option<Seat<K>> {
        let mut taken = self.lock();
        let count = taken.get(whose).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        taken.insert(whose.clone(), count + 1);
        Some(Seat { seats: self.clone(), whose: whose.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        // Nothing is remembered of somebody who has no place.
        match taken.get(&self.whose).copied() {
            Some(count) if count > 1 => {
                taken.insert(self.whose.clone(), count - 1);
            }
            Some(_) | None => {
                taken.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::operators::Serial;

    use super::*;

    #[test]
    fn a_certificate_has_so_many_seats_and_others_have_their_own() {
        let (seats, ann, bob) = (Seats::<Serial>::default(), Serial::from_bytes(&[1]), Serial::from_bytes(&[2]));
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
