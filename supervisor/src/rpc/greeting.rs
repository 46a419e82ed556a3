//! Those whose handshake is not over: so many, and the newest.
//!
//! Until then nobody knows whose a connection is, so that whoever reaches the port can open any number of them and say nothing. They
//! take no place from those who have shown a certificate, and none from each other for long: a handshake takes milliseconds, and
//! one that has stood for long in a crowd is the least likely to be a host's.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Those whose handshake is not over, the longest-standing first.
pub(super) struct Greeting {
    most: usize,
    places: VecDeque<oneshot::Sender<()>>,
}

/// A place among them, given back when dropped. It ends when it is needed for somebody else.
pub(super) type Place = oneshot::Receiver<()>;

impl Greeting {
    /// Room for so many.
    pub(super) fn of(most: usize) -> Self {
        Self { most: most.max(1), places: VecDeque::new() }
    }

    /// One more place. When all are taken, the longest-standing makes room.
    pub(super) fn place(&mut self) -> Place {
        if self.places.len() >= self.most {
            self.places.retain(|place| !place.is_closed());
        }
        while self.places.len() >= self.most {
            self.places.pop_front();
        }
        let (kept, place) = oneshot::channel();
        self.places.push_back(kept);
        place
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn lasts(place: &mut Place) -> bool {
        place.try_recv() == Err(TryRecvError::Empty)
    }

    #[test]
    fn the_longest_standing_makes_room_and_only_where_nobody_has_left() {
        let mut greeting = Greeting::of(2);
        let (mut first, second) = (greeting.place(), greeting.place());
        drop(second);
        let mut third = greeting.place();
        assert!(lasts(&mut first) && lasts(&mut third), "the second has left");
        let mut fourth = greeting.place();
        assert!(!lasts(&mut first) && lasts(&mut third) && lasts(&mut fourth));
    }
}
